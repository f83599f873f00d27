"""Densities made of others: products over columns, and of features that a network makes of the context."""
