"""The laws that every model obeys, as functions of a case: a new model is one new line in a table of constructors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from torch import Generator, Tensor, nn

from density.rebuildable import arguments_of, call_signature
from flows import Transform

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def randomise(module: AnyModule, generator: Generator, scale: float = 0.3) -> AnyModule:
    """The module in float64 with every parameter moved at random: no law is tested where it holds for being trivial."""
    module = module.to(device=generator.device, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * _normal(generator, *parameter.shape))
    return module


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# Transforms
# ---------------------------------------------------------------------------------------------------------------------

# Rounding 2e-16, amplified by maps whose scales are within e^±3 a layer and whose matrices have condition numbers below
# 1e3, over some tens of operations.
EXACT = 1e-11


@dataclass(frozen=True)
class TransformCase:
    """A transform to be put before the laws.

    Attributes:
        make: builds it, in float64 and away from the identity, from a generator.
        features: width of the points that the laws try.
        domain: takes normal draws to where forward is defined.
        context_reaches: outputs that depend on the context; None for all of them.
        dead: names of parameters that cannot have a gradient.
        tolerance: of values and derivatives, absolute and relative: by default that of rounding.
    """

    make: Callable[[Generator], Transform]
    features: int = 3
    domain: Callable[[Tensor], Tensor] = lambda x: x
    context_reaches: tuple[int, ...] | None = None
    dead: tuple[str, ...] = ()
    tolerance: float = EXACT

    def close(self, actual: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(actual, expected, rtol=self.tolerance, atol=self.tolerance)

    def all_close(self, actual: list[Tensor], expected: tuple[Tensor, ...]) -> None:
        # Relative to the largest entry of all: single entries of a gradient cancel.
        unit = max(1.0, *(float(tensor.abs().max()) for tensor in expected))
        for a, e in zip(actual, expected, strict=True):
            self.close(a / unit, e / unit)

    def points(self, generator: Generator, *batch: int) -> Tensor:
        return self.domain(1.5 * _normal(generator, *batch, self.features))

    def context(self, transform: Transform, generator: Generator, *batch: int) -> Tensor | None:
        width = transform.context_features
        return _normal(generator, *batch, width) if width else None


def round_trip(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    z, _ = transform.forward(x, context)
    assert (z - x).abs().max() > 1e-3, "the case is the identity and tests nothing"
    back, _ = transform.inverse(z, context)
    case.close(back, x)
    again, _ = transform.forward(back, context)
    case.close(again, z)


def log_det_is_that_of_the_jacobian(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    for _ in range(3):
        x, context = case.points(generator), case.context(transform, generator)
        z, log_det = transform.forward(x, context)
        case.close(log_det, torch.linalg.slogdet(_jacobian(lambda x: transform.forward(x, context)[0], x)).logabsdet)  # noqa: B023
        _, log_det = transform.inverse(z.detach(), context)
        jacobian = _jacobian(lambda z: transform.inverse(z, context)[0], z.detach())  # noqa: B023
        case.close(log_det, torch.linalg.slogdet(jacobian).logabsdet)


def log_dets_of_both_directions_cancel(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    z, there = transform.forward(x, context)
    _, back = transform.inverse(z, context)
    assert there.shape == back.shape == (20,)
    case.close(back, -there)


def every_parameter_gets_a_gradient(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    for direction, start in (("forward", x), ("inverse", transform.forward(x, context)[0].detach())):
        y, log_det = getattr(transform, direction)(start, context)
        # Random weights, so that no gradient vanishes by symmetry; squares, so that constants have one.
        loss = (_normal(generator, *y.shape) * y.square()).sum() + (_normal(generator, 20) * log_det).sum()
        parameters = dict(transform.named_parameters())
        if not parameters:
            continue
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if parameters[name].numel() == 0:
                continue
            alive = gradient is not None and bool((gradient != 0).any())
            assert alive is (name not in case.dead), f"{name}, {direction}"
            assert gradient is None or gradient.isfinite().all(), f"{name}, {direction}"


def dtype_and_device_are_kept(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 5), case.context(transform, generator, 5)
    for dtype in (torch.float64, torch.float32):
        transform = transform.to(dtype)
        start, given = x.to(dtype), None if context is None else context.to(dtype)
        for y, log_det in (
            transform.forward(start, given),
            transform.inverse(transform.forward(start, given)[0], given),
        ):
            assert y.dtype == log_det.dtype == dtype
            assert y.device == log_det.device == x.device
            assert y.isfinite().all()
    if transform.reference is not None:
        with pytest.raises(TypeError, match=r"computes in torch\.float32"):
            transform.forward(x, context)


def state_dict_holds_everything(case: TransformCase, generator: Generator) -> None:
    transform, other = case.make(generator), case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    expected = transform.forward(x, context)
    other.forward(x, context)  # a cache, if there were one, would be filled now
    other.load_state_dict(transform.state_dict())
    _equal(other.forward(x, context), expected)
    _equal(other.inverse(expected[0], context), transform.inverse(expected[0], context))


def a_deep_copy_is_equal_and_apart(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    expected = transform.forward(x, context)
    copy = deepcopy(transform)
    _equal(copy.forward(x, context), expected)
    if list(transform.parameters()):
        randomise(copy, generator)
        assert (copy.forward(x, context)[0] - expected[0]).abs().max() > 1e-3
    _equal(transform.forward(x, context), expected)


def rows_are_independent(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 20), case.context(transform, generator, 20)
    order = torch.randperm(20, generator=generator, device=generator.device)
    others = x.clone()
    others[1:] = case.points(generator, 19)
    for direction, start, changed in (
        ("forward", x, others),
        ("inverse", transform.forward(x, context)[0], transform.forward(others, context)[0]),
    ):
        apply = getattr(transform, direction)
        y, log_det = apply(start, context)
        shuffled = apply(start[order], None if context is None else context[order])
        case.close(shuffled[0], y[order])
        case.close(shuffled[1], log_det[order])
        beside_others = apply(changed, context)
        case.close(beside_others[0][0], y[0])
        case.close(beside_others[1][0], log_det[0])


def context_matters(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator), case.context(transform, generator)
    if context is None:
        with pytest.raises(ValueError, match="takes no context"):
            transform.forward(x, torch.zeros_like(x))
        return
    with pytest.raises(ValueError, match="needs a context"):
        transform.forward(x)
    with pytest.raises(ValueError, match=r"expects a context of shape"):
        transform.inverse(x, torch.cat([context, context], -1))
    reached = range(case.features) if case.context_reaches is None else case.context_reaches
    for direction in (transform.forward, transform.inverse):
        sensitivity = _jacobian(lambda context: direction(x, context)[0], context)  # noqa: B023
        for output in range(case.features):
            # Every context feature, and none where the case says that the context does not get there.
            assert (sensitivity[output] != 0).all() if output in reached else (sensitivity[output] == 0).all(), output


def any_batch_shape_will_do(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 6), case.context(transform, generator, 6)
    z, _ = transform.forward(x, context)
    for direction, start in ((transform.forward, x), (transform.inverse, z)):
        y, log_det = direction(start, context)
        for shape in ((2, 3), (1, 6, 1), (6,)):
            given = None if context is None else context.reshape(*shape, -1)
            many, many_log_det = direction(start.reshape(*shape, -1), given)
            assert many.shape == (*shape, case.features)
            assert many_log_det.shape == shape
            case.close(many.reshape(y.shape), y)
            case.close(many_log_det.reshape(log_det.shape), log_det)
        one, one_log_det = direction(start[0], None if context is None else context[0])
        assert one.shape == (case.features,)
        assert one_log_det.shape == ()
        case.close(one, y[0])
        case.close(one_log_det, log_det[0])
        if context is not None:
            broadcast, log_dets = direction(start[0], context)  # one point, many contexts
            assert broadcast.shape == y.shape
            assert log_dets.shape == (6,)
            case.close(broadcast[0], y[0])
            each = direction(start[:, None], context[:2])  # all pairs
            assert each[0].shape == (6, 2, case.features)
            case.close(each[0][1, 1], y[1])


def no_rows_are_no_trouble(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 0), case.context(transform, generator, 0)
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, context)
        assert y.shape == (0, case.features)
        assert log_det.shape == (0,)


def inputs_are_not_mutated(case: TransformCase, generator: Generator) -> None:
    transform = case.make(generator)
    x, context = case.points(generator, 5), case.context(transform, generator, 5)
    z = transform.forward(x, context)[0].detach()
    before = [x.clone(), z.clone(), None if context is None else context.clone()]
    state = deepcopy(transform.state_dict())
    transform.forward(x, context)
    transform.inverse(z, context)
    for tensor, copy in zip((x, z, context), before, strict=True):
        assert tensor is None or tensor.equal(copy)
    for name, tensor in transform.state_dict().items():
        assert tensor.equal(state[name]), name


def both_directions_are_differentiable(case: TransformCase, generator: Generator) -> None:
    """First derivatives of values and log-determinants in point and context, against finite differences."""
    transform = case.make(generator).requires_grad_(False)
    x, context = case.points(generator, 2), case.context(transform, generator, 2)
    z = transform.forward(x, context)[0]
    for direction, start in ((transform.forward, x), (transform.inverse, z)):
        inputs = tuple(t.detach().requires_grad_() for t in (start, context) if t is not None)
        assert torch.autograd.gradcheck(direction, inputs)


def the_inverse_has_the_gradients_of_the_inverse_function(case: TransformCase, generator: Generator) -> None:
    r"""In the parameters: dx = −J⁻¹ df at fixed z, and the log-determinants stay each other's negatives."""
    transform = case.make(generator)
    parameters = [parameter for parameter in transform.parameters() if parameter.numel()]
    if not parameters:
        return
    x, context = case.points(generator, 5), case.context(transform, generator, 5)
    z = transform.forward(x, context)[0].detach().requires_grad_()
    back, back_log_det = transform.inverse(z, context)
    weights = _normal(generator, *back.shape)
    cotangent, *direct = torch.autograd.grad(
        (weights * back).sum(), [z, *parameters], retain_graph=True, materialize_grads=True
    )
    implicit = torch.autograd.grad(
        -(cotangent * transform.forward(back.detach(), context)[0]).sum(), parameters, materialize_grads=True
    )
    case.all_close(direct, implicit)
    there_log_det = transform.forward(back, context)[1]
    direct = list(torch.autograd.grad(back_log_det.sum(), parameters, retain_graph=True, materialize_grads=True))
    through = torch.autograd.grad(-there_log_det.sum(), parameters, materialize_grads=True)
    case.all_close(direct, through)


def a_bad_argument_is_reported_by_the_class_that_was_called(case: TransformCase, generator: Generator) -> None:
    """A subclass of somebody's own is named too, and not the one that it comes from."""
    transform = case.make(generator)
    own = type("Own", (type(transform),), {})
    if own.__init__ is nn.Module.__init__:
        return  # takes no arguments
    variadic, arguments = arguments_of(transform)
    assert arguments_of(own(*variadic, **arguments)) == (variadic, arguments)  # though it has no __init__ of its own
    first, *_ = call_signature(own).parameters.values()
    several = first.kind is inspect.Parameter.VAR_POSITIONAL
    for bad in ("abc", None):
        with pytest.raises((TypeError, ValueError), match=r"^Own\b.*\bgot\b|^Own is made of Transforms; part 1 is a"):
            _ = own(*variadic[:1], bad) if several else own(**{**arguments, first.name: bad})


transform_laws: list[Callable[[TransformCase, Generator], None]] = [
    round_trip,
    log_det_is_that_of_the_jacobian,
    log_dets_of_both_directions_cancel,
    every_parameter_gets_a_gradient,
    dtype_and_device_are_kept,
    state_dict_holds_everything,
    a_deep_copy_is_equal_and_apart,
    rows_are_independent,
    context_matters,
    any_batch_shape_will_do,
    no_rows_are_no_trouble,
    inputs_are_not_mutated,
    both_directions_are_differentiable,
    the_inverse_has_the_gradients_of_the_inverse_function,
    a_bad_argument_is_reported_by_the_class_that_was_called,
]


def _jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    jacobian: Tensor = torch.autograd.functional.jacobian(function, at)
    return jacobian


def _equal(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert actual[0].equal(expected[0])
    assert actual[1].equal(expected[1])
