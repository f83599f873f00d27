r"""Parts of a model that compute by a numerical method, and what a claim says of their error.

A chain of layers is exact up to rounding. The solution of a differential equation is known to a tolerance, and a trace
that is estimated by probes is drawn. What that does to log p(x) depends on everything that follows in the model, so it
is not asked of the parts and added up: the whole model is evaluated again with all of them looser, and with other
draws. So one mechanism serves every model that has such a part anywhere: a flow, a chain, an inverse, a flow of flows,
a tight layered model. What is a mean over draws, such as an importance-weighted bound, is as far off as its log-weights
are at most, which are asked at a few draws in place of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from density.checks import reference
from density.log_density import Kind, LogDensity

LOOSER = 10.0
LEAST = 1e-2  # of the tolerance: by how much less than it no method is believed to err
ASKED = 4  # draws of a point, whose log-weights are evaluated twice
ROUNDING = 64.0  # units in the last place, which some thousand operations lose in other models as well


class Numerical(nn.Module):
    """A part of a model that computes by a numerical method.

    Attributes:
        tolerance: the error of a log-density, in nats, that the part is set to make at most.
        repeats: evaluations that a claim is the mean of, where the part draws; 1 where it does not.
        looseness: by how much the method is looser at the moment than it is set to be; :func:`running` changes it.
        generator: what is drawn from at the moment; torch's global one if None.
    """

    tolerance: float
    repeats: int = 1
    looseness: float = 1.0
    generator: Generator | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Log-densities by a model with numerical parts, or without.

    Attributes:
        value: ``[n]``, nats.
        kind: exact, if nothing was drawn and no error exceeds the tolerance; else an estimate.
        words: what to add to the method; empty for a model without numerical parts.
        monte_carlo_error, numerical_error: see :class:`~density.log_density.Claim`.
    """

    value: Tensor
    kind: Kind = Kind.EXACT
    words: str = ""
    monte_carlo_error: Tensor | None = None
    numerical_error: Tensor | None = None


def numerical_parts(model: nn.Module) -> list[Numerical]:
    """The numerical parts of a model, however deep. O(parts)."""
    return [part for part in model.modules() if isinstance(part, Numerical)]


def check_draws_nothing(model: nn.Module) -> None:
    """Raise TypeError if a numerical part of a model draws, and its log-weights are noisy: their mean is no bound."""
    for part in numerical_parts(model):
        if part.repeats > 1:
            raise TypeError(
                f"{type(model).__name__} holds a {type(part).__name__} that estimates its trace by probes: weights "
                "with such noise bound nothing. Give it an ExactTrace() for claims, on the same velocity"
            )


@contextmanager
def running(
    parts: Sequence[Numerical], *, looseness: float = 1.0, generator: Generator | None = None
) -> Iterator[None]:
    """Numerical parts looser by a factor than they are set, and drawing from a generator; afterwards as they were."""
    momentary = {"looseness": looseness, "generator": generator}
    found = [(part, {name: vars(part)[name] for name in momentary if name in vars(part)}) for part in parts]
    try:
        for part in parts:
            vars(part).update(momentary)
        yield
    finally:
        for part, before in found:
            for name in momentary:
                del vars(part)[name]  # what a part never had of its own is the class's again, and no part of a file
            vars(part).update(before)


def evaluated_numerically(
    model: nn.Module, evaluate: Callable[[], Tensor], generator: Generator | None = None
) -> Evaluation:
    r"""What a model evaluates to, and the error that its numerical parts make in it.

    The numerical error of a value is estimated by its distance to that of methods ten times looser, with the same
    draws. That is about the error of the looser ones, and so more than the error of the value. Two values of one point
    may agree by chance, so it is at least the root mean square over all points; all points may, where both methods take
    nearly the same steps, so a hundredth of the tolerance is added, and rounding. What neither of them sees, such as a
    burst that both step over, is not in the error. The Monte Carlo error is that of a mean over repeats, each with
    draws of its own.

    Args:
        model: whose parts are asked.
        evaluate: makes log-densities ``[n]``.
        generator: of draws; torch's global one if None. Models without draws leave it alone.

    Cost: one evaluation, if there are no numerical parts; else one for each repeat, and about three quarters of one.
    """
    parts = numerical_parts(model)
    if not parts:
        return Evaluation(evaluate())
    repeats, tolerance = max(part.repeats for part in parts), math.fsum(part.tolerance for part in parts)
    device = reference(model).device
    seed = int(torch.randint(2**62, (), generator=generator, device=device)) if repeats > 1 else 0
    with running(parts, generator=Generator(device).manual_seed(seed)):
        values = torch.stack([evaluate() for _ in range(repeats)])
    with running(parts, looseness=LOOSER, generator=Generator(device).manual_seed(seed)):
        distance = (values[0] - evaluate()).abs()
    value = values.mean(0)
    distance = distance.masked_fill(value.isinf(), 0.0)  # outside of what a base or a layer takes
    rounding = ROUNDING * torch.finfo(value.dtype).eps * (1 + value.abs().masked_fill(value.isinf(), 0.0))
    error = torch.maximum(distance, distance.square().mean().sqrt()) + LEAST * tolerance + rounding
    allowed = tolerance + rounding
    met = bool((error <= allowed).all())
    words = f"{'solved' if met else 'not solved'} to {float(allowed.max()):.1g} nats"
    if repeats == 1:
        return Evaluation(value, Kind.EXACT if met else Kind.ESTIMATE, words, None, error)
    drawn = values.std(0) / math.sqrt(repeats)
    return Evaluation(value, Kind.ESTIMATE, f"{words}, {repeats} repeats of its probes", drawn, error)


def with_numerical_error(
    model: nn.Module, claim: LogDensity, log_weights: Callable[[int, Generator], Tensor], generator: Generator | None
) -> LogDensity:
    """A claim by weights, importance or annealed, or by quadrature, with the error that numerical parts make in it.

    That of a log-mean of weights is at most that of the worst log-weight, and is added to what the claim states. It is
    estimated as of log-densities (:func:`evaluated_numerically`) at four draws a point, of which the largest counts.
    Beyond the tolerance the claim is an estimate: a bound that is off by more is none.

    Args:
        model: whose parts are asked; without numerical parts the claim stays as it is, and nothing is drawn.
        claim: about n points.
        log_weights: draws so many of them for each point, ``[draws, n]``, in the model's dtype, from a generator; of an
            integral, log-joints.
        generator: of these draws, after those of the claim; torch's global one if None.

    Cost: four draws a point, twice.
    """
    if not numerical_parts(model):
        return claim
    device = reference(model).device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    found = evaluated_numerically(model, lambda: log_weights(ASKED, Generator(device).manual_seed(seed)).reshape(-1))
    assert found.numerical_error is not None
    error = found.numerical_error.reshape(ASKED, -1).amax(0).to(claim.value)
    return replace(
        claim,
        kind=claim.kind if found.kind is Kind.EXACT else Kind.ESTIMATE,
        method=f"{claim.method}, {found.words}",
        numerical_error=error if claim.numerical_error is None else claim.numerical_error + error,
    )
