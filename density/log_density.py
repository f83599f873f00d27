"""A model's claim about log p(x): the number, its kind, its measure and its errors.

A flow's exact log-likelihood and a VAE's bound are both "about log p(x)", which is why they end up in one column of a
table. A :class:`LogDensity` carries what that column leaves out, and refuses the subtractions that mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from density.data.points import Points
from density.measure import Measure as Measure
from density.measure import ProductMeasure, ReferenceMeasure
from density.weight_diagnostics import WeightDiagnostics
from significance.kind import Kind as Kind


@dataclass(frozen=True, eq=False)
class Claim:
    r"""A number per point, what kind of number it is, and how uncertain.

    Args:
        value: shape ``[*batch]``, nats.
        kind: exact, lower bound, upper bound or estimate.
        method: how the number was computed, in words.
        monte_carlo_error: standard error of each value over the sampler's randomness, shape ``[*batch]``;
            None where nothing was sampled.
        numerical_error: estimated error of each value by quadrature, shape ``[*batch]``; None elsewhere.
        confidence: the chance, over the sampler's randomness, that all values of a bound hold at once; None where they
            hold without chance, or in expectation with a Monte Carlo error.

    The two errors of a mean over points are kept apart: :attr:`standard_error` is sd/√n over the data,
    :attr:`mean_monte_carlo_error` is √(Σ eᵢ²)/n over the sampler.

    >>> claim = Claim(torch.tensor([-1.0, -3.0]), Kind.EXACT, "by hand")
    >>> claim.mean, round(claim.standard_error, 4), claim.kind_in_words
    (-2.0, 1.0, 'exact')
    """

    value: Tensor
    kind: Kind
    method: str
    monte_carlo_error: Tensor | None = None
    numerical_error: Tensor | None = None
    confidence: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1; got {self.confidence!r}")
        for name in ("monte_carlo_error", "numerical_error"):
            error = getattr(self, name)
            if error is not None and error.shape != self.value.shape:
                raise ValueError(
                    f"{name} must have the shape of value, {list(self.value.shape)}; got {list(error.shape)}"
                )

    @property
    def mean(self) -> float:
        """Mean over all points; the mean of bounds is a bound of the same kind."""
        return self.value.double().mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of :attr:`mean` over the data set, sd/√n; nan for a single point."""
        n = self.value.numel()
        return self.value.double().std().item() / math.sqrt(n) if n > 1 else math.nan

    @property
    def mean_monte_carlo_error(self) -> float:
        """Standard error of :attr:`mean` over the sampler's randomness, the data held fixed; 0 where none was used."""
        if self.monte_carlo_error is None:
            return 0.0
        return self.monte_carlo_error.double().square().sum().sqrt().item() / self.value.numel()

    @property
    def kind_in_words(self) -> str:
        """The kind, and the confidence of a bound that has one: "upper bound at 95 %"."""
        return self.kind.value if self.confidence is None else f"{self.kind.value} at {100 * self.confidence:.6g} %"

    def _numbers(self) -> str:
        sampler = f" ± {self.mean_monte_carlo_error:.2g} (Monte Carlo)" if self.monte_carlo_error is not None else ""
        return f"{self.mean:.4f} ± {self.standard_error:.2g} (data){sampler}"


@dataclass(frozen=True, eq=False, repr=False)
class LogDensity(Claim):
    r"""A claim about log p(x), in nats with respect to :attr:`measure`.

    Args:
        value, kind, method, monte_carlo_error, numerical_error, confidence: see :class:`Claim`.
        measure: Lebesgue for continuous data, counting for discrete; for tables of both kinds of columns their product
            (:class:`~density.measure.ProductMeasure`).
        weights: diagnostics of the importance weights behind each value; None where there are none.
        points: which points it is about (:class:`~density.data.points.Points`); None in a claim made by hand.

    ``a - b`` is the paired, point-by-point :class:`Difference`. Its kind follows from interval arithmetic: exact or
    lower minus exact or upper is a lower bound on the difference; exact or upper minus exact or lower an upper bound;
    anything with an estimate an estimate. What two bounds leave to chance adds up: of two at 95 % the difference is one
    at 90 %.

    Raises:
        ValueError: on subtraction across measures, across different points, or of two bounds on the same side. A claim
            that does not know its points is compared by their number. Points that it knows are as many as its values.

    >>> import torch
    >>> flow = LogDensity(torch.tensor([-1.0, -2.0, -4.0]), Kind.EXACT, "change of variables")
    >>> vae = LogDensity(torch.tensor([-1.5, -2.2, -4.4]), Kind.LOWER, "ELBO")
    >>> flow
    log p(x) = -2.3333 ± 0.88 (data) nats, exact (change of variables), Lebesgue measure, 3 points
    >>> flow - vae
    difference = 0.3667 ± 0.088 (data) nats, upper bound, 3 points
    >>> vae - vae
    Traceback (most recent call last):
        ...
    ValueError: the difference of two lower bounds is neither a bound nor an estimate of anything; compare exact
    values, or bounds on opposite sides. How far a lower bound may be off, a sandwich of lvm.evidence shows on points
    simulated from its model
    """

    measure: ReferenceMeasure = Measure.LEBESGUE
    weights: WeightDiagnostics | None = None
    points: Points | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points is not None and self.points.rows != self.value.numel():
            raise ValueError(
                f"{self.value.numel()} values cannot be a claim about {self.points}; give the points of these values, "
                "or points=None"
            )

    @staticmethod
    def concatenate(claims: Sequence[LogDensity]) -> LogDensity:
        """One claim about the points of several, in this order; values ``[n_1 + … + n_k]`` of claims ``[n_i]``.

        Exact values beside bounds are bounds, bounds on opposite sides together are estimates. A point of a claim
        without Monte Carlo or numerical error has the error 0 beside others that have one.

        Raises:
            ValueError: no claims, different measures, or importance weights in some and not in others.
        """
        first = _require_alike(claims)[0]
        weights = [claim.weights for claim in claims if claim.weights is not None]
        points = [claim.points for claim in claims if claim.points is not None]
        return LogDensity(
            torch.cat([claim.value for claim in claims]),
            _joint_kind({claim.kind for claim in claims}),
            " / ".join(dict.fromkeys(claim.method for claim in claims)),
            _joint_error(claims, [claim.monte_carlo_error for claim in claims]),
            _joint_error(claims, [claim.numerical_error for claim in claims]),
            confidence=_joint_confidence(_joint_kind({claim.kind for claim in claims}), claims),
            measure=first.measure,
            weights=WeightDiagnostics.concatenate(weights) if weights else None,
            points=Points.concatenate(points) if len(points) == len(claims) else None,
        )

    @property
    def unreliable(self) -> int:
        """The number of points whose stated error is not to be trusted, by their weights; means count them."""
        return 0 if self.weights is None else int((~self.weights.reliable).sum())

    def require_points(self, points: Points | None) -> None:
        """Raise ValueError if this claim is known to be about others than these points."""
        if None not in (self.points, points) and self.points != points:
            other = "other rows, or the same in another order" if str(points) == str(self.points) else points
            raise ValueError(
                f"log-densities are compared at the same points; got a claim about {self.points} and one about "
                f"{other}. Ask both models about the same rows in the same order and in the same units "
                "(docs/howto/read_a_claim.md)"
            )

    def __sub__(self, other: LogDensity) -> Difference:
        if not isinstance(other, LogDensity):
            return NotImplemented
        if self.measure != other.measure:
            raise ValueError(
                f"log-densities with respect to {self.measure.value} and {other.measure.value} measure are in "
                "different units; compare models of the same kind of data (a dequantised density is a lower bound on "
                "the mass: bridge.layered(density, UniformDequantisation(D)) claims it as one)"
            )
        if self.value.shape != other.value.shape:
            raise ValueError(
                f"log-densities are compared point by point; got {list(self.value.shape)} and "
                f"{list(other.value.shape)} points"
            )
        self.require_points(other.points)
        kind = self.kind.minus(other.kind)
        return Difference(
            value=self.value - other.value,
            kind=kind,
            method=f"{self.method} − {other.method}",
            monte_carlo_error=_combined(self.monte_carlo_error, other.monte_carlo_error, torch.hypot),
            numerical_error=_combined(self.numerical_error, other.numerical_error, torch.add),
            confidence=_joint_confidence(kind, (self, other)),
        )

    def bits_per_dimension(self, features: int, *, levels: int = 1) -> BitsPerDimension:
        r"""−log₂ p / D, the unit of image models.

        Args:
            features: the dimension D of one point.
            levels: 1 if x is in pixel units (or discrete); L if pixels 0 … L−1 were divided by L, which adds log₂ L.

        A lower bound on log p is an upper bound on the bits.

        Raises:
            ValueError: some columns are counted and others not, so that there is no unit that they have in common; or
                levels of a mass, whose values have no units.

        >>> import torch
        >>> LogDensity(torch.zeros(4), Kind.LOWER, "ELBO").bits_per_dimension(64, levels=256)
        8.0000 ± 0 (data) bits per dimension, upper bound, 4 points
        """
        if features < 1 or levels < 1:
            raise ValueError(f"features and levels must be at least 1; got {features} and {levels}")
        if isinstance(self.measure, ProductMeasure):
            raise ValueError(
                f"bits per dimension are of densities or of masses, and this is one {self.measure.words}: a change of "
                "units would change some of its columns' bits and not the others'. Compare log p(x) in nats"
            )
        if levels != 1 and self.measure is Measure.COUNTING:
            raise ValueError(f"a mass has no units to change: levels must be 1 for discrete data; got {levels}")
        scale = 1 / (features * math.log(2))
        sampler, numerical = self.monte_carlo_error, self.numerical_error
        return BitsPerDimension(
            value=math.log2(levels) - self.value * scale,
            kind=self.kind.flipped(),
            method=self.method,
            monte_carlo_error=None if sampler is None else sampler * scale,
            numerical_error=None if numerical is None else numerical * scale,
            confidence=self.confidence,
        )

    def __repr__(self) -> str:
        doubt = f", {self.unreliable} of them unreliable" if self.unreliable else ""
        return (
            f"log p(x) = {self._numbers()} nats, {self.kind_in_words} ({self.method}), "
            f"{self.measure.words}, {self.value.numel()} points{doubt}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Difference(Claim):
    """A paired difference of two claims about log p(x) at the same points, in nats; units no longer name a measure.

    >>> a, b = (LogDensity(torch.tensor(value), Kind.EXACT, "by hand") for value in ([-1.0, -2.0], [-1.5, -2.4]))
    >>> type(a - b).__name__, round((a - b).mean, 4), round((a - b).standard_error, 4)  # of the paired difference
    ('Difference', 0.45, 0.05)
    """

    def __repr__(self) -> str:
        return f"difference = {self._numbers()} nats, {self.kind_in_words}, {self.value.numel()} points"


@dataclass(frozen=True, eq=False, repr=False)
class BitsPerDimension(Claim):
    """−log₂ p(x) / D; see :meth:`LogDensity.bits_per_dimension`.

    >>> bits = LogDensity(torch.tensor([-8 * math.log(2)]), Kind.LOWER, "ELBO").bits_per_dimension(4)
    >>> type(bits).__name__, round(bits.mean, 4), bits.kind.value
    ('BitsPerDimension', 2.0, 'upper bound')
    """

    def __repr__(self) -> str:
        return f"{self._numbers()} bits per dimension, {self.kind_in_words}, {self.value.numel()} points"


def _require_alike(claims: Sequence[LogDensity]) -> Sequence[LogDensity]:
    if not claims:
        raise ValueError("concatenate needs at least one claim; got none")
    measures = {claim.measure.value for claim in claims}
    if len(measures) > 1:
        raise ValueError(f"claims with respect to {' and '.join(sorted(measures))} measure are in different units")
    if len({claim.weights is None for claim in claims}) > 1:
        raise ValueError("some of the claims have importance weights and others have none; keep them apart")
    return claims


def _joint_kind(kinds: set[Kind]) -> Kind:
    if len(kinds) > 1:
        kinds = kinds - {Kind.EXACT}
    return kinds.pop() if len(kinds) == 1 else Kind.ESTIMATE


def _joint_confidence(kind: Kind, claims: Sequence[LogDensity]) -> float | None:
    """The chance that the bounds of all claims hold at once, whatever depends on what; an estimate has none."""
    chances = [1 - claim.confidence for claim in claims if claim.confidence is not None]
    if not chances or kind is Kind.ESTIMATE:
        return None
    if math.fsum(chances) >= 1:
        raise ValueError(
            f"of {len(chances)} bounds with a confidence each nothing is known of all at once; ask for one claim about "
            "all points, or for more confidence"
        )
    return 1 - math.fsum(chances)


def _joint_error(claims: Sequence[LogDensity], errors: list[Tensor | None]) -> Tensor | None:
    if all(error is None for error in errors):
        return None
    pairs = zip(claims, errors, strict=True)
    return torch.cat([torch.zeros_like(claim.value) if error is None else error for claim, error in pairs])


def _combined(a: Tensor | None, b: Tensor | None, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return rule(a, b)
