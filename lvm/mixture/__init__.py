"""Gaussian mixtures and their EM algorithms."""

from lvm.mixture.model import GaussianMixture

__all__ = [
    "GaussianMixture",
]
