"""log p(x) with draws from the prior: the lecture's naive Monte Carlo, in its two readings."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.data.points import Points
from density.evaluating import evaluated
from density.importance.bound import average
from density.importance.weights import DrawLogWeights, weight_blocks
from density.log_density import Kind, LogDensity
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel


@evaluated
def prior_average(
    model: LayeredModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    draws: int = 1000,
    generator: Generator | None = None,
) -> LogDensity:
    r"""The lecture's average of log p(x|z) over the prior: the ELBO with q = prior.

    .. math:: \log p(x) \ge E_{p(z)} \log p(x|z) \approx \tfrac1K \sum_k \log p(x|z_k), \qquad z_k \sim p(z)

    More draws make it more precise, not closer: its gap KL(p(z) ‖ p(z|x)) does not depend on K.

    Args:
        model: a latent-variable model with a decoder density.
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model, whose prior may be p(z|c).
        draws: K, at least 2.

    Returns:
        A LogDensity of kind LOWER with the standard error of the average, float64. O(nK) decoder passes.

    Raises:
        TypeError: the model has no decoder density.
        ValueError: draws < 2, unusable data, or a non-finite log p(x|z).

    >>> from lvm import PPCA
    >>> model, x = PPCA(3, 1), torch.ones(2, 3)
    >>> claim = prior_average(model, x, draws=100, generator=torch.manual_seed(0))
    >>> claim.kind.value, (model.log_density(x) - claim).mean > 0
    ('lower bound', True)
    """
    draws = check_count(draws, "draws")
    if draws < 2:
        raise ValueError("prior_average needs at least 2 draws to have a Monte Carlo error; got 1")
    draw, rows = _reconstruction(model, x, context, generator)
    value, error = (torch.empty(x.shape[0], dtype=torch.float64, device=x.device) for _ in range(2))
    for points, log_likelihoods in weight_blocks(draw, rows, draws):
        value[points] = log_likelihoods.mean(0)
        error[points] = log_likelihoods.std(0) / math.sqrt(draws)
    return LogDensity(
        value,
        Kind.LOWER,
        f"average of log p(x|z) over the prior, {draws} draws",
        error,
        measure=model.measure,
        points=Points.of(x),
    )


@evaluated
def prior_importance(
    model: LayeredModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    draws: int = 1000,
    generator: Generator | None = None,
) -> LogDensity:
    r"""Importance sampling from the prior: the log-mean-exp of log p(x|z).

    .. math:: \log p(x) = \log E_{p(z)} p(x|z) \approx \log \tfrac1K \sum_k p(x|z_k), \qquad z_k \sim p(z)

    Consistent, at a cost of about exp(KL(p(z|x) ‖ p(z))) draws (Chatterjee & Diaconis 2018), which grows exponentially
    with the information that x carries about z. Arguments, result and errors as for
    :func:`~density.importance.bound.importance`.

    >>> from lvm import PPCA
    >>> _ = torch.manual_seed(0)
    >>> model, x = PPCA(3, 1), torch.zeros(2, 3)
    >>> prior_importance(model, x, draws=100).method
    'importance-weighted bound from the prior, 100 draws'
    """
    draw, rows = _reconstruction(model, x, context, generator)
    return average(draw, x, draws, model.measure, "importance-weighted bound from the prior", rows)


def _reconstruction(
    model: LayeredModel, x: Tensor, context: Tensor | None, generator: Generator | None
) -> tuple[DrawLogWeights, Tensor]:
    """Draws of log p(x|z) under the prior, and the rows that they are for."""
    joint = unrolled(model)
    if not isinstance(joint, LatentVariableModel):
        raise TypeError(
            f"draws from the prior need a model with prior and decoder densities; {type(model).__name__} has none"
        )

    def draw(rows: Tensor, k: int) -> Tensor:
        return joint._log_likelihood(rows, joint._prior_draws(k, rows, generator))

    return draw, model._data_rows(x, context)
