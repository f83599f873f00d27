"""What lives on the ranges of surjections; and what layers refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from bridge.flow_vae import DeltaLink
from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain
from bridge.survae.dequantisation import UniformDequantisation, VariationalDequantisation
from bridge.survae.layered import LooseLayeredModel
from bridge.survae.permutations import Sort
from bridge.survae.ranges import HalfNormal, InverseSoftplus, Log, Spacings
from bridge.survae.surjections import Abs, Max, Slice
from density import Bernoulli, Categorical, StandardNormal
from flows import Flow, Logit, Transform, glow
from lvm import Link
from tests.laws.densities import density_laws
from tests.laws.density_case import DensityCase
from tests.laws.transforms import TransformCase, randomise, transform_laws

# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------

# Quadrature on a grid about the mean would step over the edge at 0: scipy is the oracle instead.
NOT_ON_A_GRID = {
    "mass_is_one",
    "samples_agree_with_log_prob",
    "expectation_is_the_mean",
    "log_prob_is_differentiable",
}


class Positive(DensityCase):
    def points(self, density: object, generator: Generator, *batch: int) -> Tensor:
        return super().points(density, generator, *batch).abs()  # type: ignore[arg-type]


@pytest.mark.parametrize("law", [law for law in density_laws if law.__name__ not in NOT_ON_A_GRID])
@pytest.mark.parametrize("context", [0, 3])
def test_half_normal_law(context: int, law: Callable[[DensityCase, Generator], None], generator: Generator) -> None:
    def oracle(density: object, x: Tensor, c: Tensor | None) -> float:
        assert isinstance(density, HalfNormal)
        return float(stats.halfnorm.logpdf(x.numpy(), scale=density.log_scale_at(c).detach().exp().numpy()).sum())

    law(Positive(lambda g: randomise(HalfNormal(2, context), g), oracle=oracle), generator)


def test_half_normal_draws(generator: Generator) -> None:
    density = randomise(HalfNormal(2), generator)
    x = density.sample(5000, generator=generator).detach().numpy()
    for j, scale in enumerate(density.log_scale.detach().exp().tolist()):
        assert stats.kstest(x[:, j], stats.halfnorm(scale=scale).cdf).pvalue > 1e-4
    outside = density.log_prob(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert outside.item() == -math.inf


def test_half_normal_expectation(generator: Generator) -> None:
    density = randomise(HalfNormal(2, 3), generator)
    context = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    scale = density.log_scale_at(context).detach().exp()
    expected = torch.as_tensor(stats.halfnorm.mean(scale=scale.numpy()))
    torch.testing.assert_close(density.expectation(context).detach(), expected)


TRANSFORMS = {
    "Log": TransformCase(lambda g: Log(), domain=lambda x: x.abs() + 0.01),
    "InverseSoftplus": TransformCase(lambda g: InverseSoftplus(), domain=lambda x: 3 * x.abs() + 0.01),
    "Spacings": TransformCase(lambda g: Spacings(3), domain=lambda x: (x.abs() + 0.05).cumsum(-1) - 2),
}


@pytest.mark.parametrize("law", transform_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_law(name: str, law: Callable[[TransformCase, Generator], None], generator: Generator) -> None:
    law(TRANSFORMS[name], generator)


def test_the_inverse_softplus_is_good_at_both_ends() -> None:
    x = torch.tensor([1e-12, 1e-3, 1.0, 30.0, 700.0], dtype=torch.float64)
    z, _ = InverseSoftplus()(x)
    torch.testing.assert_close(z[0].item(), math.log(1e-12), rtol=1e-12, atol=0)
    assert z[-1] == 700
    torch.testing.assert_close(InverseSoftplus().inverse(z)[0], x, rtol=1e-13, atol=0)


@pytest.mark.parametrize("transform", [Log(), InverseSoftplus()])
def test_an_inverse_stays_inside_however_far_out(transform: Transform) -> None:
    z = torch.tensor([[-1e4], [-200.0], [-90.0], [80.0], [3e38]])
    x, _ = transform.inverse(z)
    assert (x > 0).all()
    assert x.isfinite().all()
    transform.check_domain(x)
    assert transform(x)[1].isfinite().all()


def test_a_spacing_that_is_lost_in_rounding_has_no_density() -> None:
    """1 + e⁻⁴⁰ is 1 in float32: a tie, where the density tends to 0."""
    flow = Flow(StandardNormal(3), Spacings(3))
    x, _ = flow.transform.inverse(torch.tensor([[1.0, -40.0, 0.0]]))
    assert flow.log_prob(x) == -math.inf
    with pytest.raises(ValueError, match="where values tie, dequantise them"):
        flow.log_density(x)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Abs(2, [2]), r"Abs expects different columns in 0 ... 1, at least one; got \[2\]"),
        (lambda: Abs(2, [0, 0]), "Abs expects different columns"),
        (lambda: Abs(2, []), "Abs expects different columns"),
        (lambda: Abs(2, signs=Bernoulli(1)), "the sign model must be a density over 2 features; Bernoulli has 1"),
        (lambda: Abs(2, signs=StandardNormal(2)), "the sign model must be .* with respect to counting measure"),
        (lambda: Abs(0), "features must be a positive int"),
        (lambda: Slice(3, [3], StandardNormal(2)), r"Slice expects different columns in 0 ... 2.*got \[3\]"),
        (lambda: Slice(3, [-1], StandardNormal(2)), "Slice expects different columns"),
        (lambda: Slice(3, [], StandardNormal(3)), "Slice expects different columns"),
        (lambda: Slice(2, [1, 0], StandardNormal(1)), "Slice keeps all 2 columns"),
        (lambda: Slice(3, [0], StandardNormal(1)), "the rest must be a density over 2 features; StandardNormal has 1"),
        (
            lambda: Slice(3, [0], glow(2, 2, (4,), context_features=2)),
            "the rest is conditioned on 1 features or on none; Flow takes 2",
        ),
        (lambda: Max(1, 1), "groups of at least 2 features"),
        (lambda: Max(1, 3, StandardNormal(2)), r"a deficit is never negative, but StandardNormal takes -1"),
        (lambda: Max(1, 3, HalfNormal(3)), "the deficits' density must be a density over 2 features"),
        (lambda: Augmentation(2, Categorical(2)), "the extra part must be .* Lebesgue"),
        (lambda: Augmentation(2, glow(2, 2, (4,), context_features=3)), "conditioned on 2 features or on none"),
        (lambda: ReLU(2, HalfNormal(3)), "the deficits' density must be a density over 2 features; HalfNormal has 3"),
        (lambda: UniformDequantisation(2, levels=0), "levels must be a positive int"),
        (lambda: VariationalDequantisation(Bernoulli(2)), "the noise must be .* Lebesgue"),
        (lambda: HalfNormal(2, network=torch.nn.Linear(1, 2)), "no context_features to feed it"),
    ],
)
def test_a_layer_that_makes_no_sense_is_refused(make: Callable[[], Link], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Abs(2, signs=torch.nn.Linear(2, 2)),  # type: ignore[arg-type]
        lambda: Augmentation(2, None),  # type: ignore[arg-type]
        lambda: ReLU(2, StandardNormal(2)),  # type: ignore[arg-type]
        lambda: VariationalDequantisation(Abs(2)),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_density_is_refused(make: Callable[[], Link]) -> None:
    with pytest.raises(TypeError, match=r"must be a (Density|HalfNormal); got"):
        make()


@pytest.mark.parametrize(
    ("link", "x", "message"),
    [
        (UniformDequantisation(2), [[1.0, 0.5]], r"expects integers; the value at \[0, 1\] is 0.5"),
        (UniformDequantisation(2, levels=4), [[1.0, 4.0]], r"expects the levels 0 ... 3; the value at \[0, 1\] is 4"),
        (UniformDequantisation(2, levels=4), [[-1.0, 3.0]], "expects the levels"),
        (VariationalDequantisation(StandardNormal(2)), [[1.0, 0.5]], "expects integers"),
        (ReLU(2), [[-1.0, 3.0]], r"ReLU expects values x ≥ 0; the value at \[0, 0\] is -1"),
        (Slice(2, [1], HalfNormal(1)), [[-1.0, 3.0]], "HalfNormal expects values x ≥ 0"),
        (LinkChain(Abs(2), DeltaLink(Log(), 2)), [[0.0, 3.0]], "Log expects positive values"),
        (LinkChain(Abs(3), Slice(3, [2], Flow(StandardNormal(2), Logit()))), [[0.5, 2.0, 1.0]], r"Logit expects"),
    ],
)
def test_data_that_a_layer_cannot_explain(link: Link, x: list[list[float]], message: str) -> None:
    """Refused at the edge; inside, its log-ratio is −∞ and that of its neighbours as it was."""
    good = torch.tensor([[0.5, 0.25, 2.0][: link.features]])
    good = good if math.isfinite(link.infer_once(good)[1].item()) else torch.ones(1, link.features)
    link.check_support(good)
    with pytest.raises(ValueError, match=message):
        link.check_support(torch.tensor(x))
    z, log_ratio = link.infer(torch.cat([good, torch.tensor(x)]), 3)
    assert z.isfinite().all()
    assert (log_ratio[:, 1] == -math.inf).all()
    assert log_ratio[:, 0].isfinite().all()
    if link.deterministic:
        torch.testing.assert_close(log_ratio[:, 0], link.infer(good, 3)[1][:, 0])


def test_a_missing_value_has_no_density() -> None:
    model = LooseLayeredModel(StandardNormal(2), UniformDequantisation(2))
    values = model.elbo(torch.tensor([[math.nan, 1.0], [2.0, 1.0], [0.5, 1.0]]))
    assert values.isnan().tolist() == [True, False, False]
    assert values[2] == -math.inf


def test_a_link_refuses_what_is_no_point() -> None:
    with pytest.raises(ValueError, match=r"Abs expects x of shape \[\*batch, 3\]; got \[1, 2\]"):
        Abs(3).infer(torch.zeros(1, 2))
    with pytest.raises(TypeError, match="floating point"):
        Abs(2).infer(torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"Sort.generate expects x of shape \[\*batch, 2\]; got \[1, 3\]"):
        Sort(2).generate(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="draws must be a positive int"):
        Sort(2).infer(torch.zeros(1, 2), 0)


@pytest.mark.parametrize(
    ("transform", "x", "message"),
    [
        (Log(), [1.0, 0.0], r"Log expects positive values; the value at \[1\] is 0"),
        (InverseSoftplus(), [1.0, -2.0], r"InverseSoftplus expects positive values; the value at \[1\] is -2"),
        (Spacings(2), [1.0, 1.0], r"strictly increasing vectors; the difference of neighbours at \[0\] is 0"),
    ],
)
def test_a_point_outside_the_range_is_refused(transform: Log, x: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform.check_domain(torch.tensor(x))
