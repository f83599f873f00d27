"""Starts of the EM algorithms of a Gaussian mixture, and the rows that they are made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from density.checks import check_floating
from density.data.digest import data_in_words
from density.data.rows import Rows
from lvm.mixture.covariance import Covariance, Spherical
from lvm.mixture.expectation import expectation, nearest
from lvm.mixture.parameters import MixtureParameters, check_shape, checked
from lvm.mixture.regularisation import spread
from lvm.mixture.statistics import Statistics, accumulate

ROWS_AT_ONCE = 2**14
MOST_ROWS = 2**16  # to start from, where data comes in chunks
MOST_ROWS_OF_A_COMPONENT = 2**6
ROWS_TO_SHARE = 2  # at random, for each component and each of D + 1
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
        at = _alike(Spherical(), centres, unit)
        for _ in range(self.iterations):
            moved = _means(_nearest(at, x, weights), at.means)
            if bool(((moved - at.means).abs() <= STILL * unit).all()):
                break
            at = replace(at, means=moved)
        statistics = _nearest(_alike(covariance, at.means, unit), x, weights)
        shares = (statistics.count + 1) / (statistics.total + components)
        return MixtureParameters.of(covariance, shares, _means(statistics, at.means), _shrunk(statistics, ridge))


@dataclass(frozen=True)
class KMeansPlusPlus(CentreStart):
    """k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's algorithm. O(nKD) an iteration.

    Each further centre is a row drawn with probability proportional to its squared distance from the nearest centre;
    where all rows coincide with one (fewer distinct rows than components) the last row is taken again.

    Args:
        iterations: of Lloyd's algorithm, at most.

    >>> x = torch.cat([torch.zeros(5, 1), torch.ones(5, 1)])
    >>> KMeansPlusPlus().centres(x, None, 2, torch.manual_seed(0)).sort(0).values.tolist()
    [[0.0], [1.0]]
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

    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> RandomPoints().centres(x, None, 3, torch.manual_seed(0)).sort(0).values.tolist()
    [[1.0], [2.0], [3.0]]
    """

    iterations: int = 0

    def centres(self, x: Tensor, weights: Tensor | None, components: int, generator: Generator | None) -> Tensor:
        return x[torch.randperm(x.shape[0], generator=generator, device=x.device)[:components]].double()


@dataclass(frozen=True)
class RandomResponsibilities(Start):
    """Responsibilities of a few random rows, drawn uniform on the simplex, and the parameters that they imply.

    Components start broad and overlapping, so without a preference for compact clusters. Rows are 2 (D + 1) for each
    component: drawn for all n, all components would start at the mean of the data but for O(n^(−1/2)), where EM rests
    though it is no maximum.

    >>> from lvm import EM, RandomResponsibilities
    >>> EM(start=RandomResponsibilities(), restarts=5).restarts
    5
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

        few = min(len(x), ROWS_TO_SHARE * components * (x.shape[1] + 1))
        chosen = torch.randperm(len(x), generator=generator, device=x.device)[:few]
        x, weights = x[chosen], None if weights is None else weights[chosen]
        origin = x[0].double().expand(components, -1)
        statistics = accumulate(covariance, [(x, weights)], origin, drawn)
        shares = statistics.count / statistics.total
        return MixtureParameters.of(covariance, shares, statistics.mean, _shrunk(statistics, ridge))


@dataclass(frozen=True, eq=False)
class Given(Start):
    """Given means and, optionally, weights and covariances; the latter are used as they are, without regularisation.

    Args:
        means: ``[K, D]``.
        weights: ``[K]``, positive, sum 1; equal ones if None.
        covariances: ``[K, D, D]`` (full), ``[D, D]`` (tied), ``[K, D]`` variances (diagonal) or ``[K]`` variances
            (spherical); if None, those of the rows next to each mean.

    Raises:
        TypeError: one of them is no floating-point tensor.

    >>> from lvm import EM, GaussianMixture, Given
    >>> x, mixture = torch.tensor([[-1.0], [-1.2], [0.9], [1.1]]), GaussianMixture(1, components=2)
    >>> history = mixture.fit(x, EM(start=Given(torch.tensor([[-1.0], [1.0]])), max_iterations=5, progress=False))
    >>> [round(mean, 2) for mean in mixture.decoder.means.squeeze(1).tolist()]
    [-1.1, 1.0]
    """

    means: Tensor
    weights: Tensor | None = None
    covariances: Tensor | None = None

    deterministic = True

    def __post_init__(self) -> None:
        for name in ("means", "weights", "covariances"):
            value = getattr(self, name)
            if value is not None:
                check_floating(value, name, "Given")

    def parameters(
        self,
        x: Tensor,
        weights: Tensor | None,
        components: int,
        covariance: Covariance,
        ridge: Tensor,
        generator: Generator | None,
    ) -> MixtureParameters:
        shape = (components, x.shape[1])
        shares = self.means.new_full((components,), 1 / components) if self.weights is None else self.weights
        covariances = self.covariances
        if covariances is None:
            check_shape("means", self.means, shape)
            means = self.means.detach().to(x.device, torch.float64)
            covariances = _shrunk(_nearest(_alike(covariance, means, _unit(x, weights)), x, weights), ridge)
        found = checked(covariance, shares, self.means, covariances, *shape)
        return found.having(*(tensor.to(x.device) for tensor in found.tensors()))

    def in_words(self) -> str:
        given = [t for t in (self.means, self.weights, self.covariances) if t is not None]
        return f"Given({data_in_words(given)})"


def sample(rows: Rows, n: int, components: int, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
    """Rows to start from, with their weights: a tensor as it is, and of longer data in chunks 2¹⁶ rows.

    They are drawn without replacement in one pass, each row alike whatever its weight: every row is given a uniform
    number, and the rows with the smallest numbers are kept. O(nD), and memory for the rows that are kept.
    """
    if rows.whole is not None:
        return rows.whole, rows.weights
    most = max(MOST_ROWS, MOST_ROWS_OF_A_COMPONENT * components)
    if n <= most:
        parts = list(rows.pairs())
        x = torch.cat([part for part, _ in parts])
        return x, None if parts[0][1] is None else torch.cat([w for _, w in parts if w is not None])
    kept = rows.like[:0]
    weights: Tensor | None = None
    keys = torch.empty(0, dtype=torch.float64, device=kept.device)
    for part, own in rows.pairs():
        drawn = torch.rand(part.shape[0], generator=generator, dtype=keys.dtype, device=keys.device)
        if keys.shape[0] == most:
            candidates = (drawn < keys.amax()).nonzero().squeeze(1)
        else:
            candidates = torch.arange(part.shape[0], device=keys.device)
        keys = torch.cat([keys, drawn[candidates]])
        keys, index = keys.topk(min(most, keys.shape[0]), largest=False, sorted=False)
        kept = torch.cat([kept, part[candidates]])[index]
        if own is not None:
            own = own[candidates]
            weights = (own if weights is None else torch.cat([weights, own]))[index]
    return kept, weights


def _alike(covariance: Covariance, centres: Tensor, unit: Tensor) -> MixtureParameters:
    """Gaussians of the same weight and width, ``unit``, about centres ``[K, D]``."""
    isotropic = covariance.add_ridge(
        centres.new_zeros(covariance.shape(*centres.shape)), unit.square().expand(centres.shape[1])
    )
    return MixtureParameters.of(covariance, torch.full_like(centres[:, 0], 1 / len(centres)), centres, isotropic)


def _nearest(at: MixtureParameters, x: Tensor, weights: Tensor | None) -> Statistics:
    """Statistics of the rows that are nearest to each of the Gaussians: posteriors that are 0 or 1."""
    return expectation(at, [(x, weights)], nearest, n=x.shape[0])


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
