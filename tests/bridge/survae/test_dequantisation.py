"""Dequantised densities against masses in closed form: how loose, from which side, and what each bound learns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from bridge import Augmentation, Max, UniformDequantisation, VariationalDequantisation, layered
from bridge.survae.dequantisation import Dequantisation
from density import DiagonalGaussian, Kind, Measure, StandardNormal, Training, load, save
from flows import Affine, Flow, OnFeatures, convolutional_network, glow, image_flow, on_box, real_nvp
from lvm import PPCA, VAE, LinkedModel
from lvm.evidence import sandwich, weighted_sandwich
from tests.cases.layered_models import LOOSE, broad

SIGMAS = 4.5
SCALE = 1.0  # standard deviation of a pixel, in levels


def standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(values.numel()))


def log_cells(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """log P(x) ``[*batch]`` of independent normal numbers, rounded down."""
    normal = torch.distributions.Normal(mean, std)
    return (normal.cdf(x + 1) - normal.cdf(x)).log().sum(-1)


def image_model() -> Flow:
    """A multi-scale flow at its start, which is a rotation of its base, under pixels of SCALE levels."""
    flow = image_flow((1, 4, 4), 2, 2, lambda i, o: convolutional_network(i, o, (4,)), base=StandardNormal).double()
    return Flow(flow, Affine(0.0, SCALE))


def test_the_bounds_of_an_image_flow_are_off_by_what_is_known(generator: Generator) -> None:
    """Uniform noise costs log P(x) − E log p(x + u), a polynomial of the ends; importance weights take it away."""
    model = layered(image_model(), UniformDequantisation(16)).double()
    x = (SCALE * torch.randn(8, 16, generator=generator, dtype=torch.float64)).floor()
    with torch.no_grad():
        log_weights = model.log_weights(x, 2000, generator=generator)
    low, high = x / SCALE, (x + 1) / SCALE
    expected = -((high**3 - low**3) / (high - low) / 6 + 0.5 * math.log(2 * math.pi) + math.log(SCALE)).sum(-1)
    error = log_weights.std(0) / math.sqrt(2000)
    assert ((log_weights.mean(0) - expected).abs() <= SIGMAS * error).all()
    mass = log_cells(x, std=SCALE)
    assert ((mass - expected) > 10 * error).all()
    claim = model.log_density(x, draws=2000, generator=generator)
    assert claim.kind is Kind.LOWER
    assert claim.monte_carlo_error is not None
    assert ((claim.value - mass).abs() <= SIGMAS * claim.monte_carlo_error + 0.01).all()


@pytest.mark.parametrize("draws", [2, 20])
def test_a_sandwich_has_the_mass_inside(draws: int, generator: Generator) -> None:
    model = layered(image_model(), UniformDequantisation(16)).double()
    both = weighted_sandwich(model, 2000, draws=draws, generator=generator)
    mass = log_cells(both.x, std=SCALE)
    below, above = mass - both.lower.value, both.upper.value - mass
    for side in (below, above):  # by about half the weights' relative variance over the number of draws
        assert SIGMAS * standard_error(side) < float(side.mean()) < 2.0 / draws
    assert both.width.kind is Kind.UPPER
    assert both.lower.measure is both.upper.measure is model.measure
    repeated = model.log_density(both.x, draws=draws, generator=generator)
    assert abs(float((repeated.value - both.lower.value).mean())) < SIGMAS * standard_error(
        repeated.value - both.lower.value
    )


@pytest.mark.parametrize("name", ["uniform dequantisation", "variational dequantisation", "abs of rounded"])
def test_inverse_weights_at_exact_draws_average_to_the_inverse_mass(name: str, generator: Generator) -> None:
    """E p(x)/w = ∫ q(z|x) dz = 1 for z of the posterior, whatever the noise."""
    model = LOOSE[name].make(generator)
    with torch.no_grad():
        z = model.prior.sample(20_000, generator=generator)
        x, log_ratio = model.link.simulate(z, generator=generator)
        inverse = (LOOSE[name].truth(model, x) - model.prior.log_prob(z) - log_ratio).exp()
    assert standard_error(inverse) < 0.05
    assert abs(float(inverse.mean()) - 1) < SIGMAS * standard_error(inverse)


def test_a_sandwich_of_weights_agrees_with_that_of_annealing(generator: Generator) -> None:
    """On a VAE, whose link is stochastic, and on PPCA, where q is the posterior and both sides are log p(x)."""
    torch.manual_seed(0)
    model = VAE.bernoulli(6, 2, hidden=(8,)).double()
    ours = weighted_sandwich(model, 100, draws=300, generator=generator)
    theirs = sandwich(model, 100, steps=10, chains=8, generator=generator)
    for one in (ours, theirs):
        assert -SIGMAS * one.standard_error < one.mean_width < 0.1
    ppca = PPCA(3, 1).double()
    exact = weighted_sandwich(ppca, 20, draws=3, generator=generator)
    torch.testing.assert_close(exact.lower.value, ppca.log_prob(exact.x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(exact.upper.value, exact.lower.value, rtol=1e-9, atol=1e-9)


def test_what_has_no_sandwich_says_why(generator: Generator) -> None:
    with pytest.raises(TypeError, match="takes a model of a prior and links; got StandardNormal"):
        weighted_sandwich(StandardNormal(2), 5)  # type: ignore[arg-type]
    loose = layered(StandardNormal(3), Augmentation(1, DiagonalGaussian(2)))
    with pytest.raises(TypeError, match=r"Augmentation draws latents, and does not say log q\(z\|x\) of one"):
        weighted_sandwich(loose, 5)
    outside = layered(DiagonalGaussian(2), UniformDequantisation(2, levels=2))
    with pytest.raises(ValueError, match=r"the levels 0 \.\.\. 1"):
        weighted_sandwich(outside, 50, generator=generator)
    with pytest.raises(ValueError, match="takes an unconditional model"):
        weighted_sandwich(VAE.gaussian(3, 2, context_features=2), 5)
    tight = layered(DiagonalGaussian(1), Max(1, 2))
    assert weighted_sandwich(tight, 5, draws=2, generator=generator).mean_width == pytest.approx(0, abs=1e-6)


def test_importance_weights_learn_the_mass_and_one_draw_the_density_of_noisy_levels(generator: Generator) -> None:
    """A normal number rounded to 0 and 1, three times as often: the ELBO of uniform noise ends at the moments of x + u;
    the bound of many draws near maximum likelihood of the masses, which has any P(1)/P(0) as σ falls.
    """
    x = torch.tensor([[0.0], [1.0], [1.0], [1.0]]).double().repeat(25, 1)
    training = Training(epochs=150, batch_size=None, learning_rate=0.05, validation=0, progress=False)
    values = {}
    for weighted in (False, True):
        model = layered(DiagonalGaussian(1), UniformDequantisation(1)).double()
        model.fit(x, training, draws=128, importance_weighted=weighted, generator=generator)
        prior = model.prior
        assert isinstance(prior, DiagonalGaussian)
        values[weighted] = float(log_cells(x, prior.mean.item(), prior.log_std.exp().item()).mean())
        if not weighted:
            assert prior.mean.item() == pytest.approx(1.25, abs=0.02)
            assert prior.log_std.exp().item() == pytest.approx(math.sqrt(3 / 16 + 1 / 12), rel=0.03)
    entropy = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert values[False] < values[True] - 0.05
    assert entropy - 0.05 < values[True] < entropy


def test_the_importance_weighted_bound_of_one_draw_is_the_elbo() -> None:
    x = torch.randint(3, (40, 2), generator=Generator().manual_seed(0)).double()
    fits = []
    for weighted in (False, True):
        torch.manual_seed(0)
        noise = DiagonalGaussian(2)
        model = layered(DiagonalGaussian(2), VariationalDequantisation(noise)).double()
        settings = Training(epochs=3, progress=False)
        history = model.fit(x, settings, importance_weighted=weighted, generator=Generator().manual_seed(1))
        fits.append((history.objective, model.state_dict()))
    assert fits[0][0] == pytest.approx(fits[1][0], rel=1e-12)
    for name, tensor in fits[0][1].items():
        torch.testing.assert_close(tensor, fits[1][1][name], rtol=1e-9, atol=1e-12)


def standard_normal(model: LinkedModel, x: Tensor) -> Tensor:
    """log-density of the real column and log-masses of the others of a standard normal prior, columns 0 and 2."""
    return -0.5 * x[:, 1].square() - 0.5 * math.log(2 * math.pi) + log_cells(x[:, [0, 2]])


@pytest.mark.parametrize("kind", ["uniform", "variational"])
def test_some_columns_are_rounded_and_the_others_pass(kind: str, generator: Generator) -> None:
    """The weights' mean is mass times density; the measure says of which columns which."""
    link: Dequantisation = UniformDequantisation(3, columns=[2, 0])
    if kind == "variational":
        torch.manual_seed(0)
        link = VariationalDequantisation(broad(2, 3, 1.7), columns=[2, 0], features=3)
    model = layered(DiagonalGaussian(3), link).double()
    assert model.measure == link.measure
    assert link.measure.value == "counting (columns 0, 2) × Lebesgue (column 1)"
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    x[:, [0, 2]] = x[:, [0, 2]].floor()
    z, _ = link.infer(x, 4, generator=generator)
    assert (z[..., 1] == x[:, 1]).all()
    assert (z[..., [0, 2]].floor() == x[:, [0, 2]]).all()
    assert (z[..., [0, 2]] != x[:, [0, 2]]).all()
    assert (model.link.generate(z) == x).all()
    with torch.no_grad():
        relative = (model.log_weights(x, 20_000, generator=generator) - standard_normal(model, x)).exp()
        error = relative.std(0) / math.sqrt(20_000)
        assert (error < 0.05).all()
        assert ((relative.mean(0) - 1).abs() < SIGMAS * error).all()
        z = model.prior.sample(20_000, generator=generator)
        points, log_ratio = link.simulate(z)
        inverse = (standard_normal(model, points) - model.prior.log_prob(z) - log_ratio).exp()
        assert abs(float(inverse.mean()) - 1) < SIGMAS * standard_error(inverse) < 0.3
    claim = model.log_density(x, draws=10, generator=generator)
    with pytest.raises(ValueError, match="bits"):
        claim.bits_per_dimension(3)
    with pytest.raises(ValueError, match="different units"):
        claim - DiagonalGaussian(3).double().log_density(x)


def test_columns_may_have_levels_of_their_own() -> None:
    link = UniformDequantisation(3, levels=[2, 5], columns=[0, 2])
    inside = torch.tensor([[1.0, -3.5, 4.0]])
    link.check_support(inside)
    for column, value in ((0, 2.0), (2, 5.0), (0, 0.5), (2, -1.0)):
        outside = inside.clone()
        outside[0, column] = value
        with pytest.raises(ValueError, match=r"integers from 0, fewer than 2, 5, in columns 0, 2; the value at \[0, "):
            link.check_support(outside)
        assert link.infer_once(outside)[1].item() == -math.inf
    noise = VariationalDequantisation(glow(2, 2, (4,), 3), levels=[2, 5], columns=[0, 2], features=3)
    torch.testing.assert_close(noise._context(inside), torch.tensor([[0.5, -3.5, 0.8]]))
    assert UniformDequantisation(2).measure is UniformDequantisation(2, columns=[1, 0]).measure is Measure.COUNTING


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UniformDequantisation(3, columns=[]), "UniformDequantisation expects different columns in 0 ... 2"),
        (lambda: UniformDequantisation(3, columns=[3]), "UniformDequantisation expects different columns in 0 ... 2"),
        (lambda: UniformDequantisation(3, levels=[2, 2]), "rounds 3 columns; got the levels of 2"),
        (lambda: VariationalDequantisation(glow(3, 2), columns=[0, 1], features=3), "a density over 2 features"),
        (lambda: VariationalDequantisation(broad(2, 2), columns=[0, 1], features=3), "conditioned on 3 features"),
    ],
)
def test_columns_that_do_not_fit_are_named(make: Callable[[], Dequantisation], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_a_table_with_rounded_columns_is_fitted_and_saved(tmp_path: Path, generator: Generator) -> None:
    x = torch.randn(200, 3, generator=generator)
    x[:, 0] = (x[:, 0] > 0).float()
    torch.manual_seed(0)
    noise = glow(1, 2, (4,), 3)
    model = layered(Flow(real_nvp(3, 2, (4,)), OnFeatures(3, [0], on_box(0.0, 2.0))),
                    VariationalDequantisation(noise, 2, [0], 3))  # fmt: skip
    before = model.initialise(x) or model.elbo(x, generator=seeded()).mean()
    model.fit(x, Training(epochs=3, progress=False), generator=generator)
    after = model.elbo(x, generator=seeded()).mean()
    assert before < after
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.measure == model.measure
    assert again.elbo(x, generator=seeded()).mean() == after
    assert set(model.sample(50, generator=generator)[:, 0].tolist()) == {0.0, 1.0}


def seeded() -> Generator:
    return Generator().manual_seed(1)
