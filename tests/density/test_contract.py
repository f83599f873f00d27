"""The contract: what a density gets for a few lines of its own, and how often it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn

import density.contract
from bridge import Featured, HalfNormal
from density import (
    Bernoulli,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    FixedScale,
    NetworkScale,
    Rescaled,
    StandardNormal,
    Training,
    mlp,
)
from flows import linear_flow, real_nvp
from lvm import PPCA, VAE, GaussianMixture


class Laplace(Density):
    """Independent Laplace distributions around the context: the least that makes a conditional density."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = self.context_features = features
        self.log_scale = nn.Parameter(torch.full((features,), 0.3))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        return (-(x - context).abs() / self.log_scale.exp() - self.log_scale - math.log(2)).sum(-1)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        assert context is not None
        noise = torch.rand(n, *context.shape, generator=generator, dtype=context.dtype) - 0.5
        return context - self.log_scale.exp() * noise.sign() * torch.log1p(-2 * noise.abs())


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded() -> Generator:
    return Generator().manual_seed(0)


def test_two_methods_make_a_density(generator: Generator) -> None:
    density = Laplace(2).double()
    context = normal(generator, 4, 2)
    x, log_prob = density.sample_with_log_prob(3, context=context, generator=seeded())
    assert x.equal(density.sample(3, context=context, generator=seeded()))
    assert x.shape == (3, 4, 2)
    scale = math.exp(0.3)
    expected = stats.laplace.logpdf(x.detach().numpy(), context.numpy(), scale).sum(-1)
    torch.testing.assert_close(log_prob.detach(), torch.as_tensor(expected))
    assert density(x, context).equal(log_prob)
    model = VAE(StandardNormal(2), ConditionalGaussian(nn.Linear(2, 4), 2, 2), Laplace(2)).double()
    history = model.fit(normal(generator, 60, 2), Training(epochs=2, progress=False), generator=generator)
    assert all(math.isfinite(value) for value in history.objective)


@pytest.mark.parametrize("asked", [lambda c: Laplace(2).expectation(c), lambda c: Rescaled(Laplace(2)).expectation(c)])
def test_without_a_closed_form_the_expectation_says_what_to_do(asked: Callable[[Tensor], Tensor]) -> None:
    message = r"^Laplace has no expectation in closed form; average draws, sample\(n, context=context\)\.mean\(0\)$"
    with pytest.raises(TypeError, match=message):
        asked(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"expects a context of shape \[\*batch, 2\]; got \[3, 5\]"):
        asked(torch.zeros(3, 5))
    with pytest.raises(TypeError, match=r"^Flow has no expectation in closed form; average draws, sample\(n\)\.mean"):
        linear_flow(2).expectation()


def test_expectations_of_compositions(generator: Generator) -> None:
    context = normal(generator, 5, 3)
    inner = ConditionalGaussian(nn.Linear(3, 2), 2, 3, FixedScale()).double()
    scaled = Rescaled(inner).double()
    scaled.standardise.match(3 + 2 * normal(generator, 50, 2))
    shift, scale = scaled.standardise.shift, scaled.standardise.scale
    torch.testing.assert_close(scaled.expectation(context), shift + scale * inner.network(context))
    seen = nn.Linear(4, 3).double()
    featured = Featured(seen, inner, 4)
    torch.testing.assert_close(featured.expectation(torch.zeros(5, 4).double()), inner.network(seen.bias).expand(5, 2))


def test_latent_variable_models_have_the_means_of_their_parts(generator: Generator) -> None:
    """encode, decode and reconstruct are expectations, whatever the encoder and the decoder are."""
    mixture = GaussianMixture(2, 3).double()
    x = normal(generator, 6, 2)
    assert mixture.encode(x).equal(mixture.posterior(x))
    torch.testing.assert_close(mixture.decode(torch.eye(3).double()), mixture.means)
    torch.testing.assert_close(mixture.reconstruct(x), mixture.posterior(x) @ mixture.means)
    ppca = PPCA(2, 1).double()
    assert ppca.encode(x).equal(ppca.posterior(x).mean)
    assert ppca.expectation().equal(ppca.decoder.mean)
    bits = VAE(
        Bernoulli(2),
        ConditionalBernoulli(nn.Linear(3, 2), 2, 3),
        Rescaled(Featured(nn.Linear(2, 4), ConditionalGaussian(nn.Linear(4, 3), 3, 4, FixedScale()), 2)),
    ).double()
    x = normal(generator, 6, 3)
    assert bits.encode(x).equal(bits.encoder.network(x).sigmoid())  # type: ignore[operator]
    assert bits.reconstruct(x).shape == (6, 3)
    draws = bits.decoder.sample(20_000, context=bits.encode(x)[0], generator=generator)
    assert ((draws.mean(0) - bits.reconstruct(x)[0]).abs() < 5 * draws.std(0) / math.sqrt(20_000)).all()


# ---------------------------------------------------------------------------------------------------------------------
# One check
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes whose tensors are searched for the dtype and device that their densities compute in."""
    found: list[str] = []
    original = density.contract.reference

    def reference(module: nn.Module) -> Tensor:
        found.append(type(module).__name__)
        return original(module)

    monkeypatch.setattr(density.contract, "reference", reference)
    return found


def test_a_call_looks_for_the_dtype_once(searches: list[str], generator: Generator) -> None:
    scaled = Rescaled(Rescaled(ConditionalGaussian(nn.Linear(3, 2), 2, 3, FixedScale())))
    x, context = torch.zeros(4, 2), torch.zeros(4, 3)
    for call in (
        lambda: scaled.log_prob(x, context),
        lambda: scaled(x, context),
        lambda: scaled.sample(2, context=context),
        lambda: scaled.sample_with_log_prob(2, context=context),
        lambda: scaled.expectation(context),
    ):
        call()
        assert searches == ["Rescaled"]
        searches.clear()
    StandardNormal(2).sample(3)
    assert searches == []


def test_a_training_step_looks_once_at_each_part(searches: list[str], generator: Generator) -> None:
    """The data against the prior, the encoder's context, the decoder's point and context."""
    from lvm.vae.gradients import AnalyticKL

    model = VAE.gaussian(3, 2, hidden=(4,))
    AnalyticKL()(model, torch.zeros(4, 3), generator)
    assert searches == ["StandardNormal", "ConditionalGaussian", "Rescaled"]


@pytest.mark.parametrize("part", ["prior", "encoder", "decoder"])
def test_a_part_of_another_dtype_is_named(part: str) -> None:
    model = VAE.gaussian(3, 2, hidden=(4,))
    getattr(model, part).double()
    name = {"prior": "VAE", "encoder": "ConditionalGaussian", "decoder": "Rescaled"}[part]
    for call in (model, model.elbo, lambda x: model.log_weights(x, 2)):
        with pytest.raises(
            TypeError, match=rf"^{name} computes in torch\.float64 on cpu; (x|context) is torch\.float32"
        ):
            call(torch.zeros(4, 3))


# ---------------------------------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------------------------------

NARROW = mlp(3, 2, (4,))


@pytest.mark.parametrize(
    ("density", "width"),
    [
        (ConditionalBernoulli(NARROW, 5, 3), 5),
        (ConditionalCategorical(NARROW, 5, 3), 5),
        (ConditionalGaussian(NARROW, 5, 3, FixedScale()), 5),
        (ConditionalGaussian(NARROW, 2, 3, NetworkScale()), 4),
        (HalfNormal(5, 3, NARROW), 5),
        (Featured(NARROW, real_nvp(2, 2, (4,), 7), 3), 7),
    ],
)
def test_a_network_of_another_width_is_one_clear_error(density: Density, width: int) -> None:
    x, context = torch.zeros(4, density.features), torch.zeros(4, 3)
    message = rf"^{type(density).__name__}.* expects its network to return \[n, {width}\].*; got \[4, 2\] for n = 4 \("
    for call in (lambda: density.log_prob(x, context), lambda: density.sample(2, context=context)):
        with pytest.raises(ValueError, match=message):
            call()
    if not isinstance(density, Featured):
        with pytest.raises(ValueError, match=message):
            density.expectation(context)


@pytest.mark.parametrize("family", [ConditionalBernoulli, ConditionalCategorical, ConditionalGaussian])
def test_a_network_may_be_free_of_parameters(family: type[Density], generator: Generator) -> None:
    density = family(nn.Flatten(-1), 2, 4 if family is ConditionalGaussian else 2).double()  # type: ignore[call-arg]
    context = normal(generator, 5, density.context_features)
    assert density.reference.dtype == torch.float64
    assert dict(density.state_dict()) == {}
    x, log_prob = density.sample_with_log_prob(3, context=context, generator=generator)
    torch.testing.assert_close(log_prob, density.log_prob(x, context))


def test_initialising_a_density_without_a_start_changes_nothing(generator: Generator) -> None:
    model = DiagonalGaussian(2).double()
    assert model.initialise(normal(generator, 5, 2)) is None
    assert not model.mean.any()
