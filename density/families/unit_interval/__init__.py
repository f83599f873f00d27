"""Densities on the unit interval."""
