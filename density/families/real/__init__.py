"""Densities of real numbers with heavier tails than a Gaussian."""
