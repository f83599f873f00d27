r"""Densities and bijections on the ranges of surjections: a half-normal for positive parts, maps from a range to ℝᴰ.

After an absolute value z is positive, after a sort it is increasing. A prior over all of ℝᴰ would lose the mass that it
puts elsewhere, so the next link is a :class:`Log` or :class:`Spacings`, or the prior itself has that range.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from density.checks import check_count
from density.contract import Density
from density.families.bounded import bounded, check_bound
from density.families.network import network_output
from density.initialisation import STRETCHED, Standardisation, StartingPoints, check_units
from density.support import Region, Support
from flows.transform import Transform


def _without_gap(x: Tensor) -> Tensor:
    gaps = x.diff(dim=-1)
    return (gaps <= 0) | gaps.isposinf() | x[..., 1:].isinf()  # the last where both are infinite


NOT_NEGATIVE = Region("values x ≥ 0", lambda x: x < 0, "Shift the data, or put Abs before it")
POSITIVE = Region("positive values", lambda x: (x <= 0) | x.isposinf(), "Shift the data, or put Abs before it")
INCREASING = Region(
    "strictly increasing vectors",
    _without_gap,
    "Sort first; where values tie, dequantise them",
    ("difference of neighbours", lambda x: x.diff(dim=-1)),
)


class HalfNormal(Density):
    r"""The half-normal density, |N(0, σ²)| in each feature: x ≥ 0.

    .. math:: \log p(x|c) = \sum_j \log 2 - \tfrac12 \log 2\pi - \log\sigma_j(c) - \frac{x_j^2}{2\sigma_j(c)^2}

    log σ is a parameter, plus b·tanh(network(c)/b) where there is a context. Outside the support the density is 0.
    Draws are pathwise. O(D) a point. :meth:`initialise` gives the parameter, where it is 0 as in a new density, the
    value of largest likelihood for the network as it is.

    Args:
        features: D.
        context_features: C; 0 for none.
        network: any module that maps rows ``[n, C]`` to ``[n, D]``, or to n events of D numbers; it sees contexts of
            any batch shape as rows. If None, a linear layer of contexts that :meth:`initialise` standardises.
        log_scale_bound: b; None for none, log σ = parameter + network(c).

    >>> HalfNormal(1).log_prob(torch.tensor([[0.0], [-1.0]])).exp()
    tensor([0.7979, 0.0000], grad_fn=<ExpBackward0>)
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        network: nn.Module | None = None,
        log_scale_bound: float | None = 7.0,
    ) -> None:
        super().__init__()
        features = check_count(features, "features")
        context_features = check_count(context_features, "context_features", least=0)
        if network is not None and not context_features:
            raise ValueError("HalfNormal has a network but no context_features to feed it; say how many")
        check_bound(log_scale_bound, type(self).__name__)
        self.log_scale_bound = log_scale_bound
        self.features = features
        self.context_features = context_features
        self.log_scale = nn.Parameter(torch.zeros(features))
        own = network is None and context_features > 0
        self.standardise = Standardisation(context_features) if own else None
        self.network = nn.Linear(context_features, features) if own else network
        self.register_load_state_dict_pre_hook(_as_before)

    @property
    def support(self) -> Support:
        return NOT_NEGATIVE

    def log_scale_at(self, context: Tensor | None) -> Tensor:
        """log σ, ``[D]`` or ``[*context_batch, D]``."""
        if self.network is None:
            return self.log_scale
        seen = context if self.standardise is None or context is None else self.standardise(context)
        raw = network_output(self.network, seen, self.features, type(self).__name__, "raw log σ")
        return self.log_scale + bounded(raw, self.log_scale_bound)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        super()._initialise(x, context)
        new, own = not bool(self.log_scale.any()), self.log_scale.exp()
        if not x.known or x.latent or not (new or x.fixed):
            return
        scale = self.log_scale_at(context.points if self.network is not None else None).exp()
        relative = x.points / scale * own  # all of one scale, whatever the context
        if not new:
            # A trained network's scale at other contexts may be another one, within bounds.
            stretched = STRETCHED if self.network is None else 10 * STRETCHED
            check_units(relative, torch.zeros_like(own), own, x.what, stretched)
        elif self.log_scale.requires_grad:
            unit = relative.amax(0)  # of which squares neither over- nor underflow
            unit = unit.where(unit > 0, 1.0)
            self.log_scale.copy_(((relative / unit).square().mean(0).sqrt() * unit).log())
            self.log_scale.nan_to_num_(neginf=0.0)  # a column of zeros

    def log_prob_each(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of every feature by itself, ``[*batch, D]``."""
        return self._each(x, self.log_scale_at(context))

    def _each(self, x: Tensor, log_scale: Tensor) -> Tensor:
        value = -0.5 * (x * (-log_scale).exp()).square() - log_scale + 0.5 * math.log(2 / math.pi)
        return value.masked_fill(NOT_NEGATIVE.outside(x), -math.inf)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.log_prob_each(x, context).sum(-1)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self._sample_with_log_prob(n, context, generator)[0]

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale_at(context)
        noise = torch.randn(
            n, *log_scale.shape, generator=generator, dtype=log_scale.dtype, device=log_scale.device
        ).abs()
        x = noise * log_scale.exp()
        log_prob = (-0.5 * noise.square() - log_scale + 0.5 * math.log(2 / math.pi)).sum(-1)
        return x, log_prob

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.log_scale_at(context).exp() * math.sqrt(2 / math.pi)


def _as_before(density: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Files of versions that took contexts as they are still do."""
    assert isinstance(density, HalfNormal)
    if density.standardise is not None and f"{prefix}standardise.matched" not in state:
        as_it_is = Standardisation(density.context_features).to(density.log_scale)
        as_it_is.matched.fill_(True)
        state.update({f"{prefix}standardise.{name}": value for name, value in as_it_is.state_dict().items()})


class Log(Transform):
    r"""The logarithm z = log x, from positive numbers to the reals; log|det ∂z/∂x| = −Σ log x. Any width, O(D) a point.

    At a value that is not positive the log-determinant is −∞. An inverse that would round to 0 or to infinity gives the
    nearest normal number inside.

    >>> z, log_det = Log()(torch.tensor([1.0, 0.5]))
    >>> round(log_det.exp().item(), 4)
    2.0
    """

    @property
    def domain(self) -> Support:
        return POSITIVE

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = torch.where(POSITIVE.outside(x), 1.0, x).log()
        return z, POSITIVE.vanishing(x, -z.sum(-1))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _positive(z.exp()), z.sum(-1)


class InverseSoftplus(Transform):
    r"""The inverse z = log(eˣ − 1) of softplus, from positive numbers to the reals; log|det ∂z/∂x| = −Σ log(1 − e⁻ˣ).

    The identity for large x, where :class:`Log` would squeeze the data. Any width, O(D) a point. At the edges as
    :class:`Log`.

    >>> InverseSoftplus().inverse(torch.tensor([0.0]))[0].item()  # log 2
    0.6931
    """

    @property
    def domain(self) -> Support:
        return POSITIVE

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inside = torch.where(POSITIVE.outside(x), 1.0, x)
        log_rest = (-torch.expm1(-inside)).log()
        return inside + log_rest, POSITIVE.vanishing(x, -log_rest.sum(-1))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _positive(functional.softplus(z, threshold=40)), functional.logsigmoid(z).sum(-1)


class Spacings(Transform):
    r"""The spacings z₁ = x₁, z_j = log(x_j − x_{j−1}), from increasing vectors to ℝᴰ; log|det ∂z/∂x| = −Σ_{j≥2} z_j.

    Triangular, O(D) a point. At a vector that does not increase strictly the log-determinant is −∞; an inverse whose
    spacings are lost in rounding is such a vector.

    Args:
        features: D.

    >>> z, log_det = Spacings(2)(torch.tensor([1.0, 1.5]))
    >>> z[0].item(), round(log_det.exp().item(), 4)
    (1.0, 2.0)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, f"{type(self).__name__}: features")
        self.features = features

    @property
    def domain(self) -> Support:
        return INCREASING

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        logs = torch.where(INCREASING.outside(x), 1.0, x.diff(dim=-1)).log()
        return torch.cat([x[..., :1], logs], -1), INCREASING.vanishing(x, -logs.sum(-1))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        gaps = z[..., 1:]
        return torch.cat([z[..., :1], gaps.exp()], -1).cumsum(-1), gaps.sum(-1)


def _positive(x: Tensor) -> Tensor:
    """The nearest normal number that is positive and finite."""
    numbers = torch.finfo(x.dtype)
    return x.clamp(numbers.tiny, numbers.max)
