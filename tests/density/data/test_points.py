"""Which points a claim is about: the same points in the same order, and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from density.data import points as module
from density.data.points import Points


@pytest.fixture
def x(generator: Generator, device: torch.device) -> Tensor:
    return torch.randn(50, 3, generator=generator, device=device, dtype=torch.float64)


@pytest.mark.parametrize("scalars", [1, 7, 30, 2**16])
@pytest.mark.parametrize("features", [1, 2, 3, 8])
def test_the_identity_does_not_depend_on_blocks(
    features: int, scalars: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(41, features, generator=generator)
    whole = Points.of(x)
    monkeypatch.setattr(module, "SCALARS_AT_ONCE", scalars)
    assert Points.of(x) == whole
    for cut in (0, 1, 17, 41):
        assert Points.concatenate([Points.of(x[:cut]), Points.of(x[cut:])]) == whole
    assert Points.concatenate([Points.of(row) for row in x.split(1)]) == whole
    assert str(whole) == f"41 rows of {features} features"


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "a copy": lambda x: x.clone(),
    "in float32": lambda x: x.float(),
    "in float32 and back": lambda x: x.float().double(),
    "columns apart in memory": lambda x: x.mT.contiguous().mT,
    "every other row of more": lambda x: torch.stack([x, x + 1], 1).flatten(0, 1)[::2],
    "with a graph": lambda x: x.clone().requires_grad_() * 1,
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_points(change: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert Points.of(change(x)) == Points.of(x)


OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "reversed": lambda x: x.flip(0),
    "two rows exchanged": lambda x: x[[1, 0, *range(2, 50)]],
    "features exchanged": lambda x: x.flip(1),
    "one ulp of float32": lambda x: torch.nextafter(x.float(), x.float().new_tensor(9e9)),
    "one value": lambda x: torch.cat([x[:-1], x[-1:] + torch.tensor([0.0, 0.0, 1e-3]).to(x)]),
    "one value of the first feature": lambda x: torch.cat([x[:1] + torch.tensor([1e-3, 0.0, 0.0]).to(x), x[1:]]),
    "one row less": lambda x: x[1:],
    "one row twice": lambda x: torch.cat([x, x[-1:]]),
    "other units": lambda x: 2 * x,
    "another sign": lambda x: -x,
    "fewer features": lambda x: x[:, :2],
    "a feature of zeros": lambda x: torch.cat([x, torch.zeros_like(x[:, :1])], 1),
    "a hole": lambda x: x.masked_fill(x == x[3, 1], torch.nan),
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_other_points(change: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert Points.of(change(x)) != Points.of(x)


def test_zeros_and_holes_have_one_pattern() -> None:
    assert Points.of(torch.tensor([[-0.0, 1.0]])) == Points.of(torch.tensor([[0.0, 1.0]]))
    hole = torch.tensor([[torch.nan, 1.0]])
    for bits in (0x7FC00001, -0x400000):  # another payload, another sign
        other = torch.tensor([[bits, 0x3F800000]], dtype=torch.int32).view(torch.float32)
        assert other.isnan().tolist() == [[True, False]]
        assert Points.of(other) == Points.of(hole)
    assert Points.of(hole) != Points.of(hole.flip(1))


def test_no_rows_are_points() -> None:
    assert Points.of(torch.zeros(0, 3)) == Points(0, 3, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=2, max_size=6), st.data())
def test_small_integers_are_told_apart(rows: list[list[int]], data: st.DataObject) -> None:
    """They differ in a few high bits of a float alone, which products carry nowhere."""
    other = data.draw(st.permutations(rows))
    first, second = torch.tensor(rows).float(), torch.tensor(other).float()
    assert (Points.of(first) == Points.of(second)) is first.equal(second)
    swapped = first.flip(1)
    assert (Points.of(first) == Points.of(swapped)) is first.equal(swapped)


def test_no_two_of_many_data_sets_are_confused() -> None:
    """All 3⁹ images of 3 × 3 grey levels, as one row and as three: by chance, one pair in 10¹¹ such tests."""
    levels = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, 2.0])] * 9)
    assert len({Points.of(image.reshape(1, 9)).digest for image in levels[:6000]}) == 6000
    assert len({Points.of(image.reshape(3, 3)).digest for image in levels[-6000:]}) == 6000
