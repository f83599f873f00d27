"""Every layer keeps the contract of a link, every model of layers the laws of models with log-weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain
from bridge.survae.dequantisation import UniformDequantisation, VariationalDequantisation
from bridge.survae.layer import GenerativeSurjection, InferenceSurjection
from bridge.survae.permutations import Sort, StochasticPermutation
from bridge.survae.ranges import HalfNormal
from bridge.survae.surjections import Abs, Max, Slice
from density import Bernoulli, DiagonalGaussian, Measure, StandardNormal
from lvm import ExactLayeredModel, Link
from tests.cases.layered_models import LOOSE, TIGHT, LayeredCase
from tests.laws.bounds import BoundCase, bound_laws
from tests.laws.transforms import randomise

MODELS = TIGHT | LOOSE
CONTINUOUS = [name for name, case in MODELS.items() if not case.discrete and not case.atoms]


@pytest.mark.parametrize("law", bound_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_bound_law(name: str, law: Callable[[BoundCase, Generator], None], generator: Generator) -> None:
    model = MODELS[name].make(generator)
    if law.__name__ == "the_elbo_has_a_gradient_in_every_parameter" and not any(True for _ in model.parameters()):
        return
    law(MODELS[name], generator)


@pytest.mark.parametrize("name", TIGHT)
def test_a_tight_model_is_equal_to_the_other_means(
    name: str, generator: Generator, record_measurement: Callable[[str, float, float], None]
) -> None:
    case = TIGHT[name]
    model = case.make(generator)
    assert isinstance(model, ExactLayeredModel)
    x = case.points(model, generator, 40)
    with torch.no_grad():
        expected = case.truth(model, x)
        error = ((model.log_prob(x) - expected).abs() / expected.abs().clamp_min(1)).max().item()
    # Rounding 2e-16 times a few hundred operations.
    record_measurement("tight layers: log p(x) against closed forms, relative", error, 1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Mass and samples
# ---------------------------------------------------------------------------------------------------------------------


def unfolded(corner: Tensor, distance: Tensor, kind: str) -> list[tuple[Tensor, Tensor]]:
    """Pieces of the plane that a fold makes, each smooth in (corner, log distance), and their log-Jacobians."""
    a, t = corner, distance
    e = t.exp()
    if kind == "orthants":
        sizes = torch.stack([a.exp(), e], -1)
        signs = [torch.tensor([s, r], dtype=a.dtype) for s in (1.0, -1.0) for r in (1.0, -1.0)]
        return [(sign * sizes, a + t) for sign in signs]
    b = a + e if kind == "above" else a - e
    return [(torch.stack([a, b], -1), t), (torch.stack([b, a], -1), t)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("abs", "orthants"),
        ("abs, signs given z", "orthants"),
        ("abs on a flow", "orthants"),
        ("max", "below"),
        ("sort on a flow", "above"),
    ],
)
def test_mass_is_one(
    name: str, kind: str, generator: Generator, record_measurement: Callable[[str, float, float], None]
) -> None:
    """The trapezoid rule in coordinates in which every piece is smooth and dies out at the ends."""
    model = TIGHT[name].make(generator)
    assert isinstance(model, ExactLayeredModel)
    t = torch.linspace(-32, 12, 801, dtype=torch.float64)
    first = t if kind == "orthants" else torch.linspace(-20, 20, 801, dtype=torch.float64)
    corner, distance = (axis.flatten() for axis in torch.meshgrid(first, t, indexing="ij"))
    cell = float((t[1] - t[0]) * (first[1] - first[0]))
    with torch.no_grad():
        pieces = [model.log_prob(x) + jacobian for x, jacobian in unfolded(corner, distance, kind)]
    mass = torch.stack(pieces).exp().sum().item() * cell
    # The rule converges faster than any power: its error here is that of the tails, and of halving the grid.
    record_measurement("tight layers: mass one by quadrature", abs(mass - 1), 1e-6)


def bounded(x: Tensor) -> Tensor:
    """1, which asks for the mass, and functions that tell signs, orders, zeros and dependence."""
    signs, tanh = (x > 0).double(), x.tanh()
    products = (tanh.unsqueeze(-1) * tanh.unsqueeze(-2)).flatten(-2)
    orders = (x.unsqueeze(-1) > x.unsqueeze(-2)).double().flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), signs, tanh, products, orders], -1)


def proposal(case: LayeredCase, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """As many draws from Student's t of 5 degrees, which covers the points' density, and their log-densities."""
    mean, scale = x.mean(0), 1.3 * x.std(0)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    chi = torch.randn(5, *x.shape, generator=generator, dtype=x.dtype).square().mean(0)
    student = noise / chi.sqrt()
    if not case.atoms:
        return mean + scale * student, (torch.as_tensor(stats.t.logpdf(student.numpy(), 5)) - scale.log()).sum(-1)
    zero = torch.rand(x.shape, generator=generator, dtype=x.dtype) < 0.5
    y = (scale * student.abs()).masked_fill(zero, 0)
    positive = torch.as_tensor(stats.t.logpdf((y / scale).numpy(), 5)) + math.log(2) - scale.log()
    return y, torch.where(zero, torch.zeros_like(y), positive).sum(-1) + x.shape[-1] * math.log(0.5)


# On logarithms of spacings the density of x is too rough for a proposal.
@pytest.mark.parametrize("name", [n for n, case in MODELS.items() if not case.discrete and n != "abs, sort, log"])
def test_samples_have_the_density(name: str, generator: Generator) -> None:
    """Means over samples against means over a proposal, weighed by the density: by the other means, or the model's."""
    case, n = MODELS[name], 40_000
    model = case.make(generator)
    with torch.no_grad():
        x = model.sample(n, generator=generator)
        assert x.shape == (n, model.features)
        y, log_r = proposal(case, x, generator)
        # Row by row takes too long, and the model's own was seen to be equal.
        slow = case.log_p.__name__ in ("by_autograd", "maximum")
        log_p = model.log_weights(y, 1).squeeze(0) if slow else case.truth(model, y)
    ours, theirs = bounded(x), bounded(y) * (log_p - log_r).exp().unsqueeze(-1)
    error = torch.hypot(ours.std(0), theirs.std(0)) / math.sqrt(n)
    assert error.max() < 0.03, "the proposal is too far out to test anything"
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("name", [name for name, case in MODELS.items() if case.discrete])
def test_frequencies_are_the_masses(name: str, generator: Generator) -> None:
    case, n = MODELS[name], 40_000
    model = case.make(generator)
    with torch.no_grad():
        x = model.sample(n, generator=generator)
    values, counts = x.unique(dim=0, return_counts=True)
    mass = case.truth(model, values).exp()
    often = n * mass > 20
    assert often.sum() > 4
    surprise = (counts - n * mass)[often] / (n * mass * (1 - mass))[often].sqrt()
    assert surprise.abs().max() < 5


# ---------------------------------------------------------------------------------------------------------------------
# Links
# ---------------------------------------------------------------------------------------------------------------------


def start(name: str, generator: Generator, *batch: int) -> tuple[Link, Tensor, Tensor]:
    """A link, points and latents."""
    case = MODELS[name]
    model = case.make(generator)
    x = case.points(model, generator, *batch)
    with torch.no_grad():
        count = max(1, math.prod(batch))
        z = model.prior.sample(count, generator=generator).reshape(*batch, model.link.latent_features)
    return model.link, x, z


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODELS)
def test_shapes_dtypes_and_inputs(name: str, generator: Generator) -> None:
    for batch in ((), (4,), (2, 3)):
        link, x, z = start(name, generator, *batch)
        for dtype in (torch.float64, torch.float32):
            link = link.to(dtype)
            given, latent = x.to(dtype), z.to(dtype)
            kept = given.clone(), latent.clone()
            inferred, log_ratio = link.infer(given, 5, generator=generator)
            generated = link.generate(latent, generator=generator)
            assert inferred.shape == (5, *batch, link.latent_features)
            assert log_ratio.shape == (5, *batch)
            assert generated.shape == (*batch, link.features)
            for result in (inferred, log_ratio, generated):
                assert result.dtype == dtype
                assert result.isfinite().all()
            assert given.equal(kept[0])
            assert latent.equal(kept[1])


@pytest.mark.parametrize("name", MODELS)
def test_the_deterministic_direction_undoes_the_other(name: str, generator: Generator) -> None:
    link, x, z = start(name, generator, 50)
    if name in TIGHT:
        again, _ = link.infer(link.generate(z, generator=generator), 3)
        # A sum of spacings rounds at 1e-16 of the sum, and its logarithm at that over the spacing, 1e-4 or so.
        tolerance = 1e-9 if "sort" in name else 1e-11
        torch.testing.assert_close(again, z.expand(3, *z.shape), rtol=tolerance, atol=tolerance)
        assert isinstance(link, InferenceSurjection | LinkChain)
        assert link.tight
        assert link.deterministic
    if isinstance(link, GenerativeSurjection):
        inferred, _ = link.infer(x, 30, generator=generator)
        assert link.generate(inferred).equal(x.expand(30, *x.shape))
        assert not link.tight
        assert not link.deterministic
    if isinstance(link, StochasticPermutation):
        inferred, log_ratio = link.infer(x, 30, generator=generator)
        assert inferred.sort(-1).values.equal(x.sort(-1).values.expand(30, 50, 3))
        assert log_ratio.eq(0).all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradients_pass_both_ways(name: str, generator: Generator) -> None:
    """Against differences, with the draws held fixed; in the point and in every parameter."""
    link, x, z = start(name, generator, 3)
    parameters = [p for p in link.parameters() if p.numel()]

    def infer(x: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return link.infer(x, 2, generator=seeded())

    def generate(z: Tensor, *_: Tensor) -> Tensor:
        return link.generate(z, generator=seeded())

    assert torch.autograd.gradcheck(infer, (x.requires_grad_(), *parameters))
    drawn_only = "signs" in name or name in ("abs of one column", "max", "max of groups, given z")
    if not drawn_only:  # signs and indices are drawn from probabilities: no path leads to those
        assert torch.autograd.gradcheck(generate, (z.requires_grad_(), *parameters))
    else:
        assert torch.autograd.gradcheck(generate, (z.requires_grad_(),))
    assert torch.autograd.grad(generate(z).sum(), z)[0].abs().sum() > 0


def test_the_paths_of_drawn_parts_reach_their_parameters(generator: Generator) -> None:
    z = torch.ones(4, 2, dtype=torch.float64)
    link = randomise(Max(2, 3), generator)
    assert isinstance(link.deficits, HalfNormal)
    (gradient,) = torch.autograd.grad(link.generate(z, generator=generator).sum(), link.deficits.log_scale)
    assert (gradient != 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_drawn_from_the_global_generator(name: str, generator: Generator) -> None:
    link, x, z = start(name, generator, 6)
    before = torch.get_rng_state()
    first = link.infer(x, 4, generator=seeded())
    second = link.infer(x, 4, generator=seeded())
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])
    assert link.generate(z, generator=seeded()).equal(link.generate(z, generator=seeded()))
    assert torch.get_rng_state().equal(before)
    if link.deterministic:
        assert first[0].equal(link.infer(x, 4)[0])
    else:
        assert first[0].std(0).sum() > 0 or x.min() > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_and_a_state_dict_hold_everything(name: str, generator: Generator) -> None:
    link, x, _ = start(name, generator, 6)
    twin, _, _ = start(name, seeded(7), 6)
    expected = link.infer(x, 2, generator=seeded())
    twin.load_state_dict(link.state_dict())
    for same in (twin, deepcopy(link)):
        z, log_ratio = same.infer(x, 2, generator=seeded())
        assert z.equal(expected[0])
        assert log_ratio.equal(expected[1])


@pytest.mark.parametrize(
    ("link", "measures"),
    [
        (Abs(2), (Measure.LEBESGUE, Measure.LEBESGUE)),
        (Max(1, 2), (Measure.LEBESGUE, Measure.LEBESGUE)),
        (Sort(2), (Measure.LEBESGUE, Measure.LEBESGUE)),
        (Slice(2, [0], StandardNormal(1)), (Measure.LEBESGUE, Measure.LEBESGUE)),
        (Slice(2, [0], Bernoulli(1)), (Measure.COUNTING, Measure.COUNTING)),
        (Augmentation(2, StandardNormal(1)), (Measure.LEBESGUE, Measure.LEBESGUE)),
        (StochasticPermutation(2, Measure.COUNTING), (Measure.COUNTING, Measure.COUNTING)),
        (UniformDequantisation(2), (Measure.COUNTING, Measure.LEBESGUE)),
        (VariationalDequantisation(StandardNormal(2)), (Measure.COUNTING, Measure.LEBESGUE)),
        (ReLU(2), (Measure.RECTIFIED, Measure.LEBESGUE)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_says_how_it_changes_the_measure(link: Link, measures: tuple[Measure, Measure]) -> None:
    assert (link.measure, link.latent_measure) == measures


def test_rounding_stays_in_its_cell_in_single_precision() -> None:
    """A billion draws would reach the edges; here the noise is put there."""
    x = torch.arange(256.0).unsqueeze(1)
    for edge in (-200.0, 200.0):
        noise = DiagonalGaussian(1)
        with torch.no_grad():
            noise.mean.fill_(edge)
        z, log_ratio = VariationalDequantisation(noise, levels=256).infer(x, 3)
        assert z.floor().equal(x.expand(3, 256, 1))
        assert (z > 0).all()
        assert log_ratio.isfinite().all()


def test_signs_and_indices_that_are_learned_say_so() -> None:
    """A link whose sign model knows the answer costs nothing; fair coins cost log 2."""
    signs = Bernoulli(1)
    with torch.no_grad():
        signs.logits.fill_(50.0)
    x = torch.tensor([[2.0]])
    assert Abs(1, signs=signs).infer(x)[1].item() == pytest.approx(0, abs=1e-9)
    assert Abs(1).infer(x)[1].item() == pytest.approx(-math.log(2))
    for best in range(3):
        link = Max(1, 3)
        assert isinstance(link.deficits, HalfNormal)
        with torch.no_grad():
            link.index_logits[0, best] = 50.0
            link.deficits.log_scale.copy_(torch.tensor([-9.0, 9.0]))  # the first of the others is near, the second far
        drawn = link.generate(torch.zeros(100, 1))
        near, far = (place for place in range(3) if place != best)
        assert drawn[:, best].eq(0).all()
        assert drawn[:, near].abs().max() < 0.01
        assert drawn[:, far].median() < -100
