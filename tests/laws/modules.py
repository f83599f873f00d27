"""The laws of models as modules: what torch does with a module, it does with these, by their ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import AveragedModel

from density import Bound, Density


@dataclass(frozen=True)
class ModuleCase:
    """A model and what it is asked about.

    Attributes:
        make: builds the model, a density or a bound, in float64.
        inputs: three points ``[3, D]`` for a model, and contexts ``[3, C]`` for a conditional one.
        discrete: whether it draws by torch.multinomial, which vmap cannot repeat for every point alike.
    """

    make: Callable[[Generator], nn.Module]
    inputs: Callable[[nn.Module, Generator], tuple[Tensor, ...]]
    discrete: bool = False


def forward_is_log_prob_or_else_the_elbo(case: ModuleCase, generator: Generator) -> None:
    model, inputs = _made(case, generator)
    if isinstance(model, Density):
        assert model(*inputs).equal(model.log_prob(*inputs))
        if len(inputs) > 1:
            assert model(inputs[0], context=inputs[1]).equal(model.log_prob(*inputs))
        return
    assert isinstance(model, Bound)
    first, second = (Generator(generator.device).manual_seed(1) for _ in range(2))
    given = {"context": inputs[1]} if len(inputs) > 1 else {}
    assert model(*inputs, draws=3, generator=first).equal(model.elbo(inputs[0], **given, draws=3, generator=second))


def other_parameters_can_be_put_in(case: ModuleCase, generator: Generator) -> None:
    model, inputs = _made(case, generator)
    before = _seeded(model, *inputs)
    moved = deepcopy(model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.1)
    _close(_seeded(functional_call, model, dict(moved.named_parameters()), inputs), _seeded(moved, *inputs))
    assert _seeded(model, *inputs).equal(before)


def gradients_of_points_are_theirs(case: ModuleCase, generator: Generator) -> None:
    """vmap(grad(functional_call)) against a loop; the noise of sampled bounds is the same for every point."""
    model, inputs = _made(case, generator)
    fixed = {name: p.detach() for name, p in model.named_parameters()}

    def each(randomness: str) -> dict[str, Tensor]:
        at = grad(lambda parameters, *x: functional_call(model, parameters, x))
        call = vmap(at, in_dims=(None, *(0 for _ in inputs)), randomness=randomness)
        return _seeded(call, fixed, *inputs)  # type: ignore[return-value]

    if case.discrete:
        assert all(g.isfinite().all() for g in each("different").values())
        return
    gradients = each("same" if isinstance(model, Bound) else "error")
    for i in range(3):
        value = _seeded(model, *(x[i] for x in inputs))
        assert value.shape == ()
        expected = torch.autograd.grad(value, list(model.parameters()), allow_unused=True) if fixed else ()
        for name, one in zip(fixed, expected, strict=True):
            _close(gradients[name][i], torch.zeros_like(fixed[name]) if one is None else one)


def batches_of_points_are_mapped_too(case: ModuleCase, generator: Generator) -> None:
    """vmap of vmap: rules of torch's for a batch may fail in a batch of batches."""
    model, inputs = _made(case, generator)
    if case.discrete:
        return
    randomness = "same" if isinstance(model, Bound) else "error"
    once = vmap(model, randomness=randomness)
    twice = vmap(once, randomness=randomness)
    one = _seeded(once, *inputs)
    _close(_seeded(twice, *(torch.stack([x, x]) for x in inputs)), torch.stack([one, one]))


def an_averaged_model_has_the_mean_of_the_weights(case: ModuleCase, generator: Generator) -> None:
    model, inputs = _made(case, generator)
    averaged = AveragedModel(model)
    mean = {name: p.detach() + 0.1 for name, p in model.named_parameters()}
    averaged.update_parameters(model)
    if mean:  # torch cannot average no parameters
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.2)
        averaged.update_parameters(model)
    _close(_seeded(averaged, *inputs), _seeded(functional_call, model, mean, inputs))


def a_compiled_model_is_one_graph(case: ModuleCase, generator: Generator) -> None:
    """Captured without a break, and of equal value."""
    model, inputs = _made(case, generator)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    _close(_seeded(compiled, *inputs), _seeded(model, *inputs))


def a_compiled_step_is_one_graph(case: ModuleCase, generator: Generator) -> None:
    """log p and the ELBO, and their gradients in training: forward and backward without a break, of equal values.

    By the backend "aot_eager", which captures both as torch's own compiler does and generates no code.
    """
    model, (x, *context) = _made(case, generator)
    model.train()
    given = {"context": context[0]} if context else {}
    questions: list[Callable[..., Tensor]] = []
    if isinstance(model, Density):
        questions.append(lambda x, **given: model.log_prob(x, **given))
    if isinstance(model, Bound):
        questions.append(lambda x, **given: model.elbo(x, **given, draws=2))
    trained = [p for p in model.parameters() if p.requires_grad]
    for question in questions:
        torch.compiler.reset()
        answers = []
        for call in (torch.compile(question, backend="aot_eager", fullgraph=True), question):
            torch.manual_seed(0)
            value = call(x, **given)
            found = torch.autograd.grad(value.mean(), trained, allow_unused=True) if value.requires_grad else ()
            answers.append((value.detach(), *found))
        for captured, expected in zip(*answers, strict=True):
            assert (captured is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(captured, expected, rtol=1e-9, atol=1e-9)


module_laws: list[Callable[[ModuleCase, Generator], None]] = [
    forward_is_log_prob_or_else_the_elbo,
    other_parameters_can_be_put_in,
    gradients_of_points_are_theirs,
    batches_of_points_are_mapped_too,
    an_averaged_model_has_the_mean_of_the_weights,
    a_compiled_model_is_one_graph,
]


def _made(case: ModuleCase, generator: Generator) -> tuple[nn.Module, tuple[Tensor, ...]]:
    model = case.make(generator)
    return model, case.inputs(model, generator)


def _seeded(call: Callable[..., Tensor], *arguments: object) -> Tensor:
    torch.manual_seed(0)
    return call(*arguments)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
