"""Likelihoods as descriptions: what a builder is told, and the densities and VAEs that are built of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    BernoulliLikelihood,
    Beta,
    CategoricalLevels,
    ConditionallyIndependent,
    ContinuousBernoulli,
    DiscretisedLogistic,
    GaussianLikelihood,
    GlobalScale,
    Independent,
    Laplace,
    Likelihood,
    LocationScaleT,
    LogitNormal,
    Measure,
    NegativeBinomial,
    Poisson,
    Recentred,
    Rescaled,
    StandardNormal,
    Training,
    ZeroInflated,
    kl,
    load,
    save,
)
from density.families.likelihoods import univariate
from lvm import VAE
from tests.cases.likelihoods import LIKELIHOODS
from tests.laws.density_case import DensityCase
from tests.laws.transforms import randomise

D = 6


def uniform(generator: Generator) -> Tensor:
    """A table [200, 6] of numbers in (0, 1) that one latent makes."""
    z = torch.randn(200, 1, generator=generator)
    return (z * torch.linspace(-2, 2, D) + 0.3 * torch.randn(200, D, generator=generator)).sigmoid()


def real(generator: Generator) -> Tensor:
    return 10 * uniform(generator).logit() + 50


def counted(generator: Generator) -> Tensor:
    return torch.poisson(20 * uniform(generator), generator=generator)


def on_levels(generator: Generator) -> Tensor:
    return (16 * uniform(generator)).round()


TABLES = {
    BernoulliLikelihood(): lambda g: uniform(g).round(),
    GaussianLikelihood(): real,
    GaussianLikelihood(GlobalScale(), standardise=False): lambda g: uniform(g).logit(),
    DiscretisedLogistic(17): on_levels,
    DiscretisedLogistic(17, mixtures=2): on_levels,
    CategoricalLevels(17): on_levels,
    ContinuousBernoulli(): uniform,
    Beta(): uniform,
    LogitNormal(): uniform,
    Laplace(): real,
    LocationScaleT(): real,
    LocationScaleT(degrees=4.0): real,
    Poisson(): counted,
    NegativeBinomial(): counted,
    ZeroInflated(Poisson()): counted,
    ZeroInflated(NegativeBinomial()): counted,
}


OFTEN = (  # the others differ from one of these by a line
    BernoulliLikelihood(),
    DiscretisedLogistic(17, mixtures=2),
    CategoricalLevels(17),
    ContinuousBernoulli(),
    Beta(),
    LocationScaleT(),
    ZeroInflated(NegativeBinomial()),
)
BUILT = [pytest.param(one, marks=() if one in OFTEN else pytest.mark.slow, id=repr(one)) for one in TABLES]


@pytest.mark.parametrize("likelihood", BUILT)
def test_a_vae_of_any_likelihood(likelihood: Likelihood, generator: Generator, tmp_path: Path) -> None:
    """It learns, its claim is finite and of its data's measure, its encoder sees numbers of size 1; it is saved."""
    x = TABLES[likelihood](generator)
    model = VAE.of(D, 1, likelihood, hidden=(16,))
    assert model.measure is likelihood.measure
    model.initialise(x)
    seen = x if (first := likelihood.encoder_input(D)) is None else model.encoder.network[0](x)  # type: ignore[index]
    assert first is None or seen.abs().max() <= (1 if isinstance(first, Recentred) else 6)
    before = model.elbo(x, draws=10, generator=generator).mean().item()
    model.fit(x, Training(epochs=10, batch_size=20, learning_rate=1e-2, progress=False), generator=generator)
    claim = model.log_density(x, draws=10, generator=generator)
    assert claim.value.isfinite().all()
    assert claim.mean > before + 0.05 * D
    assert claim.measure is not Measure.COUNTING or claim.value.max() < 0
    drawn = model.sample(50, generator=generator)
    model.decoder.check_support(drawn)
    if not isinstance(likelihood, LogitNormal):
        again = model.reconstruct(x)
        assert (again - x).abs().mean() < (x.mean(0) - x).abs().mean()
    save(model, path := tmp_path / "model.pt")
    assert load(path).decoder.log_prob(x, model.encode(x)).equal(model.decoder.log_prob(x, model.encode(x)))


def test_the_usual_ones_are_the_builders() -> None:
    """Equal parameters from equal seeds, by equal names."""
    for usual, likelihood in (
        (VAE.gaussian(3, 2, hidden=(4,)), GaussianLikelihood()),
        (VAE.bernoulli(3, 2, hidden=(4,), context_features=2), BernoulliLikelihood()),
    ):
        torch.manual_seed(1)
        of = VAE.of(3, 2, likelihood, hidden=(4,), context_features=usual.context_features)
        torch.manual_seed(1)
        usual = (VAE.gaussian if isinstance(likelihood, GaussianLikelihood) else VAE.bernoulli)(
            3, 2, hidden=(4,), context_features=usual.context_features
        )
        assert [name for name, _ in of.named_parameters()] == [name for name, _ in usual.named_parameters()]
        assert all(a.equal(b) for a, b in zip(of.state_dict().values(), usual.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "likelihood", [DiscretisedLogistic(17, 2), NegativeBinomial(), ContinuousBernoulli()], ids=repr
)
def test_given_a_context(likelihood: Likelihood, generator: Generator) -> None:
    """The encoder brings points to size 1 and leaves what is beside them."""
    x = TABLES[likelihood](generator)
    context = 100 + torch.randn(len(x), 2, generator=generator)
    model = VAE.of(D, 1, likelihood, hidden=(8,), context_features=2)
    model.fit(x, Training(epochs=1, progress=False), context=context, generator=generator)
    assert model.log_density(x, context=context, draws=5, generator=generator).value.isfinite().all()
    first = likelihood.encoder_input(D, beside=2)
    assert first is not None
    seen = first(torch.cat([x, context], -1))
    assert seen[:, D:].equal(context)
    assert seen[:, :D].equal(likelihood.encoder_input(D)(x))  # type: ignore[misc]


def test_every_model_has_a_scale_of_its_own() -> None:
    likelihood = GaussianLikelihood(GlobalScale())
    one, other = (likelihood.conditional(nn.Linear(1, 2), 2, 1) for _ in range(2))
    assert isinstance(one, Rescaled)
    assert isinstance(other, Rescaled)
    assert not {id(p) for p in one.density.scale.parameters()} & {id(p) for p in other.density.scale.parameters()}


def test_images_are_numbers_by_kind() -> None:
    """[n, numbers · channels, H, W]: the first number of all features, then the second, as a flat network has them."""
    likelihood = DiscretisedLogistic(17, 2)
    flat = nn.Linear(1, likelihood.numbers * 8)
    image = nn.Sequential(flat, nn.Unflatten(-1, (likelihood.numbers * 2, 2, 2)))
    x, z = torch.randint(0, 17, (5, 8)).float(), torch.randn(5, 1)
    one, other = (likelihood.conditional(network, 8, 1) for network in (flat, image))
    assert one.log_prob(x, z).equal(other.log_prob(x, z))
    by_feature = ConditionallyIndependent(nn.Identity(), 1, likelihood.numbers, likelihood)
    numbers = flat(z).reshape(5, likelihood.numbers, 8)
    apart = sum(by_feature.log_prob(x[:, [j]], numbers[..., j]) for j in range(8))
    torch.testing.assert_close(one.log_prob(x, z), apart)


def test_wide_decoders_take_blocks_of_rows(monkeypatch: pytest.MonkeyPatch, generator: Generator) -> None:
    """Equal values, with and without draws; where gradients are asked for, one pass."""
    density = ConditionallyIndependent(nn.Linear(2, 30), 2, 2, CategoricalLevels(15)).double()
    x = torch.randint(0, 15, (7, 2), generator=generator).double()
    z = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    rows: list[int] = []
    density.network.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    whole = density.log_prob(x, z)
    monkeypatch.setattr(univariate, "NUMBERS_AT_ONCE", 4 * 30)
    with torch.no_grad():
        torch.testing.assert_close(density.log_prob(x, z), whole.detach(), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(density.log_prob(x[0], z), density.log_prob(x[:1], z))
    assert rows[0] == 21
    assert max(rows[1:]) == 4


CLOSED = {name: case for name, case in LIKELIHOODS.items() if name in ("CategoricalLevels", "Poisson", "Laplace")}
CLOSED |= {"LogitNormal": LIKELIHOODS["LogitNormal"]}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_kl_is_the_sum_or_there_is_none(name: str, generator: Generator) -> None:
    case: DensityCase = LIKELIHOODS[name]
    q, p = case.make(generator), case.make(generator)
    context = case.context(q, generator)
    ours = kl(q, p, context)
    assert (ours is not None) is (name in CLOSED)
    if ours is None:
        return
    values, mass = case.masses(q, context, generator)
    terms = mass * (q.log_prob(values, context) - p.log_prob(values, context))
    # of the trapezoid rule at the kink of a Laplace density some 1e-5 is left
    torch.testing.assert_close(ours, terms.sum(), rtol=1e-4, atol=1e-5 if name == "Laplace" else 1e-9)
    assert kl(q, StandardNormal(q.features), context) is None


def test_grey_values_name_the_likelihoods_that_take_them(generator: Generator) -> None:
    model = VAE.bernoulli(D, 1, hidden=(4,))
    with pytest.raises(ValueError, match=r"distribution over \{0, 1\}.*ContinuousBernoulli of grey values in \[0, 1\]"):
        model.fit(uniform(generator))


@pytest.mark.parametrize("wrong", [DiscretisedLogistic, GaussianLikelihood(), "logistic", None])
def test_misuse_is_one_clear_error(wrong: object) -> None:
    for make in (
        lambda: Independent(2, wrong),  # type: ignore[arg-type]
        lambda: ConditionallyIndependent(nn.Linear(1, 2), 2, 1, wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=r"ndependent takes a family of one number, such as Discretised"):
            make()


def test_a_network_of_another_width_is_named() -> None:
    density = DiscretisedLogistic(4).conditional(nn.Linear(1, 3), 2, 1)
    text = (
        "ConditionallyIndependent of DiscretisedLogistic expects its network to return [n, 4] for n points, logits of "
        "the components if there are several, then locations, then log-scales, each of all features, or n events"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        density.log_prob(torch.zeros(2), torch.zeros(1))


@pytest.mark.parametrize("degrees", [1.0, 0.0, float("inf"), float("nan")])
def test_degrees_have_a_mean(degrees: float) -> None:
    with pytest.raises(ValueError, match="LocationScaleT expects finite degrees of freedom above 1, or None; got"):
        LocationScaleT(degrees=degrees)


def test_fixed_degrees_are_those() -> None:
    """Three numbers, of which the last says 4, and two."""
    learned, fixed = Independent(1, LocationScaleT()).double(), Independent(1, LocationScaleT(degrees=4.0)).double()
    learned, fixed = randomise(learned, Generator().manual_seed(0)), randomise(fixed, Generator().manual_seed(1))
    with torch.no_grad():
        fixed.raw.copy_(learned.raw[:2])
        learned.raw[2] = 7 * torch.atanh(torch.tensor(1 / 3, dtype=torch.float64).log() / 7)
    x = torch.randn(5, 1, dtype=torch.float64)
    torch.testing.assert_close(learned.log_prob(x), fixed.log_prob(x), rtol=1e-12, atol=1e-12)
