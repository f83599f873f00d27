"""The laws of networks inside densities and bijections: what a point gets is what the network returns for its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, vmap

# Two ways to the same float64 numbers: products of some tens of terms, whose order batch shapes change.
EXACT = 1e-11


@dataclass(frozen=True)
class NetworkCase:
    """A network to be put into every owner, as users write them.

    Attributes:
        make: builds it from how many numbers it is given and returns for each point.
        pair: whether it returns a pair (mean, log-variance), which not every owner understands.
        writes: whether it writes into what it is given.
    """

    make: Callable[[int, int], nn.Module]
    pair: bool = False
    writes: bool = False


@dataclass(frozen=True)
class OwnerCase:
    """A density or a bijection that takes its parameters from a network.

    Attributes:
        build: makes it of a network.
        features, context: sizes of its points and contexts.
        inputs, outputs: sizes of the network.
        ask: the numbers that it has for points ``[*batch, D]`` and contexts ``[*batch, C]``.
        ask_more: others that it has, draws too.
        pair: whether a pair (mean, log-variance) is understood.
        positive: whether points are.
    """

    build: Callable[[nn.Module], nn.Module]
    features: int
    context: int
    inputs: int
    outputs: int
    ask: Callable[[nn.Module, Tensor, Tensor | None], Tensor]
    ask_more: Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, ...]]
    pair: bool = False
    positive: bool = False

    def points(self, generator: Generator, *batch: int) -> Tensor:
        x = _normal(generator, *batch, self.features)
        return x.abs() if self.positive else x

    def contexts(self, generator: Generator, *batch: int) -> Tensor | None:
        return _normal(generator, *batch, self.context) if self.context else None


class OnRows(nn.Module):
    """The oracle: the network called by hand, on a copy of each row by itself, its output flattened.

    Or on all rows together, as normalisation over the batch needs it.
    """

    def __init__(self, network: nn.Module, together: bool = False) -> None:
        super().__init__()
        self.network, self.together = network, together

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        outputs = [self._flat(part.clone()) for part in ([rows] if self.together else rows.split(1))]
        return torch.cat(outputs).reshape(*x.shape[:-1], -1)

    def _flat(self, rows: Tensor) -> Tensor:
        output = self.network(rows)
        if isinstance(output, Tensor):
            return output.reshape(len(rows), -1)
        mean, log_variance = (half.reshape(len(rows), -1) for half in output)
        return torch.cat([mean, log_variance / 2], -1)


BATCHES = ((), (5,), (2, 1, 3))


def points_get_what_the_network_returns_for_their_rows(
    owner: OwnerCase, case: NetworkCase, generator: Generator
) -> None:
    """Values and all gradients, whatever the batch shape; and the caller's tensors are what they were."""
    network = made(owner, case, generator)
    ours, by_hand = owner.build(network), owner.build(OnRows(network))
    for batch in BATCHES:
        x, context = owner.points(generator, *batch), owner.contexts(generator, *batch)
        given = [t.requires_grad_() for t in (x, context) if t is not None]
        before = [t.detach().clone() for t in given]
        found, expected = (_asked(owner, model, x, context) for model in (ours, by_hand))
        assert all(t.equal(b) for t, b in zip(given, before, strict=True)), "the caller's tensors were written into"
        weights = [_normal(generator, *value.shape) for value in expected]
        wanted = [*given, *network.parameters()]
        for value, other in zip(found, expected, strict=True):
            _close(value, other)
        slopes = [
            torch.autograd.grad(
                sum((w * value).sum() for w, value in zip(weights, values, strict=True)),
                wanted,
                allow_unused=True,
                materialize_grads=True,
            )
            for values in (found, expected)
        ]
        for slope, other in zip(*slopes, strict=True):
            _close(slope, other)


def without_gradients_too(owner: OwnerCase, case: NetworkCase, generator: Generator) -> None:
    """Where no graph is built, layers may be evaluated in another way, and memory is written into more freely."""
    network = made(owner, case, generator)
    ours, by_hand = owner.build(network), owner.build(OnRows(network))
    for batch in BATCHES:
        x, context = owner.points(generator, *batch), owner.contexts(generator, *batch)
        before = x.clone(), None if context is None else context.clone()
        with torch.no_grad():
            for value, other in zip(_asked(owner, ours, x, context), _asked(owner, by_hand, x, context), strict=True):
                _close(value, other)
        assert x.equal(before[0])
        assert context is None or context.equal(before[1])


def no_points_have_no_numbers(owner: OwnerCase, case: NetworkCase, generator: Generator) -> None:
    model = owner.build(made(owner, case, generator))
    one = owner.ask(model, owner.points(generator, 1), owner.contexts(generator, 1))
    for batch in ((0,), (3, 0)):
        none = owner.ask(model, owner.points(generator, *batch), owner.contexts(generator, *batch))
        assert none.shape == (*batch, *one.shape[1:])


def functions_of_torch_go_through(owner: OwnerCase, case: NetworkCase, generator: Generator) -> None:
    """vmap over points and functional_call: each point sees its row alone."""
    model = owner.build(made(owner, case, generator))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x, context = owner.points(generator, 3), owner.contexts(generator, 3)
    expected = owner.ask(model, x, context)
    given = (x,) if context is None else (x, context)

    def of_one(*point: Tensor) -> Tensor:
        answer = functional_call(_Asked(owner, model), {f"model.{k}": v for k, v in parameters.items()}, point)
        return torch.as_tensor(answer)

    _close(vmap(of_one)(*given), expected)


class _Asked(nn.Module):
    """What an owner has for its points, as a module."""

    def __init__(self, owner: OwnerCase, model: nn.Module) -> None:
        super().__init__()
        self.owner, self.model = owner, model

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.owner.ask(self.model, x, context)


def one_graph_holds_it(owner: OwnerCase, case: NetworkCase, generator: Generator) -> None:
    model = owner.build(made(owner, case, generator))
    x, context = owner.points(generator, 3), owner.contexts(generator, 3)
    torch.compiler.reset()
    compiled = torch.compile(_Asked(owner, model), backend="eager", fullgraph=True)
    before = x.clone()
    _close(compiled(x, context), owner.ask(model, x, context))
    assert x.equal(before)


def whoever_watches_is_called(owner: OwnerCase, case: NetworkCase, generator: Generator) -> None:
    network = made(owner, case, generator)
    model = owner.build(network)
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    for batch, rows in (((), 1), ((5,), 5), ((2, 3), 6)):
        owner.ask(model, owner.points(generator, *batch), owner.contexts(generator, *batch))
        assert seen == [(rows, owner.inputs)], "a network sees rows, once"
        seen.clear()


NetworkLaw = Callable[[OwnerCase, NetworkCase, Generator], None]
laws_of_values: list[NetworkLaw] = [points_get_what_the_network_returns_for_their_rows, without_gradients_too]
laws_of_calls: list[NetworkLaw] = [
    no_points_have_no_numbers,
    functions_of_torch_go_through,
    whoever_watches_is_called,
    one_graph_holds_it,
]


def made(owner: OwnerCase, case: NetworkCase, generator: Generator) -> nn.Module:
    """The network of a case for an owner, in float64 and in evaluation mode, with random parameters and statistics."""
    network = case.make(owner.inputs, owner.outputs).double().eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.3 * _normal(generator, *tensor.shape))
        for name, tensor in network.named_buffers():
            if "running" in name:
                tensor.add_(_normal(generator, *tensor.shape).abs())
    return network


def _asked(owner: OwnerCase, model: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return owner.ask(model, x, context), *owner.ask_more(model, x, context)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=EXACT, atol=EXACT)
