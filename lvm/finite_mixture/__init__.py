"""Finite mixtures of any families, and their EM."""
