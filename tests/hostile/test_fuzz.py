"""Random arguments and tensors against every public constructor and call: the documented errors, and no silent nan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bridge import DeltaLink, Slice
from density import ConditionalBernoulli, ConditionalCategorical, Density, Moments, NonFiniteObjective, Rescaled
from flows import AffineCoupling, Permutation, Transform
from tests.hostile.fuzz import CALLS, CONSTRUCTORS, MODELS, PAIRS, Drawn, seeded, tensors

NAN = torch.full((1, 2), torch.nan)
DOCUMENTED = (TypeError, ValueError, NonFiniteObjective)
# TypeErrors that Python raises by itself say nothing of what to do.
UNHELPFUL = ("unsupported operand", "object is not", "not supported between", "cannot be interpreted", "got multiple")

short = settings(max_examples=400, derandomize=True, deadline=None, database=None)
long = settings(max_examples=6000, deadline=None, database=None)


def results(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from results(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from results(getattr(value, field.name))


def explained(error: Exception) -> None:
    """Written by us, for the one who made the mistake."""
    message = str(error)
    assert len(message) > 20, repr(error)
    assert not any(phrase in message for phrase in UNHELPFUL), repr(error)


def construct(name: str, data: st.DataObject) -> None:
    make, strategies = CONSTRUCTORS[name]
    arguments = [data.draw(strategy) for strategy in strategies]
    torch.manual_seed(0)
    try:
        made = make(*arguments)
    except DOCUMENTED:  # Python's own TypeErrors too: that 3 is no sequence of widths needs no words of ours
        return
    if isinstance(made, Density) and not made.context_features:
        x = made.sample(2, generator=seeded())
        assert x.shape == (2, made.features)
        assert made.log_prob(x).isfinite().all()
    elif isinstance(made, Transform) and made.features and not made.context_features:
        z, log_det = made(torch.full((2, made.features), 0.5, dtype=getattr(made.reference, "dtype", torch.float32)))
        assert z.isfinite().all()
        assert log_det.isfinite().all()
    elif isinstance(made, nn.Module):
        for parameter in made.parameters():
            assert parameter.isfinite().all()


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, Drawn]:
    model, call = draw(st.sampled_from(PAIRS))
    return model, call, draw(tensors(2))


def called(case: tuple[str, str, Drawn]) -> None:
    name, call, drawn = case
    torch.manual_seed(0)
    model = MODELS[name]()
    if isinstance(drawn.x, Tensor) and drawn.x.dtype in (torch.float64, torch.float32):
        model = model.to(drawn.x.dtype)
    before = drawn.x.detach().clone() if isinstance(drawn.x, Tensor) else None
    try:
        value = CALLS[call](model, drawn.x)
    except DOCUMENTED as error:
        explained(error)
    else:
        if drawn.ordinary:
            for tensor in results(value):
                assert not tensor.isnan().any(), f"{name}.{call} made nan of ordinary numbers"
            for key, tensor in model.state_dict().items():
                assert tensor.isfinite().all(), f"{name}.{call} left {key} not finite"
    if before is not None:
        assert torch.equal(drawn.x.nan_to_num(), before.nan_to_num()), "the input was changed"


@pytest.mark.parametrize("name", CONSTRUCTORS)
@given(data=st.data())
@settings(short, max_examples=25)
def test_constructors(name: str, data: st.DataObject) -> None:
    construct(name, data)


@given(calls())
@short
def test_calls(case: tuple[str, str, Drawn]) -> None:
    called(case)


@given(tensors(3), st.one_of(st.none(), tensors(1)))
@short
def test_moments(x: Drawn, weights: Drawn | None) -> None:
    given_weights = None if weights is None or not isinstance(weights.x, Tensor) else weights.x.detach().flatten().abs()
    try:
        moments = Moments.of(x.x, given_weights)
    except DOCUMENTED as error:
        explained(error)
        return
    if x.ordinary and (weights is None or weights.ordinary):
        for tensor in (moments.count, moments.mean, moments.scatter):
            assert tensor.isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AffineCoupling(None), TypeError, "AffineCoupling expects a mask"),  # type: ignore[arg-type]
        (lambda: Permutation(None), TypeError, "Permutation expects an order"),  # type: ignore[arg-type]
        (lambda: DeltaLink(None, 2), TypeError, "DeltaLink takes a Transform"),  # type: ignore[arg-type]
        (lambda: Rescaled(3), TypeError, "Rescaled takes a Density"),  # type: ignore[arg-type]
        (lambda: Slice(3, [0], None), TypeError, "the rest must be a Density"),  # type: ignore[arg-type]
        (lambda: Moments.of(torch.ones(3)), ValueError, r"Moments.of expects points \[n, D\]"),
        (lambda: Moments.of(torch.ones(3, 1), torch.ones(2)), ValueError, r"weights \[n\]; got \[3, 1\] and \[2\]"),
        (
            lambda: ConditionalBernoulli(nn.Identity(), 2, 2).sample(1, context=NAN),
            ValueError,
            "cannot draw.*nan or inf",
        ),
        (
            lambda: ConditionalCategorical(nn.Identity(), 2, 2).sample(1, context=NAN),
            ValueError,
            "cannot draw.*nan or inf",
        ),
    ],
)
def test_what_the_fuzz_found(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSTRUCTORS)
@given(data=st.data())
@settings(long, max_examples=300)
def test_constructors_at_length(name: str, data: st.DataObject) -> None:
    construct(name, data)


@pytest.mark.slow
@given(calls())
@long
def test_calls_at_length(case: tuple[str, str, Drawn]) -> None:
    called(case)
