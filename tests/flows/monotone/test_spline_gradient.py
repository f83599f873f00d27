"""The gradient of the spline in closed form against that of its operations, and under every transformation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from flows import RationalQuadratic
from flows.monotone import spline_gradient
from tests.flows.monotone.splines import Function, draws, gradients, pair, worst


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("bins", "bound", "scale"), [(8, 5.0, 1.0), (3, 1.0, 3.0), (16, 20.0, 2.0), (2, 0.3, 1.0)])
def test_the_gradient_is_that_of_the_operations(
    bins: int, bound: float, scale: float, inverse: bool, generator: Generator
) -> None:
    spline = RationalQuadratic(bins, bound)
    own, plain = pair(spline, inverse)
    theta, x = draws(generator, spline.parameters, 3, 200, scale=scale), draws(generator, 3, 200, scale=0.8 * bound)
    x[0, :2] = torch.tensor([-bound, bound])
    value, log = draws(generator, 2, 3, 200)
    with_graph = own(x.requires_grad_(), theta)
    assert with_graph[0].grad_fn is with_graph[1].grad_fn
    for fast, slow in zip(with_graph, plain(x.detach(), theta), strict=True):
        assert fast.equal(slow)
    # A knot is rounded to ε bound. Over the width of a bin, 10⁻³ of the interval or more, that is an error of at
    # most 500 ε in ξ, and some 50 roundings follow it.
    tolerance = 50 * 500 * torch.finfo(torch.float64).eps
    for weights in ((value, log), (value, torch.zeros_like(log)), (torch.zeros_like(value), log)):
        found, expected = (gradients(function, (x, theta), weights) for function in pair(spline, inverse))
        assert worst(found, expected) < tolerance
        outside = x.detach().abs() > bound
        assert outside.any()
        assert found[0][outside].equal(weights[0][outside])
        assert not found[1][:, outside].any()


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_in_the_middle_of_a_symmetric_bin(inverse: bool) -> None:
    """There the inverse goes from one form of its root to the other."""
    spline = RationalQuadratic(1, 4.0)  # where the middle is a number without rounding
    inputs = torch.zeros(2, dtype=torch.float64), torch.zeros(spline.parameters, 2, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    found, expected = (gradients(function, inputs, weights) for function in pair(spline, inverse))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_gradient_loses_no_digits_to_that_of_the_operations(inverse: bool, generator: Generator) -> None:
    """In float32, against float64."""
    spline = RationalQuadratic(8, 5.0)
    own, plain = pair(spline, inverse)
    double = (
        draws(generator, spline.parameters, 2000, scale=2.0),
        draws(generator, 2000, scale=3.0),
        draws(generator, 2, 2000),
    )
    theta, x, weights = (tensor.float() for tensor in double)
    expected = gradients(plain, (x.double(), theta.double()), tuple(weights.double()))
    errors = [
        worst([tensor.double() for tensor in gradients(function, (x, theta), tuple(weights))], expected)
        for function in (own, plain)
    ]
    # Both inherit the error of ξ, which is the larger part; the rest is a few roundings.
    assert errors[0] < 2 * errors[1] + 16 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("inverse", [False, True])
def test_first_and_second_derivatives_are_those_of_differences(inverse: bool, generator: Generator) -> None:
    spline = RationalQuadratic(3, 2.0)
    own, _ = pair(spline, inverse)
    theta = draws(generator, spline.parameters, 7).requires_grad_()
    x = torch.tensor([-3.0, -1.7, -0.9, 0.05, 0.8, 1.6, 2.5], dtype=torch.float64).requires_grad_()
    assert gradcheck(own, (x, theta))
    assert gradgradcheck(own, (x, theta))
    for one in ((x, theta.detach()), (x.detach(), theta)):
        assert gradcheck(own, one)
        assert gradgradcheck(own, one)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_penalty_on_gradients_where_parameters_depend_on_the_number(inverse: bool, generator: Generator) -> None:
    """As in autoregressions: the graph of θ begins at x, and is not the spline's to follow."""
    spline = RationalQuadratic(4, 3.0)
    weight = draws(generator, spline.parameters, 1, scale=0.5).requires_grad_()
    x = draws(generator, 60, scale=1.5).requires_grad_()

    def penalty(function: Function) -> tuple[Tensor, ...]:
        value, log = function(x, torch.sin(weight * x))
        (slope,) = torch.autograd.grad((value + log).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight))

    own, plain = pair(spline, inverse)
    torch.testing.assert_close(penalty(own), penalty(plain), rtol=1e-10, atol=1e-10)


Total = Callable[[Tensor, Tensor], Tensor]


def without_graph(function: Function, x: Tensor, theta: Tensor) -> object:
    """A gradient that is taken under torch.func and itself not to be differentiated."""
    outputs, pull_back = vjp(function, x, theta)
    with torch.no_grad():
        return outputs, pull_back(outputs)


def graph_outside(total: Total, x: Tensor, theta: Tensor) -> object:
    """A graph of tensors that a transform does not see, and one of tensors that it batches."""
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    scaled = vmap(lambda factor: factor * total(x, theta))(torch.arange(3.0, dtype=x.dtype))
    moved = vmap(lambda x: total(x, theta))(torch.stack([x, 0.5 * x]))
    return torch.autograd.grad(scaled.sum() + moved.sum(), (x, theta))


def forward_mode(total: Total, x: Tensor, theta: Tensor) -> object:
    """Directions beside a graph, in all combinations."""
    tangents = []
    with forward_ad.dual_level():
        for graph in (True, False):
            for one, other in ((True, True), (True, False), (False, True)):
                moved = forward_ad.make_dual(x.clone().requires_grad_(graph), x.cos()) if one else x
                turned = forward_ad.make_dual(theta.clone().requires_grad_(graph), theta.sin()) if other else theta
                tangents.append(forward_ad.unpack_dual(total(moved, turned)).tangent.detach())
    return tangents


# Of the spline, and of a number made of it that depends on x beside it.
TRANSFORMATIONS: dict[str, Callable[[Function, Total, Tensor, Tensor], object]] = {
    "vmap": lambda spline, total, x, theta: vmap(spline, (0, 1))(x, theta),
    "vmap, x": lambda spline, total, x, theta: vmap(lambda x: spline(x, theta))(torch.stack([x, -x])),
    "vmap, parameters": lambda spline, total, x, theta: vmap(lambda theta: spline(x, theta), 2)(
        torch.stack([theta, -theta], 2)
    ),
    "vmap of vmap": lambda spline, total, x, theta: vmap(vmap(spline, (0, 1)), (0, None))(torch.stack([x, -x]), theta),
    "grad": lambda spline, total, x, theta: grad(total, (0, 1))(x, theta),
    "grad of vmap": lambda spline, total, x, theta: grad(
        lambda x, theta: vmap(lambda scale: total(scale * x, theta))(x).sum(), (0, 1)
    )(x, theta),
    "vmap of grad": lambda spline, total, x, theta: vmap(grad(total, (0, 1)), (0, 1), (0, 1))(x, theta),
    "vmap of grad, x": lambda spline, total, x, theta: vmap(grad(total, (0, 1)), (0, None))(
        torch.stack([x, -x]), theta
    ),
    "grad of grad": lambda spline, total, x, theta: grad(
        lambda x, theta: grad(total, 1)(x, theta).square().sum(), (0, 1)
    )(x, theta),
    "vjp": lambda spline, total, x, theta: without_graph(spline, x, theta),
    "vmap of vjp": lambda spline, total, x, theta: vmap(lambda x, theta: without_graph(spline, x, theta), (0, 1))(
        x, theta
    ),
    "jvp": lambda spline, total, x, theta: jvp(spline, (x, theta), (x.cos(), theta.sin())),
    "jvp of grad": lambda spline, total, x, theta: jvp(grad(total, (0, 1)), (x, theta), (x.cos(), theta.sin())),
    "jacrev": lambda spline, total, x, theta: jacrev(spline, (0, 1))(x, theta),
    "jacfwd": lambda spline, total, x, theta: jacfwd(spline, (0, 1))(x, theta),
    "hessian": lambda spline, total, x, theta: hessian(total, (0, 1))(x, theta),
    "vmap of hessian": lambda spline, total, x, theta: vmap(hessian(total, (0, 1)), (0, 1))(x, theta),
    "jacrev of jacfwd": lambda spline, total, x, theta: jacrev(jacfwd(total, 1), (0, 1))(x, theta),
    "jacrev of two jacfwd": lambda spline, total, x, theta: jacrev(jacfwd(jacfwd(total)))(x, theta),
    "third derivatives": lambda spline, total, x, theta: jacfwd(jacrev(jacrev(total)))(x, theta),
    "graph outside": lambda spline, total, x, theta: graph_outside(total, x, theta),
    "forward mode": lambda spline, total, x, theta: forward_mode(total, x, theta),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of torch's own rules for forward mode
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_of_the_spline_are_those_of_its_operations(
    name: str, inverse: bool, generator: Generator
) -> None:
    spline = RationalQuadratic(4, 3.0)
    theta, x = draws(generator, spline.parameters, 5), torch.tensor([-4.0, -1.5, -0.3, 0.8, 2.9], dtype=torch.float64)

    def transformed(function: Function) -> object:
        def total(x: Tensor, theta: Tensor) -> Tensor:
            value, log = function(x, theta)
            return (value.sin() + x * log).sum()

        return TRANSFORMATIONS[name](function, total, x, theta)

    found, expected = (transformed(function) for function in pair(spline, inverse))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_per_sample_gradients_and_hessians_use_the_rules(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def watch(rule: str) -> None:
        own = getattr(spline_gradient._Spline, rule)
        noted = staticmethod(lambda *given: used.append(rule) or own(*given))
        monkeypatch.setattr(spline_gradient._Spline, rule, noted)

    for rule in ("backward", "jvp", "vmap"):
        watch(rule)
    spline = RationalQuadratic(4, 3.0)
    theta, x = draws(generator, spline.parameters, 5), draws(generator, 5)
    vmap(grad(lambda x, theta: spline.forward(x, theta)[1]), (0, 1))(x, theta)
    assert used == ["vmap", "backward"]
    hessian(lambda x: spline.forward(x, theta)[0].sum())(x)
    assert sorted(used[2:]) == ["backward", "jvp"]


@pytest.mark.parametrize("inverse", [False, True])
def test_several_gradients_in_one_batch(inverse: bool, generator: Generator) -> None:
    spline = RationalQuadratic(4, 3.0)
    own, _ = pair(spline, inverse)
    theta, x = draws(generator, spline.parameters, 9), draws(generator, 9, scale=1.5).requires_grad_()
    (rows,) = torch.autograd.grad(own(x, theta)[1], x, torch.eye(9, dtype=torch.float64), is_grads_batched=True)
    torch.testing.assert_close(rows, jacrev(lambda x: own(x, theta)[1])(x.detach()), rtol=1e-10, atol=1e-10)


def test_gradients_of_views(generator: Generator) -> None:
    """Parameters shared by numbers, and neither contiguous; and a number alone."""
    spline = RationalQuadratic(4, 3.0)
    theta, x = draws(generator, 3, spline.parameters), draws(generator, 5, 3, scale=2.0)

    def shared(function: Function) -> Function:
        return lambda x, theta: function(x.T, theta.T[:, :, None].expand(-1, -1, 5))

    for inverse in (False, True):
        weights = tuple(draws(generator, 2, 3, 5))
        found, expected = (gradients(shared(function), (x, theta), weights) for function in pair(spline, inverse))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        one = tuple(weights[0][0, :2])
        found, expected = (gradients(function, (x[0, 0], theta[0]), one) for function in pair(spline, inverse))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_have_the_types_of_their_numbers(inverse: bool, generator: Generator) -> None:
    spline = RationalQuadratic(4, 3.0)
    inputs, weights = (
        (draws(generator, 30, scale=2.0), draws(generator, spline.parameters, 30).float()),
        draws(generator, 2, 30),
    )
    found, expected = (gradients(function, inputs, tuple(weights)) for function in pair(spline, inverse))
    assert [tensor.dtype for tensor in found] == [torch.float64, torch.float32]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_graph_keeps_no_more_than_that_of_the_operations(inverse: bool, generator: Generator) -> None:
    spline = RationalQuadratic(8, 5.0)
    theta, x = draws(generator, spline.parameters, 100).requires_grad_(), draws(generator, 100).requires_grad_()
    kept = []
    for function in pair(spline, inverse):
        held: dict[int, int] = {}
        tensors = []

        def pack(tensor: Tensor, held: dict[int, int] = held, tensors: list[Tensor] = tensors) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            tensors.append(tensor)  # so that no two share an address
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = function(x, theta)
        kept.append(sum(held.values()))
        del outputs
    assert kept[0] < kept[1]
