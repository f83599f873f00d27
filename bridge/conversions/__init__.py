"""Models of one kind as models of another, and from and to other libraries."""
