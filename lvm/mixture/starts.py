"""Where the EM algorithm of a Gaussian mixture starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.data.digest import data_in_words
from lvm.mixture.covariance import CollapsedComponent, Covariance, Spherical
from lvm.mixture.expectation import expectation, nearest
from lvm.mixture.parameters import Gaussians, MixtureParameters
from lvm.mixture.regularisation import spread
from lvm.mixture.statistics import Statistics, accumulate

ROWS_AT_ONCE = 2**14
STILL = 1e-12  # of the spread of the data: less than this a centre has not moved


class Start(ABC):
    """A rule that proposes first parameters."""

    deterministic: bool = False

    @abstractmethod
    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        """First parameters, float64, for rows x ``[n, D]`` with weights ``[n]`` or None, n ≥ K.

        Args:
            ridge: what is added to the diagonal of covariances estimated here, ``[D]``.
        """

    def in_words(self) -> str:
        """What makes this start this one, by which a checkpoint knows it."""
        return repr(self)


class CentreStart(Start, ABC):
    """Centres, moved by some steps of Lloyd's algorithm; then every row belongs to the centre next to it.

    A component starts with the mean of its rows, and with their covariance shrunk towards the pooled within-centre
    covariance by D pseudo-rows, so that a centre with few rows starts regular. Weights are (N_k + 1)/(N + K).
    """

    iterations: int

    @abstractmethod
    def centres(self, x: Tensor, weights: Tensor | None, components: int, generator: Generator | None) -> Tensor:
        """K rows of x, float64 ``[K, D]``."""

    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        centres = self.centres(x, weights, components, generator)
        unit = _unit(x, weights)
        for _ in range(self.iterations):
            moved = _means(_nearest(Spherical(), x, weights, centres, unit), centres)
            if bool(((moved - centres).abs() <= STILL * unit).all()):
                break
            centres = moved
        statistics = _nearest(covariance, x, weights, centres, unit)
        return MixtureParameters(
            (statistics.count + 1) / (statistics.total + components),
            _means(statistics, centres),
            _shrunk(statistics, ridge),
        )


@dataclass(frozen=True)
class KMeansPlusPlus(CentreStart):
    """k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's algorithm. O(nKD) an iteration.

    Each further centre is a row drawn with probability proportional to its squared distance from the nearest centre;
    where all rows coincide with one (fewer distinct rows than components) the last row is taken again.

    Args:
        iterations: of Lloyd's algorithm, at most.
    """

    iterations: int = 20

    def centres(self, x: Tensor, weights: Tensor | None, components: int, generator: Generator | None) -> Tensor:
        w = x.new_ones(x.shape[0], dtype=torch.float64) if weights is None else weights.double()
        chosen = [x[_draw(w, generator)].double()]
        distance = torch.full_like(w, torch.inf)
        while len(chosen) < components:
            for rows, nearest_yet in zip(x.split(ROWS_AT_ONCE), distance.split(ROWS_AT_ONCE), strict=True):
                torch.minimum(nearest_yet, (rows.double() - chosen[-1]).square().sum(-1), out=nearest_yet)
            chosen.append(x[_draw(w * distance, generator)].double())
        return torch.stack(chosen)


@dataclass(frozen=True)
class RandomPoints(CentreStart):
    """K different rows, drawn at random, as centres.

    Args:
        iterations: of Lloyd's algorithm, at most; none unless asked for.
    """

    iterations: int = 0

    def centres(self, x: Tensor, weights: Tensor | None, components: int, generator: Generator | None) -> Tensor:
        return x[torch.randperm(x.shape[0], generator=generator, device=x.device)[:components]].double()


@dataclass(frozen=True)
class RandomResponsibilities(Start):
    """Responsibilities drawn at random, uniform on the simplex, and the parameters that they imply.

    All components start close to the mean of the data: slow, but without a preference for compact clusters.
    """

    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        def drawn(residual: Tensor) -> tuple[Tensor, Tensor]:
            # −log of uniforms in (0, 1] are exponential, and normalised exponentials are uniform on the simplex
            uniform = 1 - torch.rand(
                residual.shape[:2], generator=generator, dtype=residual.dtype, device=residual.device
            )
            exponential = -uniform.log() + torch.finfo(residual.dtype).tiny
            return exponential / exponential.sum(0), residual.new_zeros(residual.shape[1])

        origin = x[0].double().expand(components, -1)
        statistics = accumulate(covariance, [(x, weights)], origin, drawn)
        return MixtureParameters(statistics.count / statistics.total, statistics.mean, _shrunk(statistics, ridge))


@dataclass(frozen=True, eq=False)
class Given(Start):
    """Given means and, optionally, weights and covariances; the latter are used as they are, without regularisation.

    Args:
        means: ``[K, D]``.
        weights: ``[K]``, positive, sum 1; equal ones if None.
        covariances: ``[K, D, D]`` (full), ``[D, D]`` (tied), ``[K, D]`` variances (diagonal) or ``[K]`` variances
            (spherical); if None, those of the rows next to each mean.
    """

    means: Tensor
    weights: Tensor | None = None
    covariances: Tensor | None = None

    deterministic = True

    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        shares = self.means.new_full((components,), 1 / components) if self.weights is None else self.weights
        covariances = self.covariances
        if covariances is None:
            shape = (components, x.shape[1])
            _check_shape("means", self.means, shape)
            means = self.means.detach().to(x.device, torch.float64)
            covariances = _shrunk(_nearest(covariance, x, weights, means, _unit(x, weights)), ridge)
        return checked(MixtureParameters(shares, self.means, covariances), covariance, components, x.shape[1], x.device)

    def in_words(self) -> str:
        given = [t for t in (self.means, self.weights, self.covariances) if t is not None]
        return f"Given({data_in_words(given)})"


@dataclass(frozen=True)
class Present(Start):
    """The model's own parameters: go on where a fit ended, with more iterations, other settings or other data."""

    deterministic = True

    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        raise TypeError("Present() has no parameters of its own; fit(x, em=EM(start=Present())) takes the model's")


def checked(
    given: MixtureParameters, covariance: Covariance, components: int, features: int, device: torch.device
) -> MixtureParameters:
    """Parameters that somebody wrote down, in float64 on a device.

    Raises:
        ValueError: a shape does not fit, a value is not finite, the weights are no probabilities, or a covariance
            is not symmetric and positive definite.
    """
    for name, value, shape in (
        ("weights", given.weights, (components,)),
        ("means", given.means, (components, features)),
        ("covariances", given.covariances, covariance.shape(components, features)),
    ):
        _check_shape(name, value, shape)
        if not bool(value.isfinite().all()):
            raise ValueError(f"the given {name} must be finite")
    weights, means, covariances = (
        t.detach().to(device, torch.float64) for t in (given.weights, given.means, given.covariances)
    )
    if not bool((weights > 0).all()) or abs(weights.sum().item() - 1) > 1e-5:
        raise ValueError(f"the given weights must be positive with sum 1; got {weights.tolist()}")
    if covariance.dense and (covariances - covariances.mT).abs().max() > 1e-5 * covariances.abs().max():
        raise ValueError("the given covariances must be symmetric")
    try:
        covariance.pack(covariances)
    except CollapsedComponent as error:
        raise ValueError("the given covariances must be positive definite, with positive variances") from error
    return MixtureParameters(weights / weights.sum(), means, covariances)


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the given {name} must be a tensor of shape {list(shape)}; got {got}")


def _nearest(covariance: Covariance, x: Tensor, weights: Tensor | None, centres: Tensor, unit: Tensor) -> Statistics:
    """Statistics of the rows nearest to each centre: Gaussians of the same width, ``unit``, and hard posteriors."""
    alike = torch.full_like(centres[:, 0], 1 / centres.shape[0]).log()
    isotropic = centres.new_zeros(covariance.shape(*centres.shape))
    isotropic = covariance.pack(covariance.add_ridge(isotropic, unit.square().expand(centres.shape[1])))
    return expectation(Gaussians(covariance, alike, centres, isotropic), [(x, weights)], nearest, n=x.shape[0])


def _unit(x: Tensor, weights: Tensor | None) -> Tensor:
    """The standard deviation of all columns together, or 1 where there is none."""
    columns = spread([(x, weights)], x[:1])
    unit = (columns.scatter.mean() / columns.total).sqrt()
    return torch.where(unit > 0, unit, 1.0)


def _means(statistics: Statistics, otherwise: Tensor) -> Tensor:
    return torch.where((statistics.count > 0).unsqueeze(-1), statistics.mean, otherwise)


def _shrunk(statistics: Statistics, ridge: Tensor) -> Tensor:
    covariance = statistics.structure
    covariances = covariance.average(statistics.scatter, statistics.count, pseudo_rows=statistics.mean.shape[1])
    return covariance.add_ridge(covariances, ridge)


def _draw(weights: Tensor, generator: Generator | None) -> int:
    """An index drawn in proportion to weights ``[n]``, by inversion (torch.multinomial is limited to 2²⁴ rows)."""
    cumulative = weights.cumsum(0)
    u = torch.rand((), generator=generator, dtype=weights.dtype, device=weights.device) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, u, right=True)), weights.shape[0] - 1)
