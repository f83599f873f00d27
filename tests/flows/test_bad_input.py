"""Every public transform meets bad input with one clear error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator

from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    MaskedMLP,
    Permutation,
    QRLinear,
    SplineCoupling,
    Transform,
)
from tests.cases.transforms import TRANSFORMS


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_refuse_what_they_cannot_take(name: str, generator: Generator) -> None:
    case = TRANSFORMS[name]
    transform = case.make(generator)
    owner = type(transform).__name__
    x, context = case.points(generator, 2), case.context(transform, generator, 2)
    for call in (transform.forward, transform.inverse, transform.initialise):
        with pytest.raises(TypeError, match=rf"{owner} expects x to be floating point; got torch.int64"):
            call(x.long(), context)
        with pytest.raises(TypeError, match=rf"{owner} expects x to be a torch.Tensor; got list"):
            call(x.tolist(), context)
        with pytest.raises(ValueError, match=rf"{owner} expects x of shape \[\*batch, .*\]; got \[\]"):
            call(x[0, 0], context)
        if transform.features is not None:
            with pytest.raises(
                ValueError, match=rf"{owner} expects x of shape \[\*batch, {case.features}\]; got \[2, "
            ):
                call(torch.cat([x, x], -1), context)
        if context is not None:
            with pytest.raises(ValueError, match=rf"{owner} expects batch shapes that broadcast; got x \[2, .* \[3, "):
                call(x, torch.cat([context, context[:1]]))
            with pytest.raises(TypeError, match=rf"{owner} computes in torch.float64.*context is torch.float32"):
                call(x, context.float())
    with pytest.raises(ValueError, match=rf"{owner} expects finite data; row 1, column 0 is nan"):
        transform.initialise(x.index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(torch.nan).to(x)), context)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: Chain(LULinear(2), Permutation([0, 1, 2])),
            ValueError,
            r"Chain: part 0 \(LULinear\) has 2 features, part 1 \(Permutation\) has 3; they must agree",
        ),
        (
            lambda: Chain(
                GaussianAutoregressive(2, context_features=1),
                LULinear(2),
                GaussianAutoregressive(2, context_features=3),
            ),
            ValueError,
            r"part 0 \(GaussianAutoregressive\) has 1 context features, part 2 \(GaussianAutoregressive\) has 3",
        ),
        (lambda: Chain(LULinear(2), torch.nn.Linear(2, 2)), TypeError, "made of Transforms; part 1 is a Linear"),
        (lambda: Inverse(torch.nn.Linear(2, 2)), TypeError, "takes a Transform; got a Linear"),
        (lambda: Permutation([0, 2]), ValueError, r"each of 0 \.\.\. D-1 once; got \[0, 2\]"),
        (lambda: Permutation([0, 0, 1]), ValueError, "Permutation expects an order"),
        (lambda: Permutation([]), ValueError, "Permutation expects an order"),
        (lambda: Permutation([0.0, 1.0]), ValueError, "Permutation expects an order"),
        (lambda: Permutation([True, False]), ValueError, "Permutation expects an order"),
        (lambda: Permutation([[0, 1]]), ValueError, "Permutation expects an order"),
        (lambda: AffineCoupling([True, True]), ValueError, "all True leaves nothing to transform"),
        (lambda: AffineCoupling([False, False]), ValueError, "all False leaves nothing to condition on"),
        (lambda: AffineCoupling([True, True], context_features=2), ValueError, "all True leaves nothing to transform"),
        (lambda: AffineCoupling([1, 0]), ValueError, "mask of D booleans; got torch.int64"),
        (lambda: AffineCoupling([]), ValueError, "mask of D booleans"),
        (lambda: SplineCoupling("abc"), TypeError, "^SplineCoupling expects a mask of D booleans; got 'abc'"),
        (lambda: AffineCoupling([[True, False]]), ValueError, r"mask of D booleans; got torch.bool of shape \[1, 2\]"),
        (lambda: AffineCoupling([True, False], log_scale_bound=0.0), ValueError, "log_scale_bound to be positive"),
        (lambda: GaussianAutoregressive(2, log_scale_bound=torch.inf), ValueError, "log_scale_bound to be positive"),
        (lambda: GaussianAutoregressive(3, order=[0, 1]), ValueError, "an order of its 3 features; got one of 2"),
        (lambda: GaussianAutoregressive(2, order=[1, 1]), ValueError, "GaussianAutoregressive expects an order"),
        (lambda: GaussianAutoregressive(0), ValueError, "^GaussianAutoregressive: features must be a positive int"),
        (lambda: MaskedMLP([0, 1], hidden=(0,)), ValueError, r"^MaskedMLP: hidden\[0\] must be a positive int"),
        (lambda: ActNorm(-3), ValueError, "^ActNorm: features must be a positive int; got -3"),
        (lambda: QRLinear(2, 3), ValueError, "^QRLinear of 2 features takes at most 2 reflections"),
        (lambda: QRLinear(2, 0), ValueError, "^QRLinear: reflections must be a positive int"),
        (lambda: Affine("abc", 1.0), TypeError, r"^Affine expects shift to be a number or of shape \[D\]; got 'abc'"),
    ],
)
def test_construction_refuses(build: Callable[[], Transform], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_conditioner_of_the_wrong_width_is_named() -> None:
    for network in (torch.nn.Linear(1, 2), torch.nn.Sequential(torch.nn.Linear(1, 2))):  # by rows, and by columns
        coupling = AffineCoupling([True, False, False], conditioner=network)
        message = r"^AffineCoupling expects its network to return \[n, 4\] for n points, μ and then raw log σ, .*"
        with pytest.raises(ValueError, match=message + r"; got \[5, 2\] for n = 5 \(docs"):
            coupling.forward(torch.zeros(5, 3))
    autoregressive = GaussianAutoregressive(3, conditioner=torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"GaussianAutoregressive expects its network to return \[n, 6\]"):
        autoregressive.inverse(torch.zeros(5, 3))


def test_an_empty_chain_is_the_identity(generator: Generator) -> None:
    x = torch.randn(3, 2, generator=generator)
    z, log_det = Chain().forward(x)
    assert z.equal(x)
    assert log_det.equal(torch.zeros(3))


def test_nan_in_is_nan_out() -> None:
    x = torch.tensor([[torch.nan, 0.0], [1.0, 2.0]])
    for transform in (LULinear(2), ActNorm(2), GaussianAutoregressive(2), AffineCoupling([True, False])):
        z, _ = transform.forward(x)
        assert z[0].isnan().any()
        assert z[1].isfinite().all()
