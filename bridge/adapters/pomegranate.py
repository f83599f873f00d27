"""Distributions of pomegranate (Schreiber 2018; version 1, in torch): mixtures, independent components, and others."""

from __future__ import annotations

from typing import Any

from bridge.adapters.calls import is_module
from bridge.adapters.log_prob import FromLogProb, as_word_of
from density.measure import Measure

CONTINUOUS = {"Exponential", "Gamma", "HalfNormal", "LogNormal", "Normal", "StudentT", "Uniform"}
DISCRETE = {"Bernoulli", "Categorical", "ConditionalCategorical", "JointCategorical", "Poisson"}


def from_pomegranate(model: Any) -> FromLogProb:  # noqa: ANN401  # a pomegranate distribution
    """A fitted distribution of pomegranate as a density; its measure is that of the families it is made of.

    Raises:
        TypeError: no distribution over vectors; models of sequences are over other things.
        ValueError: not fitted, so without a width; or made of densities and masses at once.
    """
    if not is_module(model) or not hasattr(model, "log_probability"):
        raise TypeError(f"from_pomegranate takes a pomegranate distribution; got {type(model).__name__}")
    if hasattr(model, "edges"):
        raise TypeError(
            f"from_pomegranate takes a distribution over vectors; {type(model).__name__} is over sequences or graphs"
        )
    features = getattr(model, "d", None)
    if not isinstance(features, int):
        raise ValueError(f"from_pomegranate: {type(model).__name__} has no width d yet; fit it first")
    families = _families(model)
    measures = {Measure.LEBESGUE} if families & CONTINUOUS else set()
    if families & DISCRETE:
        measures.add(Measure.COUNTING)
    if len(measures) != 1:
        found = ", ".join(sorted(families & (CONTINUOUS | DISCRETE))) or "none that is known"
        raise ValueError(
            f"from_pomegranate takes families that are all densities or all masses; got {found}. Give log_probability "
            "to from_log_prob, with the measure that holds"
        )
    method = as_word_of("pomegranate", model)
    return FromLogProb(model.log_probability, features, model.sample, measure=measures.pop(), method=method)


def _families(model: Any) -> set[str]:  # noqa: ANN401
    """The names of all families in a model, also of those that it holds in plain lists."""
    inner = [part for part in getattr(model, "distributions", ()) if part is not None]
    return {type(model).__name__}.union(*(_families(part) for part in inner))
