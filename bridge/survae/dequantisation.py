r"""Rounding, x = ⌊z⌋: a mass function of integers from a density of reals.

.. math:: P(x) = \int_{[0,1)^D} p(x + u)\,du, \qquad \log P(x) \ge E_{q(u|x)}[\log p(x + u) - \log q(u|x)]

Generation is deterministic, inference draws u: a generative surjection, and loose. The measure changes from Lebesgue to
counting: a density of z makes a mass function of x, at most 0 in logarithms, to be compared with those of discrete
models. The gap is KL(q(u|x) ‖ p(u|x)). The importance-weighted bound averages the weights p(x + u)/q(u|x) of K draws
before the logarithm: ``log_density(x, draws=K)`` claims it, ``fit(x, draws=K, importance_weighted=True)`` trains on it.

Theis et al. 2016 (arXiv:1511.01844, section 3.1) for uniform noise, Ho et al. 2019 (Flow++, arXiv:1902.00275, section
3.1) for a flow, Hoogeboom et al. 2021 (arXiv:2001.11235) for importance weights.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn import functional

from bridge.survae.layer import GenerativeSurjection, at, check_part, drawn_with_log_prob, repeated, start
from density.checks import check_count
from density.contract import Density
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure
from density.support import Region


class Dequantisation(GenerativeSurjection):
    """The rounding with z = x + u, u ∈ (0, 1)ᴰ from a density that a subclass has; generation rounds down.

    Attributes:
        levels: data are 0 … levels − 1; None for any integers. Generation does not clip to them: the mass that the
            prior puts on other integers is mass that the data cannot have, and clipping would hide it.

    Raises:
        ValueError: data that are no integers, or not of the levels, where they enter. Inside, their log-ratio is −∞.
    """

    measure = Measure.COUNTING

    def __init__(self, features: int, levels: int | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        if levels is not None:
            levels = check_count(levels, "levels")
        self.features = self.latent_features = features
        self.levels = levels

    @property
    def support(self) -> Region:
        levels = self.levels
        words = "integers" if levels is None else f"the levels 0 ... {levels - 1}"
        remedy = "Leave continuous data as they are, or undo their scaling first"

        def outside(x: Tensor) -> Tensor:
            broken = x.floor() < x
            return broken if levels is None else broken | (x < 0) | (x >= levels)

        return Region(words, outside, remedy)

    def simulate(self, z: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        x = self.generate(z)
        return x, self.support.vanishing(x, -self._log_noise(z - x, x))

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        u, log_q = self._noise(x, draws, generator)
        eps = torch.finfo(x.dtype).eps
        # Rounding must not carry x + u to the next integer, nor a u to the edge where a logit is infinite.
        above = (x + 1).nextafter(x)
        z = torch.minimum(repeated(x, draws) + u.clamp(eps, 1 - eps), above)
        return z, self.support.vanishing(x, -log_q)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return z.floor()

    @abstractmethod
    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """u ``[draws, *batch, D]`` and log q(u|x) ``[draws, *batch]``."""

    @abstractmethod
    def _log_noise(self, u: Tensor, x: Tensor) -> Tensor:
        """log q(u|x) ``[*batch]`` of u ``[*batch, D]`` in [0, 1)ᴰ."""


class UniformDequantisation(Dequantisation):
    r"""The rounding with u uniform: log-ratio 0.

    .. math:: \log P(x) \ge E_{u \sim U[0,1)^D} \log p(x + u)

    The gap is KL(U ‖ p(u|x)): what it costs the density to be other than flat on a cell.

    Args:
        features: D.
        levels: see :class:`Dequantisation`.

    Cost: O(D) a draw.

    >>> z, log_ratio = UniformDequantisation(2).infer(torch.tensor([[3.0, 0.0]]))
    >>> z.floor().tolist(), log_ratio.item()
    ([[[3.0, 0.0]]], 0.0)
    """

    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        u = torch.rand(draws, *x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return u, u.new_zeros(u.shape[:-1])

    def _log_noise(self, u: Tensor, x: Tensor) -> Tensor:
        return u.new_zeros(u.shape[:-1])


class VariationalDequantisation(Dequantisation):
    r"""The rounding with u = σ(y), y ~ r(y|x) learned: q(u|x) = r(y|x) ∏ 1/(u_j (1 − u_j)).

    With r a flow conditioned on x, q can be any density of the cell, and the gap can close. In infinitely flexible
    families uniform noise is included; q starts near it if r is near a logistic.

    Args:
        noise: r, a density over D features on ℝᴰ, with context x ``[*batch, D]`` or none: a conditional flow, as
            ``flows.glow(D, context_features=D)``. The context is x, or 2(x + ½)/levels − 1 where levels are given.
        levels: see :class:`Dequantisation`.

    Raises:
        ValueError: the noise does not fit.

    Cost: O(D) and a pass of r a draw.

    >>> from flows import glow
    >>> link = VariationalDequantisation(glow(2, 2, (8,), context_features=2), levels=16)
    >>> z, _ = link.infer(torch.tensor([[3.0, 0.0]]), draws=5)
    >>> link.generate(z)[4].tolist()
    [[3.0, 0.0]]
    """

    def __init__(self, noise: Density, levels: int | None = None) -> None:
        if not isinstance(noise, Density):
            raise TypeError(f"VariationalDequantisation: the noise must be a Density; got {type(noise).__name__}")
        super().__init__(noise.features, levels)
        check_part(type(self).__name__, "the noise", noise, noise.features, noise.features, Measure.LEBESGUE)
        self.noise = noise

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        start(self.noise, UNKNOWN, x.mapped(self._context))
        return super()._initialise(x, context, generator)

    def _context(self, x: Tensor) -> Tensor:
        return x if self.levels is None else (2 * x + 1) / self.levels - 1

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
