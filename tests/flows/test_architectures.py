"""Builders of flows: what they refuse, how they start, what reaches their density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, nn
from torch.distributions import Normal

from density import Bernoulli, DiagonalGaussian, StandardNormal, Training
from flows import (
    AffineCoupling,
    Autoregressive,
    Coupling,
    Flow,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    Permutation,
    first_half,
    glow,
    halves,
    iaf,
    maf,
    neural_spline_flow,
    random_masks,
    random_orders,
    random_rotation,
    real_nvp,
    spline_maf,
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
        (lambda: real_nvp(3, layers=1), ValueError, "needs at least 2 layers"),
        (lambda: spline_maf(3, layers=0), ValueError, "^spline_maf: layers must be a positive int"),
        (lambda: real_nvp(4, masks=first_half), ValueError, "real_nvp: feature 0 passes all 8 couplings"),
        (
            lambda: real_nvp(2, masks=lambda d, k: [True]),
            ValueError,
            "real_nvp expects masks of its 2 features; that of layer 0 has 1",
        ),
        (lambda: glow(2, dropout=1.0), ValueError, r"expects a dropout rate in \[0, 1\); got 1.0"),
        (lambda: maf(2, dropout=-0.1), ValueError, r"^MaskedMLP expects a dropout rate in \[0, 1\); got -0.1"),
        (lambda: maf(3, base=StandardNormal(2)), ValueError, "StandardNormal has 2 features"),
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


BUILDERS = [real_nvp, glow, neural_spline_flow, maf, iaf, spline_maf]


@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.parametrize("build", BUILDERS)
def test_architectures_start_as_their_base(build: Callable[..., Flow], features: int, generator: Generator) -> None:
    base = DiagonalGaussian(features)
    with torch.no_grad():
        base.mean += 1
        base.log_std += 0.5
    x = torch.stack([vector(generator, features) for _ in range(9)])
    for made in (base, lambda d: base):
        flow = build(features, 3, NARROW, base=made).double()
        assert flow.base is base
        torch.testing.assert_close(flow.log_prob(x), base.log_prob(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("build", BUILDERS)
def test_every_feature_and_the_context_reach_the_density(
    build: Callable[..., Flow], features: int, context: int, generator: Generator
) -> None:
    flow = randomise(build(features, 2, NARROW, context), generator)
    x = vector(generator, features).requires_grad_()
    given = [vector(generator, context).requires_grad_()] if context else []
    for gradient in torch.autograd.grad(flow.log_prob(x, *given), [x, *given]):
        assert (gradient != 0).all()


def layers_of(flow: Flow, kind: type[nn.Module]) -> list[Any]:
    return [module for module in flow.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("build", [glow, neural_spline_flow])
def test_linear_layers_start_as_the_identity_or_as_asked(build: Callable[..., Flow]) -> None:
    assert all(layer.matrix().equal(torch.eye(3)) for layer in layers_of(build(3, 2, NARROW), LULinear))
    assert layers_of(build(3, 2, NARROW, linear=None), LULinear) == []
    assert layers_of(build(1, 2, NARROW), LULinear) == []
    kept = build(3, 2, NARROW, linear=lambda features: Permutation([2, 0, 1]))
    assert [layer.order.tolist() for layer in layers_of(kept, Permutation)] == [[2, 0, 1]] * 2


@pytest.mark.parametrize("build", [glow, neural_spline_flow, real_nvp, maf, iaf, spline_maf])
def test_rotations_come_from_their_generator(build: Callable[..., Flow]) -> None:
    one, two = (
        layers_of(build(3, 2, NARROW, linear=random_rotation(Generator().manual_seed(3))), LULinear) for _ in range(2)
    )
    assert len(one) == 2
    for a, b in zip(one, two, strict=True):
        assert a.matrix().equal(b.matrix())
        q = a.matrix().double()
        torch.testing.assert_close(q @ q.T, torch.eye(3, dtype=q.dtype), rtol=0, atol=1e-5)
        assert torch.linalg.det(q) > 0
        assert (q - torch.eye(3)).abs().max() > 0.1


@pytest.mark.parametrize("build", [real_nvp, glow, neural_spline_flow])
def test_masks_of_couplings(build: Callable[..., Flow]) -> None:
    def masks(**arguments: object) -> list[list[bool]]:
        return [layer.mask.tolist() for layer in layers_of(build(3, 4, NARROW, **arguments), Coupling)]

    even, odd = [True, False, True], [False, True, False]
    assert masks() == [even, odd, even, odd]
    assert masks(masks=halves) == [[True, False, False], [False, True, True]] * 2
    assert masks(masks=first_half, linear=LULinear) == [[True, False, False]] * 4
    drawn = masks(masks=random_masks(Generator().manual_seed(1)))
    assert drawn == masks(masks=random_masks(Generator().manual_seed(1)))
    assert drawn != masks(masks=random_masks(Generator().manual_seed(3)))
    for first, second in (drawn[:2], drawn[2:]):
        assert sum(first) == 1
        assert [not passes for passes in first] == second


@pytest.mark.parametrize("build", [maf, iaf, spline_maf])
def test_orders_of_autoregressions(build: Callable[..., Flow]) -> None:
    def orders(**arguments: object) -> list[list[int]]:
        return [layer.order.tolist() for layer in layers_of(build(3, 4, NARROW, **arguments), Autoregressive)]

    assert orders() == [[0, 1, 2], [2, 1, 0]] * 2
    drawn = orders(orders=random_orders(Generator().manual_seed(1)))
    assert drawn == orders(orders=random_orders(Generator().manual_seed(1)))
    assert drawn[0] == drawn[1][::-1]
    assert drawn[2] == drawn[3][::-1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("build", BUILDERS)
def test_activation_and_dropout_reach_every_network(build: Callable[..., Flow], generator: Generator) -> None:
    flow = randomise(build(3, 2, NARROW, activation=nn.ReLU, dropout=0.5), generator)
    assert len(layers_of(flow, nn.ReLU)) == len(layers_of(flow, nn.Dropout)) == 2 * len(NARROW)
    assert layers_of(flow, nn.Tanh) == []
    assert layers_of(build(3, 2, NARROW), nn.Dropout) == []
    x = torch.stack([vector(generator, 3) for _ in range(9)])
    assert not flow.log_prob(x).equal(flow.log_prob(x))
    flow.eval()
    z, log_det = flow.transform(x)
    back, log_det_back = flow.transform.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-9)
    without = build(3, 2, NARROW, activation=nn.ReLU).double()
    without.load_state_dict(dict(zip(without.state_dict(), flow.state_dict().values(), strict=True)))
    assert without.log_prob(x).equal(flow.log_prob(x))


def test_iaf_is_maf_the_other_way_round() -> None:
    assert any(isinstance(module, Inverse) for module in iaf(2, 2, NARROW).modules())
    orders = [
        module.order.tolist() for module in maf(3, 2, NARROW).modules() if isinstance(module, GaussianAutoregressive)
    ]
    assert orders == [[0, 1, 2], [2, 1, 0]]
    masks = [module.mask.tolist() for module in real_nvp(3, 2, NARROW).modules() if isinstance(module, AffineCoupling)]
    assert masks == [[True, False, True], [False, True, False]]


@pytest.mark.parametrize("build", [neural_spline_flow, spline_maf])
def test_splines_of_one_feature(
    build: Callable[..., Flow], generator: Generator, record_measurement: Callable[..., None]
) -> None:
    """Two peaks at ±3 of width 0.3: splines follow them, and a Gaussian is 1.5 nats worse."""
    side = 2.0 * torch.randint(0, 2, (1000, 1), generator=generator) - 1
    x = 3 * side + 0.3 * torch.randn(1000, 1, generator=generator)
    spline, gaussian = build(1, 2), real_nvp(1, 2)
    spline.fit(x, Training(epochs=30, learning_rate=0.1, progress=False), generator=generator)
    gaussian.fit(x, Training(epochs=30, progress=False), generator=generator)
    truth = torch.logaddexp(*(Normal(mean, 0.3).log_prob(x) for mean in (-3.0, 3.0))).mean().item() - math.log(2)
    assert abs(truth + 0.912) < 0.06
    record_measurement(
        f"{build.__name__} of one feature, nats below the truth", truth - spline.log_density(x).mean, 0.05
    )
    assert spline.log_density(x).mean > gaussian.log_density(x).mean + 1.5
