"""Importance weights: their average with its errors, the diagnosis of their tail, blocks of bounded memory."""

from density.importance.bound import average, diagnostics, importance, log_mean_exp

__all__ = [
    "average",
    "diagnostics",
    "importance",
    "log_mean_exp",
]
