"""Diffusion models against sums that are written out, closed forms, and each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from bridge import probability_flow
from density import Kind, Timed, Training, mlp
from density.data.joined import joined
from density.initialisation import Standardisation
from lvm import (
    CosineSchedule,
    Denoiser,
    DiffusionLink,
    GaussianDiffusion,
    LearnedSchedule,
    LinearSchedule,
    Prediction,
    Schedule,
)
from lvm.diffusion.denoiser import alpha, sigma
from tests.laws.transforms import randomise
from tests.lvm.diffusion.gaussians import ExactNoise, chain_log_prob, exact_diffusion, noise_error, normal_log_prob

STD = torch.tensor([0.5, 1.5], dtype=torch.float64)
SCHEDULES: dict[str, Schedule] = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(-6.0, 4.0),
    "learned": LearnedSchedule(-6.0, 4.0, 8).double(),
}


def points(n: int, seed: int = 0) -> Tensor:
    return STD * torch.randn(n, 2, generator=Generator().manual_seed(seed), dtype=torch.float64)


def small(prediction: Prediction = Prediction.NOISE, steps: int = 6) -> GaussianDiffusion:
    torch.manual_seed(0)
    network = Timed(mlp(3, 2, (8,)), 2, unit=10.0)
    model = GaussianDiffusion(network, 2, steps, LearnedSchedule(-6.0, 4.0, 4), prediction)
    return randomise(model, Generator().manual_seed(1), 0.2)


def naive_terms(model: GaussianDiffusion, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The definition: posteriors of the encoder by Bayes' rule, KLs by torch, one draw of every latent's marginal."""
    link = model.layer
    gammas, rows = link.gammas(), link.standardise(x)
    reconstruction, steps = None, []
    for i, gamma in enumerate(gammas):
        a, s = alpha(gamma), sigma(gamma)
        z = a * rows + s * torch.randn(1, *x.shape, generator=generator, dtype=x.dtype)
        clean = link.denoiser.clean(z, gamma)
        if i == 0:
            unit = link.standardise.scale
            decoder = Normal(link.standardise.inverse(clean), (s / a) * unit)
            reconstruction = Independent(decoder, 1).log_prob(x).mean(0)
            continue
        a0, s0 = alpha(gammas[i - 1]), sigma(gammas[i - 1])
        ratio = a / a0
        noise = s**2 - ratio**2 * s0**2  # of z_i given z_{i−1}
        means = [(ratio * s0**2 * z + a0 * noise * value) / s**2 for value in (rows, clean)]
        std = (noise.sqrt() * s0 / s).expand_as(z)
        steps.append(kl_divergence(*(Independent(Normal(mean.expand_as(z), std), 1) for mean in means)).mean(0))
    last = Independent(Normal(alpha(gammas[-1]) * rows, sigma(gammas[-1]).expand_as(rows)), 1)
    standard = Independent(Normal(torch.zeros_like(rows), torch.ones_like(rows)), 1)
    assert reconstruction is not None
    return reconstruction, torch.stack(steps), kl_divergence(last, standard)


@pytest.mark.parametrize("prediction", Prediction)
def test_the_terms_and_their_gradients_are_those_of_the_naive_sum(prediction: Prediction) -> None:
    model, x = small(prediction), points(4)
    model.layer.standardise.match(points(50, 1) * 3 + 1)
    terms = model.elbo_terms(x, generator=Generator().manual_seed(0))
    naive = naive_terms(model, x, Generator().manual_seed(0))
    for ours, theirs in zip((terms.reconstruction, terms.steps, terms.prior), naive, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(terms.elbo.sum(), parameters)
    expected = torch.autograd.grad((naive[0] - naive[1].sum(0) - naive[2]).sum(), parameters)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-9)


def test_one_drawn_step_and_the_limit_are_unbiased() -> None:
    """Against sums and integrals of what the error of the exact denoiser is in the mean."""
    x, schedule = points(3), CosineSchedule(-6.0, 4.0)
    model = exact_diffusion(STD, 20, schedule)
    gammas = model.layer.gammas()
    prior = model._prior_divergence(x, gammas[-1])
    reconstruction = model._reconstruction(noise_error(x, STD, gammas[:1])[0], gammas[0])
    weights = 0.5 * torch.expm1(gammas.diff())
    expected = reconstruction - (weights[:, None] * noise_error(x, STD, gammas[1:])).sum(0) - prior
    values = torch.stack([model.elbo(x, draws=50, generator=Generator().manual_seed(seed)) for seed in range(200)])
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() < 4.5 * error).all()
    assert error.max() < 0.05

    line = torch.linspace(-6, 4, 2001, dtype=torch.float64)
    integral = torch.trapezoid(noise_error(x, STD, line), line, dim=0)
    first = model._reconstruction(noise_error(x, STD, line[:1])[0], line[0])
    expected = first - 0.5 * integral - prior
    claim = model.limit(x, draws=16_000, generator=Generator().manual_seed(0))
    assert claim.kind is Kind.LOWER
    assert claim.monte_carlo_error is not None
    assert ((claim.value - expected).abs() < 5 * claim.monte_carlo_error).all()  # of 8 groups: Student's t of 7
    assert claim.monte_carlo_error.max() < 0.05
    assert (claim.value < normal_log_prob(x, STD) + 5 * claim.monte_carlo_error).all()


def test_the_simple_loss_is_the_mean_error_of_all_steps() -> None:
    """Against what the error of the exact denoiser is in the mean; the ELBO's weights are not in it."""
    x = points(3)
    model = exact_diffusion(STD, 20, CosineSchedule(-6.0, 4.0))
    expected = -noise_error(x, STD, model.layer.gammas()).mean(0)
    values = torch.stack([model.noise_matching(x, draws=50, generator=Generator().manual_seed(k)) for k in range(200)])
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() < 4.5 * error).all()
    assert error.max() < 0.02


def test_a_fit_by_the_simple_loss_leaves_the_schedule_and_says_what_it_maximised() -> None:
    x, generator = points(200).float(), Generator().manual_seed(0)
    torch.manual_seed(0)
    model = GaussianDiffusion.of_vectors(2, hidden=(8,), steps=10, schedule=LearnedSchedule(-4.0, 3.0, 4))
    before = [parameter.clone() for parameter in model.layer.schedule.parameters()]
    training = Training(epochs=3, batch_size=50, learning_rate=1e-2)
    history = model.fit(x, training, simple=True, generator=generator)
    after = model.layer.schedule.parameters()
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))
    with torch.no_grad():
        mean = torch.stack([model.noise_matching(x, generator=generator).mean() for _ in range(20)]).mean()
    assert history.objective[-1] == pytest.approx(float(mean), abs=0.3)
    with pytest.raises(ValueError, match="the simple loss has no weights"):
        model.fit(x, training, simple=True, importance_weighted=True)


class Shifted(nn.Module):
    """Latents of data about the context in place of 0: every number is that of x − c under the network alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, gamma: Tensor, context: Tensor) -> Tensor:
        noise: Tensor = self.network(z - alpha(gamma) * context, gamma)
        return noise


def test_a_context_that_shifts_the_data_shifts_every_number() -> None:
    """ELBO, terms, simple loss, limit, samples and the probability flow, with the same draws."""
    schedule, x, c = CosineSchedule(-6.0, 4.0), points(4), points(4, 1)
    plain = exact_diffusion(STD, 6, schedule)
    model = GaussianDiffusion(Shifted(ExactNoise(STD)), 2, 6, schedule, context_features=2).double()
    asked: list[Callable[..., Tensor]] = [
        lambda model, x, **given: model.elbo_terms(x, draws=3, **given).steps,
        lambda model, x, **given: model.elbo_terms(x, draws=3, **given).reconstruction,
        lambda model, x, **given: model.noise_matching(x, draws=3, **given),
        lambda model, x, **given: model.limit(x, draws=16, **given).value,
    ]
    with torch.no_grad():
        for ask in asked:  # the prior's KL alone knows nothing of contexts
            prior = 0.5 * torch.sigmoid(-model.layer.schedule(torch.ones(()).double())) * (x**2 - (x - c) ** 2).sum(1)
            here = ask(model, x, context=c, generator=Generator().manual_seed(0))
            there = ask(plain, x - c, generator=Generator().manual_seed(0))
            torch.testing.assert_close(here + prior if ask is asked[-1] else here, there)
        z = torch.randn(3, 4, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
        last = alpha(model.layer.gammas()[-1]) * c  # generated from a latent about α c, which the prior is not
        here = model.layer.generate(joined(z + last, c), generator=Generator().manual_seed(1))
        there = plain.layer.generate(z, generator=Generator().manual_seed(1))
        torch.testing.assert_close(here, there + c)
        ours, theirs = (probability_flow(each).transform for each in (model, plain))
        (here, log_det), (there, same) = ours.forward(x, c), theirs.forward(x - c)
    end = alpha(schedule(torch.ones((), dtype=x.dtype)))
    torch.testing.assert_close(here, there + end * c, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_det, same, rtol=0, atol=1e-7)


def test_contexts_are_standardised_where_a_fit_starts() -> None:
    c = 100 + 10 * points(50).float()
    model = GaussianDiffusion.of_vectors(2, hidden=(4,), steps=2, context_features=2)
    model.initialise(points(50, 1).float(), c)
    (standardise,) = (part for part in model.layer.denoiser.modules() if isinstance(part, Standardisation))
    torch.testing.assert_close(standardise.shift, c.mean(0))


def test_the_way_of_drawing_steps_lowers_the_variance() -> None:
    """Of the mean over a batch of 64, against one step each at uniform, independent times: by a factor of 12."""
    x, repeats = points(64), 400
    model = exact_diffusion(STD, 50, CosineSchedule(-6.0, 4.0))
    gammas = model.layer.gammas()

    def naive(generator: Generator) -> Tensor:
        step = torch.randint(49, (64,), generator=generator)
        error, _ = model._noise_error(x, gammas[step + 1][:, None], generator)
        first, _ = model._noise_error(x, gammas[0], generator)
        loss = 49 * 0.5 * torch.expm1(gammas[step + 1] - gammas[step]) * error
        return (model._reconstruction(first, gammas[0]) - loss - model._prior_divergence(x, gammas[-1])).mean()

    ours, plain = (
        torch.stack([make(Generator().manual_seed(seed)) for seed in range(repeats)])
        for make in (lambda generator: model.elbo(x, generator=generator).mean(), naive)
    )
    both = torch.stack([ours, plain])
    assert (ours.mean() - plain.mean()).abs() < 4.5 * (both.var(1).sum() / repeats).sqrt()
    assert plain.var() > 8 * ours.var(), f"{plain.var() / ours.var():.1f}"


def test_weights_average_to_the_density_of_the_chain() -> None:
    model, x = small(steps=3), points(3)
    model.layer.denoiser.network = randomise(Timed(nn.Linear(3, 2), 2, unit=10.0), Generator().manual_seed(0), 0.1)
    model.layer.standardise.match(points(50, 1) * 2)
    with torch.no_grad():
        truth = chain_log_prob(model, x)
        relative = (model.log_weights(x, 50_000, generator=Generator().manual_seed(0)) - truth).exp()
        error = relative.std(0) / math.sqrt(len(relative))
        assert error.max() < 0.1
        assert ((relative.mean(0) - 1).abs() < 4.5 * error).all()
        weights = model.log_weights(x, 4000, generator=Generator().manual_seed(1))
        terms = model.elbo_terms(x.expand(4000, 3, 2), generator=Generator().manual_seed(2)).elbo
        error = torch.hypot(weights.std(0), terms.std(0)) / math.sqrt(4000)
        assert ((weights.mean(0) - terms.mean(0)).abs() < 4.5 * error).all()
        sample = model.sample(20_000, generator=Generator().manual_seed(0))
        # The entropy of the chain, by draws of itself, is that of a normal density of the same covariance.
        entropy = -chain_log_prob(model, sample)
        known = 0.5 * torch.logdet(2 * math.pi * math.e * sample.T.cov())
    assert abs(float(entropy.mean() - known)) < 4.5 * float(entropy.std()) / math.sqrt(len(sample)) + 0.01


@pytest.mark.parametrize("steps", [1, 3])
def test_the_hierarchy_has_the_log_weights_of_the_chain(steps: int) -> None:
    """In the units of the data, with the same draws; and log p(x, z) less log q(z|x) is what they are."""
    model, x = small(steps=steps), points(4)
    model.layer.standardise.match(points(50, 1) * 3 + 1)
    hierarchy = model.hierarchy()
    with torch.no_grad():
        ours, theirs = (m.log_weights(x, 10, generator=Generator().manual_seed(0)) for m in (model, hierarchy))
        torch.testing.assert_close(theirs, ours, rtol=1e-11, atol=1e-11)
        z, log_q = hierarchy.encoder.sample_with_log_prob(10, context=x, generator=Generator().manual_seed(0))
        torch.testing.assert_close(hierarchy.log_joint(x, z) - log_q, ours, rtol=1e-11, atol=1e-11)
    assert hierarchy.level_features == (2,) * steps
    with pytest.raises(ValueError, match="takes a context of 1 features"):
        GaussianDiffusion.of_vectors(2, hidden=(4,), steps=2, context_features=1).hierarchy()


def test_networks_that_say_the_same_in_other_words_are_the_same() -> None:
    z, gamma = points(5), torch.tensor(-1.0, dtype=torch.float64)

    class Says(nn.Module):
        def __init__(self, data: bool) -> None:
            super().__init__()
            self.data = data

        def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
            clean = (z - sigma(gamma) * z) / alpha(gamma)
            return clean if self.data else alpha(gamma) * z - sigma(gamma) * clean

    class Noise(nn.Module):
        def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
            return z

    noise = Denoiser(Noise())
    for other in (Denoiser(Says(True), Prediction.DATA), Denoiser(Says(False), Prediction.VELOCITY)):
        torch.testing.assert_close(other(z, gamma), noise(z, gamma))
        torch.testing.assert_close(other.clean(z, gamma), noise.clean(z, gamma))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_grow_and_know_their_slope(name: str) -> None:
    schedule = SCHEDULES[name]
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    with torch.no_grad():
        gamma = schedule(t)
        assert (gamma.diff() > 0).all()
        step = 1e-6
        difference = (schedule(t[1:-1] + step) - schedule(t[1:-1] - step)) / (2 * step)
        torch.testing.assert_close(schedule.slope(t[1:-1]), difference, rtol=1e-6, atol=1e-6)
        if name != "linear":
            torch.testing.assert_close(gamma[[0, -1]], torch.tensor([-6.0, 4.0], dtype=torch.float64))
    steps = 1000
    betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
    if name == "linear":  # Ho's product of a thousand steps
        ours = -torch.nn.functional.softplus(schedule(torch.tensor([0.5, 1.0], dtype=torch.float64)))
        theirs = (1 - betas).log().cumsum(0)[[499, 999]]
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=0)


def test_a_fit_knows_the_units_of_its_data() -> None:
    """From 1 step, which has nothing to say, up: held-out ELBO near that of the density that made the points."""
    generator = Generator().manual_seed(0)
    x = 100 + 10 * torch.randn(400, 1, generator=generator)
    torch.manual_seed(0)
    model = GaussianDiffusion.of_vectors(1, hidden=(16,), steps=20, schedule=LearnedSchedule(-4.0, 4.0))
    history = model.fit(x, Training(epochs=40, batch_size=100, learning_rate=1e-2), generator=generator)
    assert len(history.objective) > 1
    entropy = math.log(10 * math.sqrt(2 * math.pi * math.e))
    limit = model.limit(x, generator=generator)
    assert -entropy - 0.6 < limit.mean < -entropy + 0.15
    assert abs(float(model.sample(500, generator=generator).detach().mean()) - 100) < 5


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="Prediction"):
        Denoiser(nn.Identity(), "noise")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a Denoiser and a Schedule"):
        DiffusionLink(nn.Identity(), LinearSchedule(), 2, 3)  # type: ignore[arg-type]
    for make in (CosineSchedule, LearnedSchedule):
        with pytest.raises(ValueError, match="from a first to a last value"):
            make(1.0, -1.0)
    with pytest.raises(ValueError, match="least < most"):
        LinearSchedule(2.0, 1.0)

    class Short(nn.Module):
        def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
            return z[:, :1]

    with pytest.raises(ValueError, match=r"Denoiser expects its network to return \[n, 2\]"):
        GaussianDiffusion(Short(), 2, 3).elbo(torch.zeros(4, 2))
