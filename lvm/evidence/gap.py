"""The gap between log p(x) and the ELBO, and its causes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.contract import Bound, ExactModel
from density.data.joined import joined
from density.data.points import Points
from density.evaluating import evaluated
from density.importance.bound import diagnosed, solved
from density.importance.weights import weight_blocks
from density.log_density import Claim, Difference, Kind, LogDensity
from density.weight_diagnostics import WeightDiagnostics
from lvm.evidence.local import LocalElbo, LocalFit, local_elbo
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel


@dataclass(frozen=True, eq=False)
class Parts:
    """The gap's two causes (Cremer et al. 2018, section 3).

    Attributes:
        local_elbo: ELBO of the best local q of each point; a lower bound on log p(x).
        approximation: log p(x) − best local ELBO: what the family of q costs.
        amortisation: best local ELBO − ELBO: what it costs that one network must serve all points.
        converged: points whose local q converged, ``[n]``.

    A local ELBO that has not converged is too low: it makes the approximation gap an upper bound and the amortisation
    gap a lower one. An importance-weighted log p(x), itself too low, makes the approximation gap a lower bound; both
    together leave an estimate.

    >>> from lvm import PPCA
    >>> fit = LocalFit(steps=20, draws=4, progress=False)
    >>> parts = gap(PPCA(3, 1), torch.zeros(2, 3), draws=10, local=fit).parts
    >>> parts.local_elbo.kind.value, parts.converged.shape
    ('lower bound', torch.Size([2]))
    """

    local_elbo: LogDensity
    approximation: Difference
    amortisation: Difference
    converged: Tensor


@dataclass(frozen=True, eq=False)
class Gap:
    """log p(x), the ELBO, and what is between them, at the same points.

    Attributes:
        log_density: log p(x): exact where the model knows it, else as given, else the importance-weighted bound.
        elbo: the ELBO of the amortised q; a lower bound on log p(x).
        difference: log p(x) − ELBO = KL(q(z|x) ‖ p(z|x)), exact up to its Monte Carlo error where log p(x) is; a lower
            bound where log p(x) is a lower bound. Paired: the error is that of the difference, not of its parts.
        parts: the two causes of the gap, if they were asked for.

    >>> from lvm import PPCA
    >>> report = gap(PPCA(3, 1), torch.zeros(2, 3), draws=10)
    >>> list(report.claims()), report.parts
    (['log p(x)', 'ELBO', 'gap'], None)
    """

    log_density: LogDensity
    elbo: LogDensity
    difference: Difference
    parts: Parts | None = None

    def claims(self) -> dict[str, Claim]:
        """Every quantity by name, in the order of the report."""
        named: dict[str, Claim] = {"log p(x)": self.log_density}
        if self.parts is not None:
            named |= {"ELBO, best local q": self.parts.local_elbo}
        named |= {"ELBO": self.elbo}
        if self.parts is not None:
            named |= {"approximation gap": self.parts.approximation, "amortisation gap": self.parts.amortisation}
        return named | {"gap": self.difference}

    def rows(self) -> list[dict[str, float | str]]:
        """One plain record for each quantity, for a data frame."""
        return [
            {
                "quantity": name,
                "mean": claim.mean,
                "standard_error": claim.standard_error,
                "monte_carlo_error": claim.mean_monte_carlo_error,
                "kind": claim.kind.value,
                "method": claim.method,
            }
            for name, claim in self.claims().items()
        ]

    def __repr__(self) -> str:
        lines = [f"{'nats a point':<20}{'mean':>12}{'± data':>10}{'± draws':>10}  kind"]
        for name, claim in self.claims().items():
            numbers = f"{claim.mean:>12.4f}{claim.standard_error:>10.2g}{claim.mean_monte_carlo_error:>10.2g}"
            lines.append(f"{name:<20}{numbers}  {claim.kind_in_words}")
        if self.log_density.unreliable:
            lines.append(
                f"the error of log p(x) is not to be trusted, by their weights, at {self.log_density.unreliable} of "
                f"{self.log_density.value.numel()} points"
            )
        if self.parts is not None:
            lines.append(
                f"local q converged at {int(self.parts.converged.sum())} of {self.parts.converged.numel()} points"
            )
        return "\n".join(lines)


@evaluated
def gap(
    model: Bound,
    x: Tensor,
    *,
    context: Tensor | None = None,
    draws: int = 1000,
    log_density: LogDensity | None = None,
    local: LocalFit | None = None,
    generator: Generator | None = None,
) -> Gap:
    r"""log p(x), the ELBO and the gap between them, from paired log-weights; with ``local``, also the gap's causes.

    With K draws and known log p(x) the gap is the mean of log p(x) − log w, with error sd/√K. Otherwise log p(x) is the
    importance-weighted bound of the same draws, and the error of log-mean-exp minus mean follows from the influence of
    one draw, (w/w̄ − 1) − (log w − mean log w), by the delta method.

    Args:
        model: a :class:`~density.contract.Bound`; a flow becomes one as ``bridge.FlowVAE(flow)``.
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model.
        draws: K, at least 2.
        log_density: a stronger claim about log p(x) at these points, from quadrature or annealing, say. By default
            exact where the model knows it and the importance-weighted bound elsewhere.
        local: how to optimise a q for each point; its family should be the encoder's. None leaves the causes out.

    Raises:
        TypeError: the model has no log-weights, or, with ``local``, no log_joint.
        ValueError: draws < 2, unusable data or contexts, a claim about other points, or a non-finite log-weight.

    Cost O(nK) passes of the decoder, memory independent of n; for ``local`` see :func:`~lvm.evidence.local.local_elbo`.

    >>> from lvm import PPCA
    >>> _ = torch.manual_seed(0)
    >>> report = gap(PPCA(3, 1), torch.zeros(2, 3), draws=10)
    >>> [(row["quantity"], row["kind"]) for row in report.rows()]
    [('log p(x)', 'exact'), ('ELBO', 'lower bound'), ('gap', 'exact')]
    >>> abs(report.difference.mean) < 1e-5  # PPCA's encoder is the posterior
    True
    """
    if not isinstance(model, Bound):
        raise TypeError(
            f"gap needs a model with log-weights; {type(model).__name__} has none. "
            "A flow has them as bridge.FlowVAE(flow)"
        )
    draws = check_count(draws, "draws")
    if draws < 2:
        raise ValueError("gap needs at least 2 draws to have a Monte Carlo error; got 1")
    model._check_asked(x, context)
    if log_density is None and isinstance(model, ExactModel):
        log_density = model._claim(x, context)
    if log_density is not None and log_density.value.shape != x.shape[:1]:
        raise ValueError(
            f"the claim about log p(x) must be about the same {x.shape[0]} points; got {list(log_density.value.shape)}"
        )
    if log_density is not None and log_density.measure != model.measure:
        raise ValueError(
            f"the claim about log p(x) is with respect to {log_density.measure.value} measure, the model's density to "
            f"{model.measure.value}"
        )
    known, points_of_x = log_density, Points.of(x)
    if known is not None:
        known.require_points(points_of_x)
    log_p, log_p_error, elbo, elbo_error, difference, error = (
        torch.empty(x.shape[0], dtype=torch.float64, device=x.device) for _ in range(6)
    )
    weights = []

    def draw(rows: Tensor, count: int) -> Tensor:
        return model._log_weights(rows, count, generator)

    for points, log_weights in weight_blocks(draw, joined(x, context), draws):
        elbo[points] = log_weights.mean(0)
        elbo_error[points] = log_weights.std(0) / math.sqrt(draws)
        if known is not None:
            remainder = known.value[points].double() - log_weights
            difference[points], error[points] = remainder.mean(0), remainder.std(0) / math.sqrt(draws)
            continue
        value, log_p_error[points], part = diagnosed(log_weights, x.dtype, x.shape[-1])
        log_p[points] = value
        weights.append(part)
        influence = (log_weights - value).exp() - (log_weights - elbo[points])
        difference[points], error[points] = value - elbo[points], influence.std(0) / math.sqrt(draws)
    if known is None:
        claim = LogDensity(
            log_p,
            Kind.LOWER,
            f"importance-weighted bound, {draws} draws",
            log_p_error,
            measure=model.measure,
            weights=WeightDiagnostics.concatenate(weights),
            points=points_of_x,
        )
        log_density = solved(model, claim, joined(x, context), generator)
    elif known.monte_carlo_error is not None:
        error = torch.hypot(error, known.monte_carlo_error.double())
    assert log_density is not None
    method = f"ELBO, {draws} draws"
    bound = LogDensity(elbo, Kind.LOWER, method, elbo_error, measure=model.measure, points=points_of_x)
    total = Difference(
        difference,
        log_density.kind,
        f"{log_density.method} − {method}",
        error,
        confidence=log_density.confidence,
    )
    if local is None:
        return Gap(log_density, bound, total)
    if not isinstance(model, LayeredModel) or not isinstance(unrolled(model), LatentVariableModel):
        raise TypeError(f"local posteriors need a model with log_joint; {type(model).__name__} has none")
    best = local_elbo(model, x, local, context=context, draws=draws, generator=generator)
    return Gap(log_density, bound, total, _parts(log_density, bound, best))


def _parts(log_density: LogDensity, elbo: LogDensity, best: LocalElbo) -> Parts:
    converged = bool(best.converged.all())
    local = LogDensity(
        best.value,
        Kind.LOWER,
        "ELBO of local posteriors",
        best.error,
        measure=elbo.measure,
        points=elbo.points,
    )
    zero = torch.zeros_like(best.error)
    log_p_error = zero if log_density.monte_carlo_error is None else log_density.monte_carlo_error.double()
    elbo_error = zero if elbo.monte_carlo_error is None else elbo.monte_carlo_error
    # The best local ELBO is known where the optimisation converged and known from below elsewhere.
    known = Kind.EXACT if converged else Kind.LOWER
    approximation = Kind.ESTIMATE if {log_density.kind, known} == {Kind.LOWER} else log_density.kind.minus(known)
    return Parts(
        local,
        Difference(
            log_density.value.double() - best.value,
            approximation,
            f"{log_density.method} − {local.method}",
            torch.hypot(log_p_error, best.error),
            confidence=None if approximation is Kind.ESTIMATE else log_density.confidence,
        ),
        Difference(
            best.value - elbo.value,
            known.minus(Kind.EXACT),
            f"{local.method} − {elbo.method}",
            torch.hypot(best.error, elbo_error),
        ),
        best.converged,
    )
