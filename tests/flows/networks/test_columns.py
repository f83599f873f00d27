"""Networks with points as columns compute what they compute with points as rows, and whoever watches is called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.modules import module as modules
from torch.nn.utils import parametrizations, prune

from density import mlp
from flows import AffineCoupling, GaussianAutoregressive
from flows.networks.columns import HOOKS_OF_ALL, columns, is_watched
from tests.cases.transforms import vector
from tests.laws.transforms import randomise


def evaluated(network: nn.Module, x: Tensor) -> Tensor:
    return columns(network, x, len(network(x.T.clone()).T), "Test", "numbers")


def test_columns_are_the_network_and_leave_its_input_alone(generator: Generator) -> None:
    for activation in (nn.Tanh, nn.ReLU, nn.SiLU):
        net = randomise(mlp(3, 4, (6, 5), activation), generator)
        # An activation first would work on the caller's memory if it worked in place.
        for network in (net, nn.Sequential(activation(), *net), nn.Sequential(activation()), nn.Sequential(*net, net)):
            x = torch.stack([vector(generator, 3) for _ in range(7)]).T.contiguous()
            before = x.clone()
            with torch.no_grad():
                if network[-1] is net:
                    network[-1] = nn.Linear(4, 2, bias=False).double()
                y = evaluated(network, x)
            assert x.equal(before)
            torch.testing.assert_close(y, network(x.T).T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("grad", [True, False])
def test_layers_of_any_kind_in_any_order(generator: Generator, grad: bool) -> None:
    """Some are called with points as rows; none works in place on what another one's gradient needs."""
    for middle in (
        [nn.Sigmoid(), nn.ReLU()],
        [nn.ReLU(), nn.Tanh()],
        [nn.LayerNorm(6), nn.Tanh()],
        [nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Identity(), nn.ReLU()],
    ):
        net = randomise(nn.Sequential(nn.Linear(3, 6), *middle, nn.Linear(6, 2)), generator)
        x = torch.stack([vector(generator, 3) for _ in range(7)]).T.contiguous().requires_grad_(grad)
        with torch.set_grad_enabled(grad):
            y, expected = evaluated(net, x), net(x.T).T
        torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
        if grad:
            ours, theirs = (torch.autograd.grad(z.sum(), [x, *net.parameters()]) for z in (y, expected))
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


Register = Callable[[nn.Module, Callable[..., None]], object]
HOOKS: dict[str, Register] = {
    "forward": lambda layer, hook: layer.register_forward_hook(hook),
    "forward pre": lambda layer, hook: layer.register_forward_pre_hook(hook),
    "full backward": lambda layer, hook: layer.register_full_backward_hook(hook),
    "full backward pre": lambda layer, hook: layer.register_full_backward_pre_hook(hook),
    "all forward": lambda _, hook: modules.register_module_forward_hook(hook),
    "all forward pre": lambda _, hook: modules.register_module_forward_pre_hook(hook),
    "all full backward": lambda _, hook: modules.register_module_full_backward_hook(hook),
    "all full backward pre": lambda _, hook: modules.register_module_full_backward_pre_hook(hook),
}


@contextmanager
def hooked(kind: str, layer: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = HOOKS[kind](layer, hook)
    try:
        yield
    finally:
        handle.remove()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("position", [None, 0, 1, 2])
def test_every_hook_is_called_and_the_numbers_stay(position: int | None, kind: str, generator: Generator) -> None:
    """On the network or on a layer of it; in a coupling, which is evaluated by columns."""
    coupling = randomise(AffineCoupling([True, False, True], (6,)), generator)
    network = coupling.conditioner
    assert isinstance(network, nn.Sequential)
    x = torch.stack([vector(generator, 3) for _ in range(5)]).requires_grad_()

    def gradients() -> list[Tensor]:
        z, log_det = coupling.forward(x)
        return [z, log_det, *torch.autograd.grad(z.square().sum() + log_det.sum(), [x, *coupling.parameters()])]

    expected, called = gradients(), []
    with hooked(kind, network if position is None else network[position], lambda module, *_: called.append(module)):
        found = gradients()
    assert (network if position is None else network[position]) in called
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    called.clear()
    gradients()
    assert not called


def test_the_private_names_of_torch() -> None:
    """Those that flows/networks/columns.py reads are there, each kind of hook shows in one, and there are no others."""
    layer = nn.Linear(2, 2)
    hooks = {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"}
    flags = {"_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"}
    assert {name for name in vars(layer) if name.startswith(("_forward", "_backward"))} == hooks | flags
    of_all = {f"_global{name}" for name in hooks}
    flags = {"_global_forward_hooks_with_kwargs", "_global_forward_hooks_always_called"}
    assert {
        name for name in vars(modules) if name.startswith(("_global_forward", "_global_backward"))
    } == of_all | flags
    assert {id(getattr(modules, name)) for name in of_all} == {id(hooks) for hooks in HOOKS_OF_ALL}
    assert layer._parameters.keys() == {"weight", "bias"}
    assert not is_watched([layer])
    assert not any(HOOKS_OF_ALL)
    for kind in HOOKS:
        with hooked(kind, layer, lambda *_: None):
            assert any(HOOKS_OF_ALL) if kind.startswith("all") else is_watched([nn.Tanh(), layer]), kind
        assert not any(HOOKS_OF_ALL), kind
        assert not is_watched([layer]), kind


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def replica(layer: nn.Linear) -> nn.Linear:
    """As ``DataParallel`` makes them: tensors for attributes, and no parameters."""
    other = copy.copy(layer)
    other._parameters = {}
    other.__dict__.update(weight=3 * layer.weight, bias=layer.bias)
    return other


def own_forward(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: 3 * nn.Linear.forward(layer, x)  # type: ignore[method-assign]
    return layer


def without_bias(layer: nn.Linear) -> nn.Linear:
    layer.bias = None  # type: ignore[assignment]
    return layer


def fast_weight(layer: nn.Linear) -> nn.Linear:
    weight = 3 * layer.weight
    del layer.weight
    layer.weight = weight  # type: ignore[assignment]
    return layer


def fast_bias(layer: nn.Linear) -> nn.Linear:
    bias = 3 * layer.bias
    del layer.bias
    layer.bias = bias  # type: ignore[assignment]
    return layer


LAYERS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight_norm": lambda layer: parametrizations.weight_norm(layer),
    "spectral_norm": lambda layer: parametrizations.spectral_norm(layer).eval(),
    "spectral_norm by a hook": lambda layer: nn.utils.spectral_norm(layer).eval(),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned for good": lambda layer: prune.remove(prune.l1_unstructured(layer, "weight", 0.5), "weight"),
    "bias pruned": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    "subclass": lambda layer: Doubled(layer.in_features, layer.out_features),
    "replica": replica,
    "another forward": own_forward,
    "no bias": without_bias,
    "weight as an attribute": fast_weight,
    "bias as an attribute": fast_bias,
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_are_more_than_their_own_weights(name: str, grad: bool, generator: Generator) -> None:
    network = randomise(mlp(3, 4, (6, 5)), generator)
    for position in (0, 2, 4):
        changed = nn.Sequential(*network)
        changed[position] = LAYERS[name](copy.deepcopy(network[position])).double()
        with torch.no_grad():  # a weight that a hook computed before is not the one that it would compute now
            for parameter in changed.parameters():
                parameter.mul_(1.5)
        x = torch.stack([vector(generator, 3) for _ in range(7)]).T
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(evaluated(changed, x), changed(x.T).T, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
def test_an_autoregressive_inverse_asks_weights_of_hooks(generator: Generator) -> None:
    """A weight that a hook computes is that of the last call until the next one."""
    layer = randomise(GaussianAutoregressive(4, (6,)), generator)
    nn.utils.weight_norm(layer.conditioner.layers[0])
    x = torch.stack([vector(generator, 4) for _ in range(5)])
    layer.forward(x)
    with torch.no_grad():
        layer.conditioner.layers[0].weight_g.mul_(2.0)
    back, _ = layer.inverse(layer.forward(x)[0])
    torch.testing.assert_close(back, x, rtol=1e-11, atol=1e-11)
    z, _ = layer.forward(x)
    with torch.no_grad():
        layer.conditioner.layers[0].weight_g.mul_(0.5)
    back, _ = layer.inverse(z)
    torch.testing.assert_close(layer.forward(back)[0], z, rtol=1e-11, atol=1e-11)
