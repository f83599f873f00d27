"""A proposal fitted to draws of a density: a mixture of Gaussians, and a wide part without which nothing is certain."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture

WIDE = 0.2  # the share of the wide part
REACH = 20.0  # robust standard deviations within which draws shape the mixture
QUICK = EM(max_iterations=60, tolerance=1e-4, regularisation=1e-6, progress=False)


class Proposal:
    """q(x) = 0.8 · a Gaussian mixture + 0.2 · a multivariate Cauchy, twice as wide as the draws in every feature.

    A Cauchy has heavier tails than nearly any density, so that importance weights p/q are bounded where the mixture's
    tails end. Everything is computed in float64, in units of median and interquartile range.

    Args:
        draws: of the density, ``[n, D]``.
        components: of the mixture.
        generator: for the start of EM.
    """

    def __init__(self, draws: Tensor, components: int, generator: Generator | None) -> None:
        draws = draws.double()
        self.features = draws.shape[-1]
        low, self.centre, high = draws.quantile(torch.tensor([0.25, 0.5, 0.75]).to(draws), dim=0)
        spread = (high - low) / 1.35  # that of a normal is its standard deviation
        self.scale = torch.where(spread > 0, spread, draws.std(0)).clamp_min(1e-30)
        z = (draws - self.centre) / self.scale
        z = z[(z.abs() <= REACH).all(-1)]
        mixture = GaussianMixture(self.features, components).to(z)
        mixture.fit(z, em=QUICK, generator=generator)
        covariances = mixture.covariance.unpack(mixture.decoder.factor.detach())
        self.log_shares = mixture.prior.logits.detach().log_softmax(-1)
        self.parts = MultivariateNormal(mixture.means.detach(), covariances, validate_args=False)

    def sample(self, n: int, generator: Generator | None) -> Tensor:
        """n draws ``[n, D]``."""
        like = {"dtype": self.centre.dtype, "device": self.centre.device, "generator": generator}
        part = torch.multinomial(self.log_shares.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.features, **like)
        near = self.parts.loc[part] + (self.parts.scale_tril[part] @ noise.unsqueeze(-1)).squeeze(-1)
        far = 2 * torch.randn(n, self.features, **like) / torch.randn(n, 1, **like).abs()
        wide = torch.rand(n, 1, **like) < WIDE
        return self.centre + self.scale * torch.where(wide, far, near)

    def log_prob(self, x: Tensor) -> Tensor:
        """``[n]`` at points ``[n, D]``."""
        z = (x - self.centre) / self.scale
        near = (self.log_shares + self.parts.log_prob(z.unsqueeze(-2))).logsumexp(-1)
        d = self.features
        constant = math.lgamma((1 + d) / 2) - math.lgamma(0.5) - 0.5 * d * math.log(math.pi) - d * math.log(2)
        far = constant - (1 + d) / 2 * (z / 2).square().sum(-1).log1p()
        joint = torch.logaddexp(near + math.log1p(-WIDE), far + math.log(WIDE))
        return joint - self.scale.log().sum()

    def features_of(self, x: Tensor) -> Tensor:
        """Bounded functions of x by which draws are compared, ``[n, K + 2D]``: the components' posterior shares, and
        sin and cos of the standardised features.
        """
        z = (x - self.centre) / self.scale
        shares = (self.log_shares + self.parts.log_prob(z.unsqueeze(-2))).softmax(-1)
        return torch.cat([shares, z.sin(), z.cos()], -1)
