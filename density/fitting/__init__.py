"""Maximise an objective over data by gradient steps: settings, the loop, checkpoints."""

from density.fitting.ascent import maximise
from density.fitting.best_weights import NonFiniteObjective
from density.fitting.optimisers import adam, constant, cosine, lbfgs
from density.fitting.training import LastBatch, Training

__all__ = [
    "LastBatch",
    "NonFiniteObjective",
    "Training",
    "adam",
    "constant",
    "cosine",
    "lbfgs",
    "maximise",
]
