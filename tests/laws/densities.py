"""The laws that every density obeys, as functions of a case: a new density is one new line in a table."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density.data.states import States
from tests.laws.density_case import DensityCase, normal, seeded

# Rounding 2e-16 times a few hundred operations on log-densities of size up to 100.
EXACT = 1e-11


def mass_is_one(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    for _ in range(2):
        _, mass = case.masses(density, case.context(density, generator), generator)
        # The trapezoid rule is exact beyond rounding for analytic densities; kinks of a flow leave 1e-6.
        assert abs(mass.sum().item() - 1) < 1e-5
        assert mass.max() < 0.999, "the case has no spread and tests nothing"


def alphabets_are_the_values(case: DensityCase, generator: Generator) -> None:
    """Each value once, in whatever order; and none of a density that is continuous, or whose values have no end."""
    density = case.make(generator)
    if case.values is None or not case.countable:
        assert density.alphabets == ()
        return
    states = States(density.alphabets)
    assert states.columns == tuple(range(density.features))
    found = torch.cat(list(states.blocks(3)))
    assert found.dtype == density.reference.dtype
    assert len(found) == states.count == len(case.values)
    assert (found.unsqueeze(1) == case.values.to(found)).all(-1).sum(0).eq(1).all()


def samples_agree_with_log_prob(case: DensityCase, generator: Generator) -> None:
    """First and second moments of 40,000 draws against those of exp(log_prob); frequencies, for a discrete density."""
    density, n = case.make(generator), 40_000
    context = case.context(density, generator)
    values, mass = case.masses(density, context, generator)
    with torch.no_grad():
        if context is None:
            x = density.sample(n, generator=generator)
        else:  # between two other contexts, whose draws must not get mixed up with its own
            others = [case.context(density, generator) for _ in range(2)]
            many = density.sample(n, context=torch.stack([others[0], context, others[1]]), generator=generator)
            assert many.shape == (n, 3, density.features)
            x = many[:, 1]
    assert x.shape == (n, density.features)
    if case.values is not None:
        counts = (x.unsqueeze(1) == values).all(-1).sum(0)
        assert counts.sum() == n, "a draw is not among the values"
        usual = n * mass >= 1
        chi_square = ((counts - n * mass).square() / (n * mass))[usual].sum().item()
        assert counts[~usual].sum() <= n * mass[~usual].sum() + 5
        # Mean K − 1 and variance 2(K − 1): five standard deviations, and some for the skewness.
        assert chi_square < len(mass) - 1 + 8 * math.sqrt(2 * len(mass))
        return
    for power in (torch.positive, _quadratic):
        at_values, at_draws = power(values), power(x)
        expected = mass @ at_values
        spread = (mass @ (at_values - expected).square()).sqrt()
        assert ((at_draws.mean(0) - expected).abs() <= 5 * spread / math.sqrt(n) + 1e-5).all(), power.__name__


def expectation_is_the_mean(case: DensityCase, generator: Generator) -> None:
    """By quadrature or enumeration; and for many contexts at once. Else one error says that there is no closed form."""
    density = case.make(generator)
    contexts = case.context(density, generator, 2, 3)
    if not case.expected:
        with pytest.raises(TypeError, match=r"^\w+ has no expectation in closed form; average draws, sample\(n"):
            density.expectation(contexts)
        return
    context = None if contexts is None else contexts[1, 2]
    values, mass = case.masses(density, context, generator)
    expectation = density.expectation(contexts)
    assert expectation.shape == ((density.features,) if contexts is None else (2, 3, density.features))
    torch.testing.assert_close(expectation.reshape(-1, density.features)[-1], mass @ values, rtol=1e-5, atol=1e-5)


def draws_come_with_their_log_prob(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    for batch in ((), (4,), (2, 3)):
        context = case.context(density, generator, *batch)
        shape = (5, *batch) if context is not None else (5,)
        x, log_prob = density.sample_with_log_prob(5, context=context, generator=seeded(generator))
        assert x.shape == (*shape, density.features)
        assert log_prob.shape == shape
        _close(density.log_prob(x, context), log_prob)
        _close(density.sample(5, context=context, generator=seeded(generator)), x)
        assert x.std(0).max() > 1e-3, "all draws are the same"


def draws_are_pathwise_where_reparametrised(case: DensityCase, generator: Generator) -> None:
    """Derivatives of a draw and of its log-density along a random direction of all parameters, by differences."""
    density = case.make(generator)
    parameters = [p for p in density.parameters() if p.numel()]
    if not parameters:
        return
    context = case.context(density, generator, 3)
    x, log_prob = density.sample_with_log_prob(4, context=context, generator=seeded(generator))
    if not case.pathwise:
        gradients = torch.autograd.grad(x.sum() + 0 * log_prob.sum(), parameters, allow_unused=True)
        assert all(g is None or not g.any() for g in gradients), "a discrete draw has no derivative"
        return
    weights, direction = normal(generator, *x.shape), [normal(generator, *p.shape) for p in parameters]

    def along(t: float) -> tuple[Tensor, Tensor]:
        moved = deepcopy(density)
        with torch.no_grad():
            for p, d in zip([p for p in moved.parameters() if p.numel()], direction, strict=True):
                p.add_(t * d)
            y, value = moved.sample_with_log_prob(4, context=context, generator=seeded(generator))
        return (weights * y).sum(), value.sum()

    step = 1e-5
    for index, value in enumerate(((weights * x).sum(), log_prob.sum())):
        value = value + 0 * sum(
            p.sum() for p in parameters
        )  # with a fixed σ the density of a draw hangs on none of them
        gradients = torch.autograd.grad(value, parameters, retain_graph=True)
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        difference = (along(step)[index] - along(-step)[index]) / (2 * step)
        # Central differences: step² times third derivatives, and rounding over step, 1e-11 times values up to 100.
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-6)
        assert index or difference.abs() > 1e-3, "the draw does not move"


def log_prob_is_that_of_the_oracle(case: DensityCase, generator: Generator) -> None:
    if case.oracle is None:
        return
    density = case.make(generator)
    x, context = case.points(density, generator, 6), case.context(density, generator, 6)
    with torch.no_grad():
        ours = density.log_prob(x, context)
        theirs = [case.oracle(density, x[i], None if context is None else context[i]) for i in range(6)]
    np.testing.assert_allclose(ours.cpu().numpy(), theirs, rtol=1e-10, atol=1e-10)


def log_prob_is_differentiable(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator).requires_grad_(False)
    x, context = case.points(density, generator, 3), case.context(density, generator, 3)
    if case.values is not None and context is None:
        return
    inputs = tuple(t.requires_grad_() for t in ((x, context) if case.values is None else (context,)) if t is not None)
    if case.values is None:
        assert torch.autograd.gradcheck(density.log_prob, inputs)
    else:
        assert torch.autograd.gradcheck(lambda context: density.log_prob(x, context), inputs)


def every_parameter_gets_a_gradient(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    parameters = {name: p for name, p in density.named_parameters() if p.numel()}
    if not parameters:
        return
    x, context = case.points(density, generator, 20), case.context(density, generator, 20)
    loss = (normal(generator, 20) * density.log_prob(x, context)).sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        alive = gradient is not None and bool((gradient != 0).any())
        assert alive is not name.startswith(case.dead or ("\0",)), name
        assert gradient is None or gradient.isfinite().all(), name


def context_broadcasts_and_matters(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, width = case.points(density, generator, 6), density.context_features
    if not width:
        for call in (lambda c: density.log_prob(x, c), lambda c: density.sample(2, context=c), density.expectation):
            with pytest.raises(ValueError, match="takes no context"):
                call(torch.zeros_like(x))
        return
    context = normal(generator, 6, width)
    log_prob = density.log_prob(x, context)
    pairs = density.log_prob(x[:, None], context)  # [6, 1, D] with [6, C]: every point at every context
    assert pairs.shape == (6, 6)
    _close(pairs.diagonal(), log_prob)
    _close(density._log_prob_at_each(x, context), pairs)
    _close(density.log_prob(x[0], context), pairs[0])
    _close(density.log_prob(x, context[0]), pairs[:, 0])
    draws = case.points(density, generator, 4, 6)
    many = density.log_prob(draws, context)  # [draws, *batch, D] with [*batch, C]
    assert many.shape == (4, 6)
    _close(many[2], density.log_prob(draws[2], context))
    assert pairs.std(1).min() > 1e-4, "the context does not matter"
    for feature in range(width):
        moved = context.clone()
        moved[:, feature] += 0.5
        assert (density.log_prob(x, moved) - log_prob).abs().max() > 1e-4, f"context feature {feature} does not matter"
    for call in (
        lambda c: density.log_prob(x, c),
        lambda c: density.sample(2, context=c),
        lambda c: density.sample_with_log_prob(2, context=c),
        density.expectation,
    ):
        with pytest.raises(ValueError, match=f"needs a context of shape .*{width}"):
            call(None)
        with pytest.raises(ValueError, match=f"expects a context of shape .*{width}"):
            call(torch.cat([context, context], -1))
        with pytest.raises(TypeError, match="context"):
            call(context.float())


def any_batch_shape_will_do(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, context = case.points(density, generator, 6), case.context(density, generator, 6)
    log_prob = density.log_prob(x, context)
    assert log_prob.shape == (6,)
    for shape in ((2, 3), (1, 6, 1), (6,)):
        given = None if context is None else context.reshape(*shape, -1)
        many = density.log_prob(x.reshape(*shape, -1), given)
        assert many.shape == shape
        _close(many.reshape(6), log_prob)
    one = density.log_prob(x[0], None if context is None else context[0])
    assert one.shape == ()
    _close(one, log_prob[0])
    none = density.log_prob(x[:0], None if context is None else context[:0])
    assert none.shape == (0,)


def rows_are_independent(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, context = case.points(density, generator, 20), case.context(density, generator, 20)
    order = torch.randperm(20, generator=generator, device=generator.device)
    log_prob = density.log_prob(x, context)
    _close(density.log_prob(x[order], None if context is None else context[order]), log_prob[order])
    others = torch.cat([x[:1], case.points(density, generator, 19)])
    _close(density.log_prob(others, context)[0], log_prob[0])


def dtype_and_device_are_kept(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, context = case.points(density, generator, 8), case.context(density, generator, 8)
    double = density.log_prob(x, context)
    for dtype in (torch.float64, torch.float32):
        density = density.to(dtype)
        given = None if context is None else context.to(dtype)
        log_prob = density.log_prob(x.to(dtype), given)
        draws, of_draws = density.sample_with_log_prob(2, context=given, generator=generator)
        for result in (log_prob, draws, of_draws, density.sample(2, context=given, generator=generator)):
            assert result.dtype == dtype
            assert result.device == x.device
        # float32 rounds at 6e-8, amplified by whitening and by sums of some ten terms of size up to 100.
        torch.testing.assert_close(log_prob.double(), double, rtol=3e-4, atol=3e-4)
    with pytest.raises(TypeError, match=r"computes in torch\.float32"):
        density.log_prob(x, context)


def draws_come_from_the_generator(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    context = case.context(density, generator, 3)
    before = torch.get_rng_state()
    first = density.sample(40, context=context, generator=seeded(generator))
    assert first.equal(density.sample(40, context=context, generator=seeded(generator)))
    assert not first.equal(density.sample(40, context=context, generator=seeded(generator, 1)))
    density.sample_with_log_prob(4, context=context, generator=seeded(generator))
    assert torch.get_rng_state().equal(before), "drawing with a generator moved the global one"
    density.log_prob(*((first[0], context) if context is not None else (first,)))
    assert torch.get_rng_state().equal(before), "log_prob drew something"


def copies_are_equal_and_apart(case: DensityCase, generator: Generator) -> None:
    density, other = case.make(generator), case.make(generator)
    x, context = case.points(density, generator, 8), case.context(density, generator, 8)
    expected = density.log_prob(x, context).detach()
    file = io.BytesIO()
    torch.save(density.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    copy, thawed = deepcopy(density), pickle.loads(pickle.dumps(density))
    for same in (other, copy, thawed):
        assert same.log_prob(x, context).equal(expected)
        assert same.sample(3, context=context, generator=seeded(generator)).equal(
            density.sample(3, context=context, generator=seeded(generator))
        )
        with torch.no_grad():
            for p in same.parameters():
                p.add_(0.3)
    assert density.log_prob(x, context).equal(expected), "a copy shares its parameters with the original"


def inputs_are_not_mutated(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, context = case.points(density, generator, 5), case.context(density, generator, 5)
    before = x.clone(), None if context is None else context.clone()
    state = deepcopy(density.state_dict())
    density.log_prob(x, context)
    density.sample(3, context=context, generator=generator)
    density.sample_with_log_prob(3, context=context, generator=generator)
    assert x.equal(before[0])
    assert context is None or context.equal(before[1])
    for name, tensor in density.state_dict().items():
        assert tensor.equal(state[name]), name


def misuse_is_one_clear_error(case: DensityCase, generator: Generator) -> None:
    density = case.make(generator)
    x, context = case.points(density, generator, 4), case.context(density, generator, 4)
    with pytest.raises(ValueError, match=rf"expects x of shape \[\*batch, {density.features}\]; got \[4, "):
        density.log_prob(torch.cat([x, x], -1), context)
    with pytest.raises(ValueError, match=r"expects x of shape"):
        density.log_prob(x[0, 0], context)
    with pytest.raises(TypeError, match="floating point"):
        density.log_prob(x.long(), context)
    with pytest.raises(TypeError, match=r"torch\.Tensor; got ndarray"):
        density.log_prob(x.cpu().numpy(), context)  # type: ignore[arg-type]
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="n must be a positive int"):
            density.sample(n, context=context)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n must be a positive int"):
            density.sample_with_log_prob(n, context=context)  # type: ignore[arg-type]


density_laws: list[Callable[[DensityCase, Generator], None]] = [
    mass_is_one,
    alphabets_are_the_values,
    samples_agree_with_log_prob,
    expectation_is_the_mean,
    draws_come_with_their_log_prob,
    draws_are_pathwise_where_reparametrised,
    log_prob_is_that_of_the_oracle,
    log_prob_is_differentiable,
    every_parameter_gets_a_gradient,
    context_broadcasts_and_matters,
    any_batch_shape_will_do,
    rows_are_independent,
    dtype_and_device_are_kept,
    draws_come_from_the_generator,
    copies_are_equal_and_apart,
    inputs_are_not_mutated,
    misuse_is_one_clear_error,
]


def _quadratic(x: Tensor) -> Tensor:
    return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=EXACT, atol=EXACT)
