r"""Rounding, x = ⌊z⌋: a mass function of integers from a density of reals.

.. math:: P(x) = \int_{[0,1)^D} p(x + u)\,du, \qquad \log P(x) \ge E_{q(u|x)}[\log p(x + u) - \log q(u|x)]

Generation is deterministic, inference draws u: a generative surjection, and loose. The measure changes from Lebesgue to
counting: a density of z makes a mass function of x, at most 0 in logarithms, to be compared with those of discrete
models. Where some columns are integers and others real, those alone are rounded, and the measure is the product.

The gap is KL(q(u|x) ‖ p(u|x)). The importance-weighted bound averages the weights p(x + u)/q(u|x) of K draws before the
logarithm: ``log_density(x, draws=K)`` claims it, ``fit(x, draws=K, importance_weighted=True)`` trains on it.

Theis et al. 2016 (arXiv:1511.01844, section 3.1) for uniform noise, Ho et al. 2019 (Flow++, arXiv:1902.00275, section
3.1) for a flow, Hoogeboom et al. 2021 (arXiv:2001.11235) for importance weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from bridge.survae.layer import GenerativeSurjection, as_columns, at, check_part, drawn_with_log_prob, repeated, start
from density.checks import check_count
from density.contract import Density
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure, product
from density.support import Region


class Dequantisation(GenerativeSurjection):
    """The rounding with z = x + u, u ∈ (0, 1)ᴰ from a density that a subclass has; generation rounds down.

    Attributes:
        levels: data are 0 … levels − 1; a number for each column that is rounded, where these differ; None for any
            integers. Generation does not clip to them: the mass that the prior puts on other integers is mass that the
            data cannot have, and clipping would hide it.
        columns: which columns are rounded ``[k]``; None for all. The others pass as they are.

    Raises:
        ValueError: data that are no integers, or not of the levels, where they enter. Inside, their log-ratio is −∞.
    """

    columns: Tensor | None

    def __init__(
        self, features: int, levels: int | Sequence[int] | None = None, columns: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        features = check_count(features, "features")
        chosen = list(range(features)) if columns is None else as_columns(tuple(columns), features, owner)
        if isinstance(levels, Sequence):
            levels = tuple(check_count(count, f"{owner}: a number of levels") for count in levels)
            if len(levels) != len(chosen):
                raise ValueError(f"{owner} rounds {len(chosen)} columns; got the levels of {len(levels)}")
        elif levels is not None:
            levels = check_count(levels, "levels")
        self.features = self.latent_features = features
        self.levels = levels
        self.measure = product([Measure.COUNTING if c in chosen else Measure.LEBESGUE for c in range(features)])
        self.register_buffer("columns", None if columns is None else torch.tensor(chosen), persistent=False)

    @property
    def support(self) -> Region:
        levels = self.levels
        words = f"the levels 0 ... {levels - 1}" if isinstance(levels, int) else "integers"
        if isinstance(levels, tuple):
            words += f" from 0, fewer than {', '.join(map(str, levels))},"
        if self.columns is not None:
            words += f" in columns {', '.join(map(str, self.columns.tolist()))}"
        remedy = "Leave continuous data as they are, or undo their scaling first"

        def outside(x: Tensor) -> Tensor:
            counted = self._counted(x)
            broken = counted.floor() < counted
            if levels is not None:
                broken = broken | (counted < 0) | (counted >= self._levels(counted))
            return self._beside(torch.zeros_like(x, dtype=torch.bool), broken)

        return Region(words, outside, remedy)

    def _counted(self, x: Tensor) -> Tensor:
        """The columns of x that are rounded."""
        return x if self.columns is None else x[..., self.columns]

    def _beside(self, x: Tensor, counted: Tensor) -> Tensor:
        """x with other values in the columns that are rounded."""
        return counted if self.columns is None else x.index_copy(-1, self.columns, counted)

    def _levels(self, like: Tensor) -> Tensor | int:
        assert self.levels is not None
        return self.levels if isinstance(self.levels, int) else like.new_tensor(self.levels)

    def simulate(self, z: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        x = self.generate(z)
        return x, self.support.vanishing(x, -self._log_noise(self._counted(z - x), x))

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        u, log_q = self._noise(x, draws, generator)
        eps = torch.finfo(x.dtype).eps
        # Rounding must not carry x + u to the next integer, nor a u to the edge where a logit is infinite.
        counted = self._counted(x)
        above = (counted + 1).nextafter(counted)
        z = torch.minimum(counted + u.clamp(eps, 1 - eps), above)
        return self._beside(repeated(x, draws), z), self.support.vanishing(x, -log_q)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return self._beside(z, self._counted(z).floor())

    @abstractmethod
    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """u ``[draws, *batch, k]`` of the k columns that are rounded, and log q(u|x) ``[draws, *batch]``."""

    @abstractmethod
    def _log_noise(self, u: Tensor, x: Tensor) -> Tensor:
        """log q(u|x) ``[*batch]`` of u ``[*batch, k]`` in [0, 1)ᵏ."""


class UniformDequantisation(Dequantisation):
    r"""The rounding with u uniform: log-ratio 0.

    .. math:: \log P(x) \ge E_{u \sim U[0,1)^D} \log p(x + u)

    The gap is KL(U ‖ p(u|x)): what it costs the density to be other than flat on a cell.

    Args:
        features: D.
        levels, columns: see :class:`Dequantisation`.

    Cost: O(D) a draw.

    >>> z, log_ratio = UniformDequantisation(2).infer(torch.tensor([[3.0, 0.0]]))
    >>> z.floor().tolist(), log_ratio.item()
    ([[[3.0, 0.0]]], 0.0)
    >>> UniformDequantisation(3, columns=[1]).measure.value
    'Lebesgue (columns 0, 2) × counting (column 1)'
    """

    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        shape = self._counted(x).shape
        u = torch.rand(draws, *shape, generator=generator, dtype=x.dtype, device=x.device)
        return u, u.new_zeros(u.shape[:-1])

    def _log_noise(self, u: Tensor, x: Tensor) -> Tensor:
        return u.new_zeros(u.shape[:-1])


class VariationalDequantisation(Dequantisation):
    r"""The rounding with u = σ(y), y ~ r(y|x) learned: q(u|x) = r(y|x) ∏ 1/(u_j (1 − u_j)).

    With r a flow conditioned on x, q can be any density of the cell, and the gap can close. In infinitely flexible
    families uniform noise is included; q starts near it if r is near a logistic.

    Args:
        noise: r, a density over the k columns that are rounded, on ℝᵏ, with context x ``[*batch, D]`` or none: a
            conditional flow, as ``flows.glow(k, context_features=D)``. The context is x, in which these columns are
            2(x + ½)/levels − 1 where levels are given.
        levels, columns: see :class:`Dequantisation`.
        features: D; k if None.

    Raises:
        ValueError: the noise does not fit.

    Cost: O(D) and a pass of r a draw.

    >>> from flows import glow
    >>> link = VariationalDequantisation(glow(2, 2, (8,), context_features=2), levels=16)
    >>> z, _ = link.infer(torch.tensor([[3.0, 0.0]]), draws=5)
    >>> link.generate(z)[4].tolist()
    [[3.0, 0.0]]
    """

    def __init__(
        self,
        noise: Density,
        levels: int | Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        features: int | None = None,
    ) -> None:
        owner = type(self).__name__
        if not isinstance(noise, Density):
            raise TypeError(f"{owner}: the noise must be a Density; got {type(noise).__name__}")
        super().__init__(noise.features if features is None else features, levels, columns)
        count = self.features if self.columns is None else len(self.columns)
        check_part(owner, "the noise", noise, count, self.features, Measure.LEBESGUE)
        self.noise = noise

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        start(self.noise, UNKNOWN, x.mapped(self._context))
        return super()._initialise(x, context, generator)

    def _context(self, x: Tensor) -> Tensor:
        if self.levels is None:
            return x
        counted = self._counted(x)
        return self._beside(x, (2 * counted + 1) / self._levels(counted) - 1)

    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        y, log_r = drawn_with_log_prob(self.noise, self._context(x), draws, generator)
        return y.sigmoid(), log_r - _log_slope(y)

    def _log_noise(self, u: Tensor, x: Tensor) -> Tensor:
        eps = torch.finfo(u.dtype).eps  # rounding may have put z on an integer
        y = u.clamp(eps, 1 - eps).logit()
        return at(self.noise, y, self._context(x)) - _log_slope(y)


def _log_slope(y: Tensor) -> Tensor:
    """log |det ∂σ(y)/∂y| ``[*batch]``."""
    return (functional.logsigmoid(y) + functional.logsigmoid(-y)).sum(-1)
