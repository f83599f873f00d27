"""The law of units: what a model says of data must not depend on the units that the data, or its contexts, came in.

A model that has seen ax + b at its start says of ax + b what it says of x when it has seen that, less the log-volume of
the change. Before training the two agree to rounding; after equal training as well, where steps have no units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Generator, Tensor

from bridge import HalfNormal
from density import Bound, Density, ExactModel, Training
from tests.laws.transforms import randomise

ROWS = 120
# Rounding 2e-16 of points 5 to 10 standard deviations from 0, amplified by log-densities that change by some ten nats a
# standard deviation and by layers of gains below ten.
EXACT = 1e-9
ROUNDING = 1e-13  # relative: of log-densities of 1e7 nats, as an encoder that never trained may meet
SOME_STEPS = Training(epochs=3, batch_size=30, validation=0.0, progress=False)


@dataclass(frozen=True)
class UnitsCase:
    """A model that takes its units from data.

    Attributes:
        make: builds it, for data of about that size.
        features: D.
        context: C.
        domain: takes normal draws to data.
        scales: factors by which the data may be multiplied.
        shift: what may be added to data of size 1.
        counted: how many features of each point have a density.
        told: whether data multiplied so can be told from what the model started from; logarithms only move.
        least_told: the least factor for which it can be.
        tolerance: of what has not been trained, nats.
    """

    make: Callable[[float], Density | Bound]
    features: int
    context: int = 0
    domain: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    scales: tuple[float, ...] = (1e-3, 1.0, 1e3)
    shift: float = 5.0
    counted: Callable[[Tensor], Tensor] = field(default=lambda x: x.new_full(x.shape[:-1], x.shape[-1]))
    told: bool = True
    least_told: float = 10.0
    tolerance: float = EXACT

    def data(self, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Points ``[n, D]`` and contexts ``[n, C]``, one on the other dependent."""
        noise = torch.randn(ROWS, self.features + self.context, generator=generator, dtype=torch.float64)
        noise = noise + 0.3 * noise[:, :1] ** 2
        context = noise[:, self.features :] if self.context else None
        return self.domain(noise[:, : self.features]), context

    def model(self, unit: float, generator: Generator) -> Density | Bound:
        """In float64 and away from the identity, but for parameters that start from data themselves."""
        torch.manual_seed(0)
        model = randomise(self.make(unit), generator, 0.2)
        for part in model.modules():
            if isinstance(part, HalfNormal):
                part.log_scale.detach().zero_()
        return model


def values(model: Density | Bound, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x), or log-weights with draws that are always the same, ``[*, n]``."""
    with torch.no_grad():
        if isinstance(model, Density):
            return model.log_prob(x, context)
        given = {} if context is None else {"context": context}
        return model.log_weights(x, 3, generator=Generator().manual_seed(7), **given)  # type: ignore[arg-type]


def started(case: UnitsCase, unit: float, x: Tensor, context: Tensor | None) -> Tensor:
    model = case.model(unit, Generator().manual_seed(1))
    model.initialise(x, context)
    return values(model, x, context)


def fitted(case: UnitsCase, unit: float, x: Tensor, context: Tensor | None) -> Tensor:
    model = case.model(unit, Generator().manual_seed(1))
    if context is None:
        model.fit(x, SOME_STEPS, generator=Generator().manual_seed(2))  # type: ignore[call-arg,union-attr,operator]
    else:
        model.fit(x, SOME_STEPS, context=context, generator=Generator().manual_seed(2))  # type: ignore[call-arg,union-attr,operator]
    return values(model, x, context)


def law_of_units(case: UnitsCase, scale: float, by: Callable[..., Tensor], tolerance: float) -> None:
    """log p(a x + b) + D log a = log p(x)."""
    x, context = case.data(Generator().manual_seed(3))
    moved = scale * x + scale * case.shift
    volume = case.counted(moved) * math.log(scale)
    torch.testing.assert_close(
        by(case, scale, moved, context) + volume, by(case, 1.0, x, context), rtol=ROUNDING, atol=tolerance
    )


def law_of_contexts(case: UnitsCase, scale: float, shift: float, by: Callable[..., Tensor], tolerance: float) -> None:
    """log p(x | a c + b) = log p(x | c)."""
    x, context = case.data(Generator().manual_seed(3))
    assert context is not None
    torch.testing.assert_close(
        by(case, 1.0, x, scale * context + shift), by(case, 1.0, x, context), rtol=0, atol=tolerance
    )


def is_a_start(case: UnitsCase) -> None:
    """It does something, the same each time, at a second time nothing, and takes no random numbers of others."""
    x, context = case.data(Generator().manual_seed(3))
    x = 50 * x + 50 * case.shift if case.scales != (1.0,) else x + case.shift
    model, again = (case.model(50.0, Generator().manual_seed(1)) for _ in range(2))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.initialise(x, context)
    again.initialise(x, context)
    assert random.equal(torch.get_rng_state())
    once = {k: v.clone() for k, v in model.state_dict().items()}
    assert any(not value.equal(before[name]) for name, value in once.items())
    assert all(value.equal(once[name]) for name, value in again.state_dict().items())
    model.initialise(x, context)
    assert all(value.equal(once[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def refuses_other_units(case: UnitsCase) -> None:
    """A second start from data in other units is refused, and nothing is changed."""
    x, context = case.data(Generator().manual_seed(3))
    model = case.model(1.0, Generator().manual_seed(1))
    model.initialise(x, context)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    others = [(scale * x, context) for scale in (*case.scales, case.least_told) if scale != 1 and case.told]
    others += [(x, scale * context + 1e4) for scale in case.scales if context is not None]
    for other in others:
        with pytest.raises(ValueError, match=r"was fitted to .* in other units: column \d.*Build a new model"):
            model.initialise(*other)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    if isinstance(model, ExactModel):
        model.initialise(2 * x, context)
