"""The chain of a diffusion as one link: a fixed encoder and learned decoders."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor

from density.checks import check_count, check_points
from density.data.joined import joined, parted
from density.initialisation import Standardisation, StartingPoints, take_input
from density.own_precision import in_own_precision
from lvm.diffusion.denoiser import Denoiser, alpha, sigma
from lvm.diffusion.schedule import Schedule
from lvm.links import Link


class DiffusionLink(Link):
    r"""The links from x to z_T of a diffusion, latents z_1, …, z_T at times i/T (Ho et al. 2020, arXiv:2006.11239).

    With c = 1 − e^{γ_{i−1} − γ_i} and α, σ functions of γ,

    .. math:: q(z_i|z_{i-1}) = N\Big(\frac{\alpha_i}{\alpha_{i-1}} z_{i-1},\; c\,\sigma_i^2\Big), \qquad
              p(z_{i-1}|z_i) = N\Big(\frac{\alpha_{i-1}}{\alpha_i}(z_i - c\,\sigma_i \hat\varepsilon(z_i, \gamma_i)),\;
              c\,\sigma_{i-1}^2\Big)

    The first encoder is q(z_1|x) = N(α_1 x, σ_1²), the last decoder p(x|z_1) = N(x̂(z_1, γ_1), σ_1²/α_1²): what noise
    there is in z_1 is thought to be in x̂. All that is about standardised features; ratios are in the units of x. Of a
    conditional link the denoiser sees the context at every step, and the encoder knows nothing of it.

    Args:
        denoiser: ε̂.
        schedule: γ.
        features: D.
        steps: T.
        context_features: C; 0 for an unconditional link.

    Cost: T evaluations of the network a draw, one after the other, since z_i follows z_{i−1}.

    >>> from lvm import LinearSchedule
    >>> class Nothing(torch.nn.Module):
    ...     def forward(self, z, gamma):
    ...         return torch.zeros_like(z)
    >>> link = DiffusionLink(Denoiser(Nothing()), LinearSchedule(), features=2, steps=4)
    >>> z, log_ratio = link.infer(torch.zeros(5, 2), draws=3)
    >>> z.shape, log_ratio.shape, link.gammas().shape
    (torch.Size([3, 5, 2]), torch.Size([3, 5]), torch.Size([4]))
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, features: int, steps: int, context_features: int = 0
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(denoiser, Denoiser) or not isinstance(schedule, Schedule):
            raise TypeError(
                f"{owner} takes a Denoiser and a Schedule, in this order; got {type(denoiser).__name__} and "
                f"{type(schedule).__name__}"
            )
        self.features = self.latent_features = check_count(features, f"{owner}: features")
        self.steps = check_count(steps, f"{owner}: steps")
        self.context_features = check_count(context_features, f"{owner}: context_features", least=0)
        self.denoiser = denoiser
        self.schedule = schedule
        self.standardise = Standardisation(self.features)

    def gammas(self) -> Tensor:
        """γ_1, …, γ_T."""
        like = self.standardise.scale
        return self.schedule(torch.arange(1, self.steps + 1, dtype=like.dtype, device=like.device) / self.steps)

    def standardised(self, rows: Tensor) -> Tensor:
        """Rows ``[*batch, D + C]`` with their points standardised, and their contexts as they were."""
        x, context = parted(rows, self.features)
        return joined(self.standardise(x), context)

    @in_own_precision
    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        check_points(x, self.features + self.context_features, type(self).__name__)
        draws = check_count(draws, "draws")
        x, context = parted(self.standardised(x), self.features)
        gammas = self.gammas()
        first = gammas[0]
        z, noise = self._moved((alpha(first) * x).expand(draws, *x.shape), sigma(first), generator)
        clean = self.denoiser.clean(z, first, context)
        ratio = log_normal(x, clean, (first / 2).exp()) - log_noise(noise, sigma(first))
        for low, high in pairwise(gammas):
            change = -torch.expm1(low - high)
            std = change.sqrt() * sigma(high)
            following, noise = self._moved(alpha(high) / alpha(low) * z, std, generator)
            mean, scale = self._decoder(following, low, high, context)
            ratio = ratio + log_normal(z, mean, scale) - log_noise(noise, std)
            z = following
        return z, ratio - self.standardise.scale.log().sum()

    @in_own_precision
    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        check_points(z, self.features + self.context_features, f"{type(self).__name__}.generate")
        z, context = parted(z, self.features)
        gammas = self.gammas()
        for high, low in pairwise(gammas.flip(0)):
            z, _ = self._moved(*self._decoder(z, low, high, context), generator)
        x, _ = self._moved(self.denoiser.clean(z, gammas[0], context), (gammas[0] / 2).exp(), generator)
        return self.standardise.inverse(x)

    def _decoder(self, z: Tensor, low: Tensor, high: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent at γ = low, given the one at γ = high."""
        change = -torch.expm1(low - high)
        mean = alpha(low) / alpha(high) * (z - change * sigma(high) * self.denoiser(z, high, context))
        return mean, change.sqrt() * sigma(low)

    def _moved(self, mean: Tensor, std: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + std * noise, noise

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        self.standardise.take(x)
        if not self.context_features:
            return x.encoded(lambda x: self.infer_once(x, generator)[0])
        take_input(self.denoiser, self.context_features, context)
        return x.beside(context).encoded(lambda rows: self.infer_once(rows, generator)[0])


def log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(x; mean, std² I), ``[*batch]`` of ``[*batch, D]``; std is a number."""
    return log_noise((x - mean) / std, std)


def log_noise(noise: Tensor, std: Tensor) -> Tensor:
    """The same of the noise (x − mean) / std."""
    return -0.5 * noise.square().sum(-1) - noise.shape[-1] * (std.log() + 0.5 * math.log(2 * math.pi))
