"""Importance weights from both sides, on points simulated from a model of a prior and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.data.points import Points
from density.evaluating import evaluated
from density.importance.bound import diagnosed, solved
from density.importance.weights import weight_blocks
from density.log_density import Kind, LogDensity
from density.measure import ReferenceMeasure
from density.weight_diagnostics import WeightDiagnostics
from lvm.evidence.annealing.bounds import Sandwich
from lvm.layered import LayeredModel

Diagnosed = tuple[Tensor, Tensor, WeightDiagnostics]


@evaluated
def weighted_sandwich(
    model: LayeredModel, n: int, *, draws: int = 1000, generator: Generator | None = None
) -> Sandwich:
    r"""The importance-weighted bound from both sides, on points simulated from the model (Burda et al. 2016; Grosse et
    al. 2015, arXiv:1511.02543, section 3).

    .. math:: E \log \tfrac1K \sum_{k=1}^K w_k \;\le\; \log p(x) \;\le\;
              E \log \tfrac1{K+1} \Big(w_* + \sum_{k=1}^K w_k\Big)

    with :math:`w_k` at draws of q(z|x), and :math:`w_*` at the z that x was simulated from, which is an exact draw of
    its posterior: the second mean has expectation E 1/ŵ = 1/p(x), and Jensen's inequality does the rest. Unlike
    :func:`sandwich` it needs no gradients and no chains, and takes any links that say how probable a given latent is:
    those of dequantised flows, of VAEs, and chains of them. Where q is far from the posterior it is wide.

    Of real points there is no such z, and **no upper bound**.

    Args:
        model: unconditional, of a prior and links.
        n: points to simulate.
        draws: K.
        generator: on the model's device; of the points too.

    Returns:
        The points and both bounds on their log p(x). The randomness of their exact draws is not in the upper one's
        ``monte_carlo_error`` but in the standard error over points.

    Raises:
        TypeError: no layered model, or a link that does not know log q(z|x) of a latent that it is given.
        ValueError: a conditional model, a count out of range, or a model that simulates points outside its own support.

    Cost: that of ``log_density`` on n points.

    >>> from lvm.vae.linear import LinearVAE
    >>> model = LinearVAE(4, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> both = weighted_sandwich(model, 50, draws=500, generator=torch.Generator().manual_seed(1))
    >>> both.width.kind, both.mean_width < 0.1
    (<Kind.UPPER: 'upper bound'>, True)
    """
    if not isinstance(model, LayeredModel):
        raise TypeError(f"weighted_sandwich takes a model of a prior and links; got {type(model).__name__}")
    if model.context_features:
        raise ValueError(
            f"weighted_sandwich takes an unconditional model; {type(model).__name__} needs a context of "
            f"{model.context_features} features"
        )
    n, draws = check_count(n, "n"), check_count(draws, "draws", least=2)
    with torch.no_grad():
        z = model.prior.sample(n, generator=generator)
        x, log_ratio = model.link.simulate(z, generator=generator)
        exact = (model.prior.log_prob(z) + log_ratio).double()
    model.check_input(x)

    def draw(rows: Tensor, count: int) -> Tensor:
        return model.log_weights(rows, count, generator=generator)

    below, above = [], []
    for points, log_weights in weight_blocks(draw, x, draws):
        below.append(diagnosed(log_weights, x.dtype, x.shape[-1]))
        value, error, weights = diagnosed(torch.cat([log_weights, exact[None, points]]), x.dtype, x.shape[-1])
        above.append((value, error, replace(weights, bias=-weights.bias)))
    method = f"importance-weighted bound, {draws} draws"
    lower = _claim(Kind.LOWER, method, below, model.measure, x)
    upper = _claim(Kind.UPPER, f"{method} and the exact one", above, model.measure, x)
    return Sandwich(x, *(solved(model, claim, x, generator) for claim in (lower, upper)))


def _claim(kind: Kind, method: str, parts: Sequence[Diagnosed], measure: ReferenceMeasure, x: Tensor) -> LogDensity:
    """The claim about x ``[n, D]`` whose values, errors and diagnoses come in parts."""
    values, errors, weights = zip(*parts, strict=True)
    return LogDensity(
        torch.cat(values),
        kind,
        method,
        torch.cat(errors),
        measure=measure,
        weights=WeightDiagnostics.concatenate(weights),
        points=Points.of(x),
    )
