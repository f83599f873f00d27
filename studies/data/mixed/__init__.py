"""Tables of several kinds of columns: numbers, counts and categories."""
