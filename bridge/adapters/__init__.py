"""Models of other libraries, and plain functions, as densities and bounds here; nothing is imported before its use."""
