"""Builders of flows: what they refuse, how they start, what reaches their density."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator
from torch.distributions import Normal

import flows
from density import Bernoulli, StandardNormal, Training
from flows import (
    AffineCoupling,
    Flow,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    glow,
    iaf,
    maf,
    neural_spline_flow,
    real_nvp,
)
from tests.cases.flows import conditional_base
from tests.cases.transforms import CONTEXT, NARROW, vector
from tests.laws.transforms import randomise


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Flow(StandardNormal(2), LULinear(3)), ValueError, r"StandardNormal has 2 features.*LULinear has 3"),
        (
            lambda: Flow(conditional_base(3), GaussianAutoregressive(2, context_features=1)),
            ValueError,
            r"takes 3 context features.*takes 1",
        ),
        (lambda: Flow(LULinear(2), StandardNormal(2)), TypeError, "base Density and a Transform, in this order"),
        (lambda: Flow(Bernoulli(2), LULinear(2)), ValueError, "Bernoulli is discrete"),
        (
            lambda: real_nvp(1),
            ValueError,
            "real_nvp couples features and needs at least 2; got 1. For one feature use a spline, Flow",
        ),
        (lambda: glow(1), ValueError, "glow couples features"),
        (lambda: real_nvp(3, layers=1), ValueError, "needs at least 2 layers"),
        (lambda: maf(0), ValueError, "^maf: features must be a positive int"),
        (lambda: iaf(2, layers=0), ValueError, "^iaf: layers must be a positive int"),
        (lambda: glow(2.0), ValueError, "^glow: features must be a positive int"),
        (lambda: maf(2, hidden=(8, 0)), ValueError, r"hidden\[1\] must be a positive int"),
        (lambda: real_nvp(2, hidden=(-1,)), ValueError, r"hidden\[0\] must be a positive int"),
    ],
)
def test_construction_refuses(build: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("build", [real_nvp, glow, maf, iaf])
def test_architectures_start_as_a_standard_normal(build: Callable[..., Flow], generator: Generator) -> None:
    flow = build(5, 3, NARROW).double()
    x = torch.stack([vector(generator, 5) for _ in range(9)])
    # Glow's rotations are built in float32.
    torch.testing.assert_close(flow.log_prob(x), StandardNormal(5).double().log_prob(x), rtol=0, atol=1e-5)


def test_glows_rotations_come_from_the_generator() -> None:
    one, two = (glow(3, 2, NARROW, generator=Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(one.transform.modules(), two.transform.modules(), strict=True):
        if isinstance(a, LULinear) and isinstance(b, LULinear):
            assert a.matrix().equal(b.matrix())
            q = a.matrix().double()
            torch.testing.assert_close(q @ q.T, torch.eye(3, dtype=q.dtype), rtol=0, atol=1e-5)
            assert torch.linalg.det(q) > 0
            assert (q - torch.eye(3)).abs().max() > 0.1


@pytest.mark.parametrize("build", [real_nvp, glow, maf, iaf])
def test_every_feature_and_the_context_reach_the_density(build: Callable[..., Flow], generator: Generator) -> None:
    flow = randomise(build(4, 2, NARROW, CONTEXT), generator)
    x, context = vector(generator, 4).requires_grad_(), vector(generator, CONTEXT).requires_grad_()
    by_x, by_context = torch.autograd.grad(flow.log_prob(x, context), [x, context])
    assert (by_x != 0).all()
    assert (by_context != 0).all()


def test_iaf_is_maf_the_other_way_round() -> None:
    assert any(isinstance(module, Inverse) for module in iaf(2, 2, NARROW).modules())
    orders = [
        module.order.tolist() for module in maf(3, 2, NARROW).modules() if isinstance(module, GaussianAutoregressive)
    ]
    assert orders == [[0, 1, 2], [2, 1, 0]]
    masks = [module.mask.tolist() for module in real_nvp(3, 2, NARROW).modules() if isinstance(module, AffineCoupling)]
    assert masks == [[True, False, True], [False, True, False]]


def test_what_couplings_advise_for_one_feature(generator: Generator, record_measurement: Callable[..., None]) -> None:
    """Two peaks at ±3 of width 0.3: the spline of the message follows them, and a Gaussian is 1.5 nats worse."""
    with pytest.raises(ValueError, match="For one feature use a spline, ") as error:
        neural_spline_flow(1)
    advice = str(error.value).partition("use a spline, ")[2].partition(", or for a Gaussian")[0]
    spline = eval(advice, {**vars(flows), "StandardNormal": StandardNormal})
    side = 2.0 * torch.randint(0, 2, (1000, 1), generator=generator) - 1
    x = 3 * side + 0.3 * torch.randn(1000, 1, generator=generator)
    spline.fit(x, Training(epochs=30, learning_rate=0.1, progress=False), generator=generator)
    gaussian = maf(1)
    gaussian.fit(x, Training(epochs=30, progress=False), generator=generator)
    truth = torch.logaddexp(*(Normal(mean, 0.3).log_prob(x) for mean in (-3.0, 3.0))).mean().item() - math.log(2)
    assert abs(truth + 0.912) < 0.06
    record_measurement("spline of one feature, nats below the truth", truth - spline.log_density(x).mean, 0.05)
    assert spline.log_density(x).mean > gaussian.log_density(x).mean + 1.5
