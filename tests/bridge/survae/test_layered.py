"""Layered models: how large the gap is, and that they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Generator, Tensor, nn

from bridge import DeltaLink
from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain
from bridge.survae.dequantisation import UniformDequantisation, VariationalDequantisation
from bridge.survae.layered import LooseLayeredModel, TightLayeredModel, layered
from bridge.survae.permutations import StochasticPermutation
from bridge.survae.ranges import InverseSoftplus
from bridge.survae.surjections import Abs
from density import (
    Categorical,
    ConditionalCategorical,
    ConditionalGaussian,
    DiagonalGaussian,
    Gaussian,
    GlobalScale,
    Kind,
    Measure,
    Rescaled,
    StandardNormal,
    Training,
)
from flows import ActNorm, Affine, Chain, Flow, Logit, first_half, glow, maf, random_rotation, real_nvp
from lvm import LayeredModel, StochasticLink
from lvm.evidence import gap
from tests.cases.layered_models import LOOSE, broad, linear_gaussian, model_of

SIGMAS = 4.5


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# The gap is E log q(z|x)/p(z|x), where that is known
# ---------------------------------------------------------------------------------------------------------------------


def gap_of_augmentation(model: LayeredModel, x: Tensor) -> Tensor:
    """KL of the encoder's Gaussian and the prior's conditional."""
    link = model.link
    assert isinstance(link, Augmentation)
    assert isinstance(link.extra, ConditionalGaussian)
    assert isinstance(model.prior, Gaussian)
    mean, cov = model.prior.mean.detach(), model.prior.covariance.detach()
    gain = cov[2:, :2] @ torch.linalg.inv(cov[:2, :2])
    of_posterior = mean[2:] + (x - mean[:2]) @ gain.mT
    precision = torch.linalg.inv(cov[2:, 2:] - gain @ cov[:2, 2:])
    of_q, scale = link.extra.at(x)
    std = scale.dense().diagonal(dim1=-2, dim2=-1).detach().expand_as(of_posterior)
    shift = of_posterior - of_q.detach()
    quadratic = (shift @ precision * shift).sum(-1)
    trace = (precision.diagonal() * std.square()).sum(-1)
    return 0.5 * (quadratic + trace - shift.shape[1] - torch.logdet(precision) - 2 * std.log().sum(-1))


def gap_of_rounding(model: LayeredModel, x: Tensor) -> Tensor:
    """log ∫ p − ∫ log p over the cell, by Gauss-Legendre."""
    assert isinstance(model.prior, DiagonalGaussian)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u, w = torch.as_tensor((nodes + 1) / 2), torch.as_tensor(weights / 2)
    mean, std = model.prior.mean.detach(), model.prior.log_std.detach().exp()
    log_p = torch.as_tensor(stats.norm.logpdf((x.unsqueeze(-1) + u).numpy(), mean.unsqueeze(-1), std.unsqueeze(-1)))
    return ((log_p.exp() @ w).log() - log_p @ w).sum(-1)


def gap_of_permutation(model: LayeredModel, x: Tensor) -> Tensor:
    log_p = torch.stack([model.prior.log_prob(x[:, list(order)]) for order in permutations(range(3))]).detach()
    return log_p.logsumexp(0) - math.log(6) - log_p.mean(0)


def gap_of_rectifier(model: LayeredModel, x: Tensor) -> Tensor:
    """KL of a half-normal and a truncated normal, one integral a feature at 0."""
    link = model.link
    assert isinstance(link, ReLU)
    assert isinstance(model.prior, DiagonalGaussian)
    sigma, mean, std = link.deficits.log_scale.exp(), model.prior.mean, model.prior.log_std.exp()
    kl = []
    for s, m, t in zip(sigma.tolist(), mean.tolist(), std.tolist(), strict=True):

        def integrand(e: float, s: float = s, m: float = m, t: float = t) -> float:
            q = stats.halfnorm.logpdf(e, scale=s)
            return math.exp(q) * (q - stats.norm.logpdf(-e, m, t) + stats.norm.logcdf(0, m, t))

        kl.append(integrate.quad(integrand, 0, 12 * s, epsabs=1e-10)[0])
    return torch.where(x == 0, torch.tensor(kl, dtype=x.dtype), torch.zeros_like(x)).sum(-1)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("augmentation", gap_of_augmentation),
        ("uniform dequantisation", gap_of_rounding),
        ("stochastic permutation", gap_of_permutation),
        ("ReLU", gap_of_rectifier),
    ],
)
def test_the_gap_is_what_the_encoder_costs(
    name: str,
    known: Callable[[LayeredModel, Tensor], Tensor],
    generator: Generator,
    record_measurement: Callable[[str, float, float], None],
) -> None:
    case = LOOSE[name]
    model = case.make(generator)
    x = case.points(model, generator, 6)
    draws = 40_000
    log_p = case.truth(model, x)
    with torch.no_grad():
        log_weights = model.log_weights(x, draws, generator=generator)
    expected = known(model, x)
    error = log_weights.std(0) / math.sqrt(draws)
    assert expected.max() > 10 * error.max(), "the gap is too small to test anything"
    off = (log_p - log_weights.mean(0) - expected).abs() / error.clamp_min(1e-12)
    record_measurement(f"loose layers: gap of {name}, standard errors", off.max().item(), SIGMAS)


def test_the_gap_closes_where_the_encoder_is_the_posterior(generator: Generator) -> None:
    """A half-normal under a centred normal; the prior's own conditional; an exchangeable prior; a flat cell."""
    prior = DiagonalGaussian(2).double()
    relu = ReLU(2).double()
    x = torch.tensor([[0.0, 1.5], [0.0, 0.0]], dtype=torch.float64)
    log_weights = layered(prior, relu).log_weights(x, 20, generator=generator)
    assert log_weights.std(0).max() < 1e-12
    x = normal(generator, 4, 2)
    for model in (
        layered(StandardNormal(3).double(), Augmentation(2, StandardNormal(1).double())),
        layered(StandardNormal(2).double(), StochasticPermutation(2)),
    ):
        log_weights = model.log_weights(x, 20, generator=generator)
        expected = torch.as_tensor(stats.norm.logpdf(x.numpy())).sum(-1)
        torch.testing.assert_close(log_weights, expected.expand(20, 4), rtol=1e-12, atol=1e-12)


def test_evidence_applies_unchanged(generator: Generator) -> None:
    case = LOOSE["VAE on a flow"]
    model = case.make(generator)
    x = case.points(model, generator, 5)
    report = gap(model, x, draws=4000, generator=generator)
    assert report.log_density.monte_carlo_error is not None
    off = (report.log_density.value - case.truth(model, x)).abs() / report.log_density.monte_carlo_error
    assert off.max() < SIGMAS
    assert report.difference.kind is Kind.LOWER


# ---------------------------------------------------------------------------------------------------------------------
# Fitting
# ---------------------------------------------------------------------------------------------------------------------

SHORT = Training(epochs=12, batch_size=200, learning_rate=1e-2, progress=False)


def test_a_tight_model_learns(generator: Generator) -> None:
    """Points near ±2 in each feature: a folded flow needs one bump, and learns it; the first step finds its scale."""
    sign = (torch.rand(1500, 2, generator=generator, dtype=torch.float64) < 0.5).double() * 2 - 1
    x = sign * (2 + 0.3 * normal(generator, 1500, 2))
    flow = glow(2, 2, (16,), masks=first_half, linear=random_rotation(generator))
    model = layered(StandardNormal(2), LinkChain(Abs(2), DeltaLink(Chain(InverseSoftplus(), flow.transform), 2)))
    assert isinstance(model, TightLayeredModel)
    history = model.fit(x, SHORT, generator=generator)
    assert model.reference.dtype == torch.float64
    assert history.objective[-1] > history.objective[0]
    entropy = 2 * (math.log(2) + math.log(0.3) + 0.5 * math.log(2 * math.pi * math.e))
    claim = model.log_density(x)
    assert -0.15 - 5 * claim.standard_error < claim.mean + entropy < 5 * claim.standard_error + 0.05
    assert claim.mean - DiagonalGaussian(2).fit(x).objective[-1] > 1


def test_data_dependent_starts_reach_every_part(generator: Generator) -> None:
    norm, top_norm, prior_norm = ActNorm(3), Rescaled(linear_gaussian(3, 2)), ActNorm(2)
    chain = LinkChain(DeltaLink(norm), StochasticLink(broad(2, 3), top_norm))
    model = layered(Flow(StandardNormal(2), prior_norm), chain)
    x = 5 + 3 * normal(generator, 500, 3)
    model.fit(x, Training(epochs=1, learning_rate=1e-9, progress=False), generator=generator)
    y = norm(x)[0]
    torch.testing.assert_close(y.mean(0), torch.zeros(3, dtype=x.dtype), rtol=0, atol=1e-6)
    assert bool(top_norm.standardise.matched)
    torch.testing.assert_close(top_norm.standardise.scale, y.std(0), rtol=0.01, atol=0)
    z = chain.infer(x, generator=generator)[0][0]
    assert prior_norm(z)[0].mean(0).abs().max() < 0.2


@pytest.mark.parametrize("name", list(LOOSE))
def test_a_loose_model_learns(name: str, generator: Generator) -> None:
    """Data of a model, other parameters: the ELBO rises from there, held-out rows chosen and draws as they come."""
    case = LOOSE[name]
    with torch.no_grad():
        x = case.make(generator).sample(600, generator=generator)
        if "levels" in name:
            x = x.clamp(0, 1)
    model = case.make(Generator().manual_seed(1))
    assert isinstance(model, LooseLayeredModel)
    before = model.elbo(x, draws=20, generator=generator).mean().item()
    model.fit(x, SHORT, draws=2, generator=Generator().manual_seed(2))
    after = model.elbo(x, draws=20, generator=generator).mean().item()
    assert after > before


def test_training_closes_the_gap_of_an_augmentation(generator: Generator) -> None:
    """The prior's conditional is in the encoder's family, so maximising the ELBO in it alone leads there."""
    model = model_of(lambda: (Gaussian(3), Augmentation(2, ConditionalGaussian(nn.Linear(2, 1), 1, 2, GlobalScale()))))
    trained = model(generator)
    assert isinstance(trained, LooseLayeredModel)
    trained.prior.requires_grad_(False)
    with torch.no_grad():
        x = trained.sample(800, generator=generator)
    first = gap_of_augmentation(trained, x).mean()
    trained.fit(x, Training(epochs=60, learning_rate=3e-2, progress=False), draws=4, generator=generator)
    last = gap_of_augmentation(trained, x).mean()
    assert first > 0.03
    assert last < 0.03 * first


class Asked(UniformDequantisation):
    """Remembers how many draws it was asked for."""

    def _noise(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        self.__dict__.setdefault("asked", set()).add(draws)
        return super()._noise(x, draws, generator)


def test_fit_takes_as_many_draws_as_it_is_told() -> None:
    for draws in (1, 7):
        link = Asked(2)
        model = LooseLayeredModel(DiagonalGaussian(2), link)
        model.fit(torch.zeros(20, 2), Training(epochs=1, progress=False), draws=draws)
        assert draws in link.asked
        assert link.asked <= {1, draws}


def test_discrete_draws_carry_no_gradient_and_fit_says_so() -> None:
    link = StochasticLink(ConditionalCategorical(nn.Linear(2, 3), 3, 2), linear_gaussian(2, 3))
    model = layered(Categorical(3), link)
    assert isinstance(model, LooseLayeredModel)
    with pytest.raises(TypeError, match="those of ConditionalCategorical are discrete"):
        model.fit(torch.zeros(10, 2))
    with pytest.raises(ValueError, match="draws must be a positive int"):
        layered(StandardNormal(2), UniformDequantisation(2)).fit(torch.zeros(4, 2), draws=0)  # type: ignore[call-arg]


def test_a_flow_can_be_the_noise_of_its_cells(generator: Generator) -> None:
    """A conditional flow as q(u|x): the whole chain of a discrete density model, in single precision."""
    x = torch.randint(0, 4, (300, 2), generator=generator).float()
    noise = maf(2, 2, (8,), context_features=2)
    chain = LinkChain(VariationalDequantisation(noise, levels=4), DeltaLink(Chain(Affine(0.0, 4.0), Logit()), 2))
    model = layered(real_nvp(2, 2, (8,)), chain)
    assert isinstance(model, LooseLayeredModel)
    history = model.fit(x, SHORT, generator=generator)
    assert all(math.isfinite(value) for value in history.objective)
    claim = model.log_density(x[:50], draws=200, generator=generator)
    assert claim.measure is Measure.COUNTING
    assert claim.value.max() < 0
    drawn = model.sample(200, generator=generator)
    assert drawn.equal(drawn.floor())
    assert drawn.min() >= 0
    assert drawn.max() <= 3
    states = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    every = model.log_density(states, draws=2000, generator=generator)
    assert every.value.exp().sum().item() == pytest.approx(1, abs=0.02)  # all the mass is on the levels
