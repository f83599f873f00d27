"""A diffusion is a VAE of many levels, and in the limit of normal data and small steps the flow of its own network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from bridge import LinkChain, LooseLayeredModel, probability_flow
from density import ConditionalGaussian, DiagonalGaussian, FixedScale, StandardNormal, Timed, mlp
from lvm import VAE, CosineSchedule, GaussianDiffusion, HierarchicalVAE, LearnedSchedule, StochasticLink
from lvm.diffusion.denoiser import alpha, sigma
from tests.laws.transforms import randomise
from tests.lvm.diffusion.gaussians import (
    exact_diffusion,
    first_latent,
    noise_error,
    normal_log_prob,
    variance_at,
)

Record = Callable[[str, float, float], None]
STD = torch.tensor([0.4, 1.7], dtype=torch.float64)
ENDS = (-6.0, 4.0)


def points(n: int) -> Tensor:
    return STD * torch.randn(n, 2, generator=Generator().manual_seed(0), dtype=torch.float64)


def normal(std: Tensor) -> DiagonalGaussian:
    made = DiagonalGaussian(len(std)).double()
    made.fit(torch.cat([std[None], -std[None]]).repeat(2, 1))
    return made


def random_diffusion(steps: int) -> GaussianDiffusion:
    torch.manual_seed(0)
    model = GaussianDiffusion(Timed(mlp(3, 2, (8,)), 2, unit=10.0), 2, steps, CosineSchedule(-3.0, 2.0))
    return randomise(model, Generator().manual_seed(0), 0.2)


class Scaled(nn.Module):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    factor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Mean(nn.Module):
    """The mean of a decoder of the chain."""

    def __init__(self, model: GaussianDiffusion, low: Tensor | None, high: Tensor) -> None:
        super().__init__()
        self.model, self.low, self.high = model, low, high

    def forward(self, z: Tensor) -> Tensor:
        link = self.model.layer
        return link.denoiser.clean(z, self.high) if self.low is None else link._decoder(z, self.low, self.high)[0]


def levels(model: GaussianDiffusion) -> tuple[list[ConditionalGaussian], list[ConditionalGaussian]]:
    """The encoders and decoders of a diffusion, written out."""
    gammas = model.layer.gammas()

    def gaussian(mean: nn.Module, std: Tensor) -> ConditionalGaussian:
        return ConditionalGaussian(mean, 2, 2, FixedScale(float(std))).double()

    encoders = [gaussian(Scaled(alpha(gammas[0])), sigma(gammas[0]))]
    decoders = [gaussian(Mean(model, None, gammas[0]), sigma(gammas[0]) / alpha(gammas[0]))]
    for low, high in pairwise(gammas):
        ratio = alpha(high) / alpha(low)
        noise = (sigma(high).square() - ratio.square() * sigma(low).square()).sqrt()
        encoders.append(gaussian(Scaled(ratio), noise))
        decoders.append(gaussian(Mean(model, low, high), noise * sigma(low) / sigma(high)))
    return encoders, decoders


def test_a_diffusion_of_one_step_is_a_vae(record_measurement: Record) -> None:
    """Log-weights, and both terms of the ELBO, with the same draws."""
    model, x = random_diffusion(1), points(5)
    encoders, decoders = levels(model)
    vae = VAE(StandardNormal(2).double(), encoders[0], decoders[0])
    with torch.no_grad():
        ours, theirs = (m.log_weights(x, 10, generator=Generator().manual_seed(0)) for m in (model, vae))
        record_measurement("12 diffusion of one step = VAE, log-weights", float((ours - theirs).abs().max()), 1e-12)
        terms = model.elbo_terms(x, draws=10, generator=Generator().manual_seed(0))
        other = vae.elbo_terms(x, draws=10, generator=Generator().manual_seed(0))
    error = torch.stack([terms.reconstruction - other.reconstruction, terms.prior - other.kl]).abs().max()
    record_measurement("12b the terms of its ELBO", float(error), 1e-12)


def test_a_diffusion_is_a_hierarchical_vae_and_a_chain_of_links(record_measurement: Record) -> None:
    model, x = random_diffusion(5), points(4)
    encoders, decoders = levels(model)
    prior = StandardNormal(2).double()
    chain = LooseLayeredModel(prior, LinkChain(*map(StochasticLink, encoders, decoders)))
    hierarchy = HierarchicalVAE(prior, encoders, decoders)
    with torch.no_grad():
        ours = model.log_weights(x, 10, generator=Generator().manual_seed(0))
        for name, other in (("chain of links", chain), ("hierarchical VAE", hierarchy)):
            theirs = other.log_weights(x, 10, generator=Generator().manual_seed(0))
            record_measurement(f"13 diffusion = {name}, log-weights", float((ours - theirs).abs().max()), 1e-11)


def test_the_probability_flow_of_an_exact_score_is_the_marginal(record_measurement: Record) -> None:
    """With the terminal marginal as its base; with a standard normal one it differs, by what signal is left."""
    model, x = exact_diffusion(STD, 10, CosineSchedule(*ENDS)), points(50)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ENDS)
    known = normal_log_prob(x, variance_at(STD, low).sqrt() / alpha(low))  # of z/α at the first time
    matched = probability_flow(model, base=normal(variance_at(STD, high).sqrt())).log_density(x)
    error = float((matched.value - known).abs().max())
    record_measurement("14 probability flow = marginal at the first time", error, 1e-6)
    unmatched = probability_flow(model).log_density(x)
    cost = float((unmatched.value - known).mean())
    assert 1e-4 < abs(cost) < 0.1, "γ = 4 leaves 1.8 % of the signal's variance"
    record_measurement("14b mean cost of a standard normal base, nats", abs(cost), 0.1)


def test_the_chain_becomes_the_flow_as_its_steps_become_small(record_measurement: Record) -> None:
    """Of exact scores both have the marginal of the first latent: the chain's log p up to an error that halves with
    twice the steps, from the terminal marginal.
    """
    z, errors = points(20), []
    for steps in (100, 200, 400):
        model = exact_diffusion(STD, steps, LearnedSchedule(*ENDS).double())
        with torch.no_grad():
            gammas = model.layer.gammas()
            chain = first_latent(model, variance_at(STD, gammas[-1]).diag())
            errors.append((chain.log_prob(z) - normal_log_prob(z, variance_at(STD, gammas[0]).sqrt())).abs())
    rates = [float(more.mean() / less.mean()) for more, less in pairwise(errors)]
    record_measurement("15 error of the chain at half the steps / 2, from 1", max(abs(r / 2 - 1) for r in rates), 0.05)
    record_measurement("15b its error at T = 400, nats", float(errors[-1].max()), 0.05)


def test_in_continuous_time_only_the_ends_of_the_schedule_count(record_measurement: Record) -> None:
    """The mean ELBO of two schedules at large T against the integral over γ."""
    x, steps = points(10), 50_000
    line = torch.linspace(*ENDS, 4001, dtype=torch.float64)
    integral = 0.5 * torch.trapezoid(noise_error(x, STD, line), line, dim=0)
    with torch.no_grad():
        for schedule in (CosineSchedule(*ENDS), LearnedSchedule(*ENDS).double()):
            gammas = exact_diffusion(STD, steps, schedule).layer.gammas()
            weights = 0.5 * torch.expm1(gammas.diff())[:, None]
            total = (weights * noise_error(x, STD, gammas[1:])).sum(0)
            name = type(schedule).__name__
            record_measurement(f"16 ELBO of {name} = integral over γ", float((total - integral).abs().max()), 1e-3)
