"""The gradient by the transposed system against that of the operations, and under every transformation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from flows import Autoregressive, GaussianAutoregressive, MaskedMLP, MaskedResidualMLP, SplineAutoregressive
from flows.networks import incremental
from tests.cases.transforms import CONTEXT, order
from tests.flows.networks.test_incremental import Inverted
from tests.laws.transforms import randomise

Inverse = Callable[..., Tensor]


@contextmanager
def by_operations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "_is_one_node", lambda tensors, stages: False)
        yield


def drawn(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def gradients(layer: Autoregressive, z: Tensor, context: Tensor | None, weights: Sequence[Tensor]) -> list[Tensor]:
    inputs = [z.clone().requires_grad_(), *([] if context is None else [context.clone().requires_grad_()])]
    outputs = layer.inverse(*inputs)
    asked = [*inputs, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    return list(torch.autograd.grad(outputs, asked, weights, materialize_grads=True))


def residual(places: Tensor) -> nn.Module:
    return MaskedResidualMLP(places, hidden=25, blocks=3, context_features=CONTEXT)


# More features than are taken one by one, in halves of halves; and the least there are.
LAYERS: dict[str, Callable[[Tensor], Autoregressive]] = {
    "affine": lambda places: GaussianAutoregressive(len(places), (30, 40), places),
    "affine, context": lambda places: GaussianAutoregressive(len(places), (30, 40), places, CONTEXT),
    "affine, no bound": lambda places: GaussianAutoregressive(len(places), (9,), places, log_scale_bound=None),
    "spline": lambda places: SplineAutoregressive(len(places), (30, 7), places, CONTEXT),
    "residual": lambda places: GaussianAutoregressive(
        len(places), (), places, CONTEXT, conditioner=residual(places) if len(places) > 1 else None
    ),
    "two activations in a row": lambda places: GaussianAutoregressive(
        len(places),
        order=places,
        conditioner=MaskedMLP(places, hidden=(20,), activation=nn.SiLU, dropout=0.5),
    ),
}


@pytest.mark.parametrize("features", [1, 2, 17])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_that_of_the_operations(name: str, features: int, generator: Generator) -> None:
    layer = randomise(LAYERS[name](order(generator, features)), generator, 0.2).eval()
    z = drawn(generator, 6, features)
    context = drawn(generator, 6, CONTEXT) if layer.context_features else None
    for weights in (drawn(generator, 6, features), drawn(generator, 6)), (0 * z, z[:, 0]):
        found = gradients(layer, z, context, weights)
        with by_operations():
            expected = gradients(layer, z, context, weights)
        # Sums of some tens of terms, over as many places.
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * max(g.abs().max() for g in expected))


def test_it_is_one_node_that_keeps_the_gradient_of_what_is_trained(generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(9, (20,)), generator)
    z, weights = drawn(generator, 5, 9), (drawn(generator, 5, 9), drawn(generator, 5))
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    found = gradients(layer, z, None, weights)
    with by_operations():
        expected = gradients(layer, z, None, weights)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    nodes = 0
    seen, waiting = set[object](), [layer.inverse(z)[0].grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += 1
            waiting += [parent for parent, _ in node.next_functions]
    assert nodes < 20


@pytest.mark.parametrize("shape", [(0,), (), (1,), (2, 3)])
@pytest.mark.parametrize("name", ["affine, context", "spline"])
def test_any_batch_shape(name: str, shape: tuple[int, ...], generator: Generator) -> None:
    layer = randomise(LAYERS[name](order(generator, 3)), generator, 0.2)
    z, context = drawn(generator, *shape, 3), drawn(generator, *shape, CONTEXT)
    weights = drawn(generator, *shape, 3), drawn(generator, *shape)
    found = gradients(layer, z, context, weights)
    with by_operations():
        expected = gradients(layer, z, context, weights)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_activations_that_write_into_their_input(generator: Generator) -> None:
    z, weights = drawn(generator, 4, 9), (drawn(generator, 4, 9), drawn(generator, 4))
    layer = randomise(GaussianAutoregressive(9, (16, 16), activation=nn.ReLU), generator)
    expected = gradients(layer, z, None, weights)
    for module in layer.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    torch.testing.assert_close(gradients(layer, z, None, weights), expected, rtol=1e-12, atol=1e-12)


def test_float32_loses_no_digits(generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(20, (40, 40)), generator, 0.1)
    z, weights = drawn(generator, 50, 20), (drawn(generator, 50, 20), drawn(generator, 50))
    expected = gradients(layer, z, None, weights)
    layer = layer.float()
    errors = []
    for own in (True, False):
        with torch.enable_grad() if own else by_operations():
            found = gradients(layer, z.float(), None, [weight.float() for weight in weights])
        errors.append(max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)))
    assert errors[0] < 2 * errors[1] + 16 * torch.finfo(torch.float32).eps


def test_dropped_units_stay_dropped_in_the_gradient(generator: Generator) -> None:
    """Each draw of the units is one function, whose gradient is that of differences; the draw is not repeated."""
    layer = GaussianAutoregressive(4, (50,), dropout=0.5).double().train()
    randomise(layer, generator)
    z = drawn(generator, 3, 4).requires_grad_()

    def seeded(z: Tensor) -> Tensor:
        torch.manual_seed(0)
        x, log_det = layer.inverse(z)
        return x.sin().sum() + log_det.sum()

    assert torch.autograd.gradcheck(seeded, z)


Total = Callable[..., Tensor]
States = dict[str, Tensor]


def twice(total: Total, z: Tensor, states: States) -> object:
    z, states = z.clone().requires_grad_(), {name: state.clone().requires_grad_() for name, state in states.items()}
    asked = [z, *states.values()]
    # Weights that depend on what is also an argument: their graph is not the layer's to follow.
    moved = {name: state * z.sum().cos() for name, state in states.items()}
    first = torch.autograd.grad(total(z * z, moved), asked, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), asked)


def forward_mode(total: Total, z: Tensor, states: States) -> object:
    tangents = []
    with forward_ad.dual_level():
        for graph in (True, False):
            dual = forward_ad.make_dual(z.clone().requires_grad_(graph), z.cos())
            tangents.append(forward_ad.unpack_dual(total(dual, states)).tangent.detach())
    return tangents


def several(total: Total, z: Tensor, states: States) -> object:
    z = z.clone().requires_grad_()
    outputs = torch.stack([total(z, states), total(2 * z, states)])
    eye = torch.eye(2, dtype=z.dtype)
    rows = torch.autograd.grad(outputs, z, eye, is_grads_batched=True, create_graph=True)[0]
    return torch.autograd.grad(rows.square().sum(), z)


TRANSFORMATIONS: dict[str, Callable[[Inverse, Total, Tensor, States], object]] = {
    "grad": lambda inverse, total, z, states: grad(total, (0, 1))(z, states),
    "grad of grad": lambda inverse, total, z, states: grad(lambda z: grad(total)(z, states).square().sum())(z),
    "hessian": lambda inverse, total, z, states: hessian(total)(z, states),
    "jacrev": lambda inverse, total, z, states: jacrev(inverse, (0, 1))(z, states),
    "jacfwd": lambda inverse, total, z, states: jacfwd(inverse)(z, states),
    "jvp": lambda inverse, total, z, states: jvp(lambda z: inverse(z, states), (z,), (z.cos(),)),
    "vjp": lambda inverse, total, z, states: vjp(lambda z: inverse(z, states), z)[1](z.cos()),
    "vmap": lambda inverse, total, z, states: vmap(inverse, (0, None))(z, states),
    "vmap of grad": lambda inverse, total, z, states: vmap(grad(total, (0, 1)), (0, None))(z, states),
    "vmap of jacrev": lambda inverse, total, z, states: vmap(jacrev(inverse), (0, None))(z, states),
    "twice": lambda inverse, total, z, states: twice(total, z, states),
    "forward mode": lambda inverse, total, z, states: forward_mode(total, z, states),
    "several gradients in one batch": lambda inverse, total, z, states: several(total, z, states),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of torch's own rules for forward mode
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_of_the_inverse_are_those_of_its_operations(name: str, generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(3, (5, 4), [2, 0, 1]), generator)
    module, z = Inverted(layer), drawn(generator, 4, 3)
    states = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def inverse(z: Tensor, states: States) -> Tensor:
        x: Tensor = functional_call(module, states, (z,))
        return x

    def total(z: Tensor, states: States) -> Tensor:
        return inverse(z, states).sin().square().sum()

    found = TRANSFORMATIONS[name](inverse, total, z, states)
    with by_operations():
        expected = TRANSFORMATIONS[name](inverse, total, z, states)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
