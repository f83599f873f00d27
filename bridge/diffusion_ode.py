r"""The differential equation of a diffusion's network: another model, and one that knows its density.

Song et al. 2021, arXiv:2011.13456, section 4.3: noise that spreads and an ordinary differential equation have the same
densities at all times, if the score is that of these densities,

.. math:: \frac{dz}{dt} = \tfrac12 \gamma'(t)\, \sigma \big(\hat\varepsilon(z, \gamma) - \sigma z\big), \qquad
          \hat\varepsilon = -\sigma \nabla_z \log p_t(z).

A network's score is that of no density, and then chain and equation are two models, whose log p(x) differ at every
point, and in the mean. The chain's is bounded by its ELBO, and the bound says nothing about the equation's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.contract import Density
from density.families.gaussian import StandardNormal
from density.rebuildable import Rebuildable
from flows.chain import Chain
from flows.continuous.trace import Trace
from flows.continuous.transform import EXACT_TRACE, ContinuousTransform
from flows.flow import Flow
from flows.layers.by_feature.elementwise import Affine
from lvm.diffusion.denoiser import Denoiser, alpha, sigma
from lvm.diffusion.model import GaussianDiffusion
from lvm.diffusion.schedule import Schedule


class ProbabilityFlowVelocity(Rebuildable, nn.Module):
    """The velocity of the probability flow of a denoiser under a schedule, whose parameters it shares.

    Args:
        denoiser: ε̂.
        schedule: γ.

    >>> import torch
    >>> from lvm import LinearSchedule
    >>> class OfANormal(nn.Module):  # ε̂ = σ z where the data are standard normal
    ...     def forward(self, z, gamma):
    ...         return gamma.sigmoid().sqrt() * z
    >>> velocity = ProbabilityFlowVelocity(Denoiser(OfANormal()), LinearSchedule())
    >>> velocity(torch.ones(1, 2), torch.tensor(0.5)).abs().max().item() < 1e-6  # nothing moves
    True
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = schedule

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocities ``[n, D]`` of latents ``[n, D]`` at contexts ``[n, C]``; t is a scalar, or ``[n, 1]``."""
        gamma = self.schedule(t)
        noise = sigma(gamma)
        velocity: Tensor = 0.5 * self.schedule.slope(t) * noise * (self.denoiser(x, gamma, context) - noise * x)
        return velocity


def probability_flow(
    diffusion: GaussianDiffusion, *, base: Density | None = None, trace: Trace = EXACT_TRACE, tolerance: float = 1e-6
) -> Flow:
    """The probability flow of a diffusion: a continuous flow on the same network and schedule.

    Its data is the latent at t = 0, in the units of x: x with the noise σ_0/α_0 in it, which is small where γ(0) is.

    Args:
        diffusion: whose parts are shared, the standardisation of its data as it is now.
        base: density of the latent at t = 1; standard normal if None, as the diffusion's prior. A score that is exact
            leads to the marginal of that time, which differs from it by what signal is left.
        trace, tolerance: see :class:`~flows.continuous.transform.ContinuousTransform`.

    Raises:
        TypeError: not a GaussianDiffusion.

    >>> _ = torch.manual_seed(0)
    >>> flow = probability_flow(GaussianDiffusion.of_vectors(2, hidden=(8,), steps=10))
    >>> flow.log_density(torch.zeros(1, 2)).kind
    <Kind.EXACT: 'exact'>
    """
    if not isinstance(diffusion, GaussianDiffusion):
        raise TypeError(f"probability_flow takes a GaussianDiffusion; got {type(diffusion).__name__}")
    link = diffusion.layer
    shift, scale = link.standardise.shift, link.standardise.scale
    start = alpha(link.schedule(torch.zeros((), dtype=scale.dtype, device=scale.device))).detach()
    velocity = ProbabilityFlowVelocity(link.denoiser, link.schedule)
    features, contexts = diffusion.features, diffusion.context_features
    moving = ContinuousTransform(velocity, features, contexts, trace=trace, tolerance=tolerance)
    normal = StandardNormal(features).to(scale)
    return Flow(normal if base is None else base, Chain(Affine(shift.clone(), scale / start), moving))
