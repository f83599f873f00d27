"""Masses on the grey levels 0 … L−1."""
