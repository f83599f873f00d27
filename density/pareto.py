"""The former address of :mod:`density.importance.pareto`."""

from density.importance.pareto import pareto_k, reliability_threshold, smoothed, tail_length

__all__ = [
    "pareto_k",
    "reliability_threshold",
    "smoothed",
    "tail_length",
]
