"""From models to claims about log p(x): what is asked of each, and what else its line of a table says.

>>> isinstance(PPCA(3, 1), Comparable), isinstance("PPCA", Comparable)
(True, False)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from density.contract import Bound, Model
from density.log_density import Difference, LogDensity
from density.measure import ReferenceMeasure
from lvm.evidence.gap import gap
from lvm.evidence.strongest import evidence
from lvm.mixture.model import GaussianMixture
from lvm.ppca.model import PPCA

Comparable = Model | LogDensity
"""What can stand in a comparison: a model, which is asked, or a claim that it made."""
Method = Callable[..., LogDensity]


@dataclass(frozen=True, eq=False)
class Entry:
    """A model by its name: one claim for each of its fits, and what else is known.

    Attributes:
        name: for tables.
        claims: about log p(x), one a fit.
        gaps: log p(x) − ELBO of each fit that has one.
        parameters: trained numbers of a fit; None for a claim.
    """

    name: str
    claims: tuple[LogDensity, ...]
    gaps: tuple[Difference, ...] = ()
    parameters: int | None = None

    @property
    def measure(self) -> ReferenceMeasure:
        """Of log p(x)."""
        return self.claims[0].measure


def ask(
    models: Mapping[str, Comparable | Sequence[Comparable]],
    x: Tensor | None,
    context: Tensor | None,
    method: Method | Mapping[str, Method] | None,
    elbo_draws: int,
    generator: Generator | None,
) -> list[Entry]:
    """An entry for every name, in their order; see :func:`~bridge.comparison.comparing.compare`."""
    if not isinstance(models, Mapping):
        raise TypeError(f'compare needs models by name, {{"flow": flow, "vae": vae}}; got {type(models).__name__}')
    if not models:
        raise ValueError('compare needs models by name, {"flow": flow, "vae": vae}; got none')
    if isinstance(method, Mapping) and (unknown := set(method) - set(models)):
        raise ValueError(f"compare: method names {', '.join(sorted(unknown))}, which is not among the models")
    found = []
    for name, given in models.items():
        fits = list(given) if isinstance(given, Sequence) else [given]
        if not fits:
            raise ValueError(f"compare: '{name}' has no fit; give a model, a claim, or several of one of them")
        own = method.get(name) if isinstance(method, Mapping) else method
        asked = [_asked(name, fit, x, context, own, elbo_draws, generator) for fit in fits]
        claims = tuple(claim for claim, _ in asked)
        if (chancy := next((claim for claim in claims if claim.confidence is not None), None)) is not None:
            raise ValueError(
                f"compare: the claim of '{name}' is of kind {chancy.kind_in_words}, and what that leaves to chance is "
                "no standard error. Subtract such claims, a - b: their confidences add up"
            )
        if len({claim.measure for claim in claims}) > 1:
            raise ValueError(f"compare: the fits of '{name}' are with respect to different measures")
        gaps = tuple(difference for _, difference in asked if difference is not None)
        found.append(Entry(name, claims, gaps, parameter_count(fits[0])))
    return found


def _asked(
    name: str,
    fit: object,
    x: Tensor | None,
    context: Tensor | None,
    method: Method | None,
    elbo_draws: int,
    generator: Generator | None,
) -> tuple[LogDensity, Difference | None]:
    if isinstance(fit, LogDensity):
        if fit.value.dim() != 1:
            raise ValueError(f"compare: the claim of '{name}' has shape {list(fit.value.shape)}; expected one, [n]")
        return fit, None
    if not isinstance(fit, Model):
        raise TypeError(
            f"compare: '{name}' is of {type(fit).__name__}; expected a model, a LogDensity, or a sequence of one of "
            "them (its fits)"
        )
    if x is None:
        raise ValueError(f"compare: '{name}' is a model, which needs points x to be asked about")
    given = context if fit.context_features else None
    claim = evidence(fit, x, context=given, method=method, generator=generator)
    if elbo_draws and isinstance(fit, Bound):
        found = gap(fit, x, context=given, draws=elbo_draws, log_density=claim, generator=generator)
        return claim, found.difference
    return claim, None


def parameter_count(fit: object) -> int | None:
    """Trained numbers of a model; None for a claim."""
    if isinstance(fit, PPCA | GaussianMixture):
        return fit.parameter_count
    return sum(each.numel() for each in fit.parameters() if each.requires_grad) if isinstance(fit, Model) else None


def numerical_error(claims: Sequence[LogDensity]) -> float:
    """How far quadrature, and rounding to the claims' dtype, may move their mean: by their mean error."""
    sizes = []
    for claim in claims:
        of_method = 0.0 if claim.numerical_error is None else claim.numerical_error.double().mean().item()
        sizes.append(of_method + rounding(claim).mean().item())
    return math.fsum(sizes) / len(sizes)


def rounding(claim: LogDensity) -> Tensor:
    """What rounding may do to each value ``[n]``, double: four units in its last place."""
    eps = 2.0**-23 if claim.value.dtype.itemsize < 8 else 2.0**-52
    return 4 * eps * claim.value.double().abs()
