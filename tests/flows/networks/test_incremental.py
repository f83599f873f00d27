"""The inverse by degree is the inverse by D passes, and costs about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flows import (
    Autoregressive,
    GaussianAutoregressive,
    MaskedLinear,
    MaskedMLP,
    MaskedResidualMLP,
    RationalQuadratic,
    SplineAutoregressive,
)
from flows.networks.masked import MaskedNetwork
from tests.cases.transforms import CONTEXT, order, vector
from tests.laws.transforms import randomise

D = 7


class Opaque(nn.Module):
    """A network that nobody can look into."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y


def gaussian(net: Callable[[Tensor], nn.Module], context: int = 0) -> Callable[[Tensor], Autoregressive]:
    return lambda places: GaussianAutoregressive(len(places), (), places, context, conditioner=net(places))


def degrees(*layers: Sequence[int]) -> Callable[[Tensor], Autoregressive]:
    return gaussian(lambda places: MaskedMLP(places, hidden_degrees=[torch.tensor(layer) for layer in layers]))


LAYERS: dict[str, Callable[[Tensor], Autoregressive]] = {
    "two hidden layers": lambda places: GaussianAutoregressive(D, (20, 31), places),
    "context": lambda places: GaussianAutoregressive(D, (20, 31), places, CONTEXT),
    "fewer units than degrees": lambda places: GaussianAutoregressive(D, (3, 2), places, CONTEXT),
    "no hidden layer": lambda places: GaussianAutoregressive(D, (), places, CONTEXT),
    "four hidden layers": lambda places: GaussianAutoregressive(D, (9, 9, 9, 9), places),
    "relu": gaussian(lambda places: MaskedMLP(places, hidden=(16, 16), activation=nn.ReLU)),
    "residual": gaussian(lambda places: MaskedResidualMLP(places, hidden=15, blocks=3)),
    "residual, context": gaussian(
        lambda places: MaskedResidualMLP(places, hidden=15, context_features=CONTEXT), CONTEXT
    ),
    "spline": lambda places: SplineAutoregressive(D, (16, 16), places, spline=RationalQuadratic(5, 4.0)),
    "a coupling's degrees": degrees([3] * 5, [3] * 6),
    "unsorted degrees": degrees([5, 1, 3, 2, 6, 1], [4, 6, 2, 1, 5]),
    "degrees that nothing sees, and that see nothing": degrees([9, 0, -1, 3, 7, 2], [0, 3, 8, -2, 5]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_inverse_by_passes(name: str, generator: Generator) -> None:
    layer = randomise(LAYERS[name](order(generator, D)), generator)
    assert isinstance(layer.conditioner, MaskedNetwork)
    assert layer.conditioner.sizes is not None
    z = torch.stack([vector(generator, D) for _ in range(6)]).requires_grad_()
    context = torch.stack([vector(generator, CONTEXT) for _ in range(6)]) if layer.context_features else None
    fast = layer.inverse(z, context)
    parameters = [z, *layer.parameters()]
    network, weights = layer.conditioner, vector(generator, 6)

    def gradients(x: Tensor, log_det: Tensor) -> list[Tensor]:
        loss = (x.square().sum(-1) * weights).sum() + (log_det * weights.square()).sum()
        return list(torch.autograd.grad(loss, parameters, materialize_grads=True))

    fast_gradients = gradients(*fast)
    layer.conditioner = Opaque(network)
    slow = layer.inverse(z, context)
    # Sums of some tens of terms of size one, and the rounding of D places before.
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(fast_gradients, gradients(*slow), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_few_features(features: int, context: int, generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(features, (6,), context_features=context), generator)
    z, given = vector(generator, features), vector(generator, context) if context else None
    fast = layer.inverse(z, given)[0]
    layer.conditioner = Opaque(layer.conditioner)
    torch.testing.assert_close(fast, layer.inverse(z, given)[0], rtol=1e-12, atol=1e-12)


def test_the_arithmetic_is_at_most_one_forward_pass(generator: Generator) -> None:
    """Masked blocks are not multiplied: about half of them at these widths, and never more than all."""
    for make in (LAYERS["two hidden layers"], LAYERS["residual, context"], LAYERS["spline"]):
        layer = randomise(make(order(generator, D)), generator)
        x = torch.stack([vector(generator, D) for _ in range(50)])
        context = torch.ones(50, CONTEXT, dtype=x.dtype) if layer.context_features else None
        counts = []
        for call in (layer.forward, layer.inverse):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                call(x, context)
            counts.append(counter.get_total_flops())
        assert 0 < counts[1] <= 0.8 * counts[0]


def test_second_derivatives_and_vmap(generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(3, (5, 4), [2, 0, 1]), generator).requires_grad_(False)
    z = torch.stack([vector(generator, 3) for _ in range(2)]).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: layer.inverse(z)[0], z)
    states = {name: torch.stack([p, 0.5 * p, -p]) for name, p in layer.named_parameters()}

    def sampled(state: dict[str, Tensor]) -> Tensor:
        x: Tensor = torch.func.functional_call(Inverted(layer), {f"layer.{k}": v for k, v in state.items()}, (z,))
        return x

    many = torch.func.vmap(sampled)(states)
    for index in range(3):
        one = sampled({name: stacked[index] for name, stacked in states.items()})
        torch.testing.assert_close(many[index], one, rtol=1e-12, atol=1e-12)


class Inverted(nn.Module):
    def __init__(self, layer: Autoregressive) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> Tensor:
        return self.layer.inverse(z)[0]


def test_loaded_orders_and_masks_are_obeyed(generator: Generator) -> None:
    """Another order and other hidden degrees come with the state; the units must be sorted again."""
    source = randomise(degrees([1, 6, 3, 2], [2, 5, 1, 4, 4])(torch.tensor([3, 1, 0, 2, 6, 5, 4])), generator)
    target = degrees([2, 3, 4, 5], [1, 2, 3, 4, 5])(torch.arange(D)).double()
    target.load_state_dict(source.state_dict())
    z = vector(generator, D)
    torch.testing.assert_close(target.inverse(z), source.inverse(z), rtol=0, atol=0)
    x, _ = target.inverse(z)
    torch.testing.assert_close(target.forward(x)[0], z, rtol=1e-11, atol=1e-11)
    # The network's own masks alone, in the same order.
    network = randomise(MaskedMLP(source.order, hidden_degrees=[torch.tensor([6, 5, 4, 3]), torch.ones(5)]), generator)
    source.conditioner.load_state_dict(network.state_dict())
    x, _ = source.inverse(z)
    torch.testing.assert_close(source.forward(x)[0], z, rtol=1e-11, atol=1e-11)


def test_what_is_not_elementwise_goes_by_passes(generator: Generator) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) * torch.arange(x.shape[-1])  # knows which unit it is at

    places = order(generator, D)
    layer = randomise(gaussian(lambda places: MaskedMLP(places, hidden=(9,), activation=Odd))(places), generator)
    assert isinstance(layer.conditioner, MaskedNetwork)
    assert layer.conditioner.sizes is None
    z = vector(generator, D)
    torch.testing.assert_close(layer.forward(layer.inverse(z)[0])[0], z, rtol=1e-11, atol=1e-11)


def test_masks_out_of_order_are_not_evaluated_by_degree(generator: Generator) -> None:
    net = MaskedMLP(range(3), hidden=(4,))
    first = net.layers[0]
    assert isinstance(first, MaskedLinear)
    first.mask.fill_(True)
    net.arrange(torch.arange(3))
    assert net.sizes is None


def test_the_state_has_the_names_that_it_had() -> None:
    assert list(GaussianAutoregressive(3, (4,)).state_dict()) == [
        "order",
        *(f"conditioner.layers.{layer}.{name}" for layer in (0, 2) for name in ("weight", "bias", "mask")),
    ]
