"""Latents of a prior with weights, at which a decoder is a finite mixture near the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.contract import Density
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily

ON_A_LATTICE = 2  # latents; more take quasi-random points
REACH = 6.0  # standard deviations of a normal prior; 2e-9 of its mass lies farther out along an axis


@dataclass(frozen=True, eq=False)
class PriorNodes:
    r"""K latents with weights, of an integral over a prior: E f(z) ≈ Σ_k π_k f(z_k).

    Attributes:
        z: ``[K, d]``, in the prior's dtype; differentiable in its parameters where they are placed by these.
        log_weights: log π_k, ``[K]``, float64; Σ π_k = 1.
    """

    z: Tensor
    log_weights: Tensor

    @staticmethod
    def of(prior: Density, n: int, generator: Generator | None = None, *, lattice: bool = True) -> PriorNodes:
        r"""K ≤ n nodes of an unconditional prior.

        - Of a normal prior over one or two latents, a lattice with the prior's density as weights (the trapezoidal
          rule); the same at every call, and of two latents the largest square in n.
        - Of one over more, or without ``lattice``, scrambled Sobol points through its quantiles, with equal weights.
          Each is a draw of the prior, so that Σ π_k f(z_k) is unbiased.
        - Of a one-hot latent, all its values, with their probabilities: the sum is the expectation.
        - Of any other prior, draws of it.

        Args:
            generator: of scrambling and draws, on the prior's device.

        >>> from density.families.gaussian import StandardNormal
        >>> nodes = PriorNodes.of(StandardNormal(1), 64)
        >>> abs((nodes.log_weights.exp() @ nodes.z.double().square()).item() - 1) < 1e-6  # the variance
        True
        """
        equal = torch.full((n,), -math.log(n), dtype=torch.float64, device=prior.reference.device)
        if isinstance(prior, CategoricalFamily):
            z = prior.enumerate()
            return PriorNodes(z, prior.log_prob(z).double())
        if not isinstance(prior, GaussianFamily):
            return PriorNodes(prior.sample(n, generator=generator), equal)
        if lattice and prior.features <= ON_A_LATTICE:
            noise = _lattice(n, prior)
            log_weights = (-0.5 * noise.square().sum(-1)).log_softmax(0)
        else:
            noise, log_weights = _normal_sobol(n, prior, generator), equal
        mean, scale = prior.at(None)
        return PriorNodes(mean + scale.color(noise.to(mean)), log_weights)


def _lattice(n: int, prior: Density) -> Tensor:
    """A square of nodes, of a normal density as broad as balances what it leaves out and what lies between them."""
    each = math.floor(n ** (1 / prior.features) + 1e-9)
    reach = min(math.sqrt(math.pi * each), REACH) if each > 1 else 0.0  # a single node is the mean
    axis = torch.linspace(-reach, reach, each, dtype=torch.float64, device=prior.reference.device)
    return torch.cartesian_prod(*[axis] * prior.features).reshape(-1, prior.features)


def _normal_sobol(n: int, prior: Density, generator: Generator | None) -> Tensor:
    """Scrambled Sobol points ``[n, d]`` at the quantiles of a standard normal density."""
    device = prior.reference.device
    seed = int(torch.randint(2**31, (), generator=generator, device=device if generator is None else generator.device))
    points = torch.quasirandom.SobolEngine(prior.features, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(2**-31, 1 - 2**-31)).to(device)
