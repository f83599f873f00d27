"""The former address of :mod:`lvm.vae.gradients`."""

from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
    WrongGradient,
)

__all__ = [
    "AnalyticKL",
    "DoublyReparametrised",
    "GradientEstimator",
    "ImportanceWeighted",
    "LeaveOneOut",
    "Reparametrised",
    "ScoreFunction",
    "StickingTheLanding",
    "WrongGradient",
]
