"""The stress table: hostile data × every model × two precisions, each cell an answer or one clear error."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from density import TiedColumns
from lvm import LinearVAE
from lvm.vae.linear import FULL_BATCH
from tests.hostile.stress import (
    DATA,
    LATENTS,
    MODELS,
    WIDE,
    Answer,
    By,
    Error,
    Fitted,
    constant,
    few_rows,
    fitted,
    maximum,
    moved,
    no_noise,
    no_rank,
    one_wide,
    overflow,
    rises,
    seeded,
    singular,
    trains,
)

Cell = Answer | Error | By


def row(*cells: Cell) -> dict[str, Cell]:
    return dict(zip(MODELS, cells, strict=True))


# float32 tells numbers near 1e8 apart by 8, and this data spreads by 2: in float32 its columns are constant up to
# rounding (an error, or a scale of 1), and a mixture, which adds a ridge, is one of the rounded rows.

TABLE: dict[str, dict[str, Cell]] = {
    #                       Gaussian, diagonal | PPCA, by EM, linear VAE | mixture: full, tied, diagonal, spherical
    #                       | VAE | flows: LU, coupling, autoregressive
    "plain": row(
        *(maximum, maximum),
        *(maximum, maximum, maximum),
        *(rises, rises, rises, rises),
        trains,
        *(trains, trains, trains),
    ),
    "offset 1e8": row(
        *(By(maximum, singular), By(maximum, constant)),
        *(By(maximum, no_noise), By(maximum, no_noise), By(maximum, no_rank)),
        *(By(moved, rises), By(moved, rises), By(moved, rises), By(moved, rises)),
        By(moved, trains),
        *(By(moved, trains), By(moved, trains), By(moved, trains)),
    ),
    "scale 1e8": row(
        *(maximum, maximum), *(maximum, maximum, maximum), *(moved, moved, moved, moved), moved, *(moved, moved, moved)
    ),
    "scale 1e-8": row(
        *(maximum, maximum), *(maximum, maximum, maximum), *(moved, moved, moved, moved), moved, *(moved, moved, moved)
    ),
    "duplicated rows": row(
        *(maximum, maximum), *(maximum, maximum, maximum), *(rises, rises, rises, rises), trains, *(moved, moved, moved)
    ),
    "collinear columns": row(
        *(singular, maximum),
        *(maximum, maximum, maximum),
        *(rises, rises, rises, rises),
        trains,
        *(trains, trains, trains),
    ),
    "constant column": row(
        *(singular, constant),
        *(maximum, maximum, maximum),
        *(constant, constant, constant, rises),
        trains,
        *(trains, trains, trains),
    ),
    "heavy tails": row(
        *(maximum, maximum),
        *(maximum, maximum, maximum),
        *(rises, rises, rises, rises),
        trains,
        *(trains, trains, trains),
    ),
    "an outlier at 1e12": row(
        *(maximum, maximum),
        *(By(maximum, no_noise), no_noise, By(trains, no_rank)),
        *(rises, rises, rises, rises),
        trains,
        *(trains, trains, trains),
    ),
    "one row": row(
        *(singular, constant),
        *(no_noise, no_noise, no_rank),
        *(few_rows, few_rows, few_rows, few_rows),
        trains,
        *(trains, trains, trains),
    ),
    "two rows": row(
        *(singular, maximum),
        *(no_noise, no_noise, no_rank),
        *(few_rows, few_rows, few_rows, few_rows),
        trains,
        *(trains, trains, trains),
    ),
    "one column": row(
        *(maximum, maximum),
        *(one_wide, one_wide, maximum),
        *(rises, rises, rises, rises),
        trains,
        *(maximum, maximum, maximum),
    ),
    "2000 columns": row(
        *(singular, maximum),
        *(maximum, maximum, By(maximum, overflow)),
        *(rises, rises, rises, rises),
        trains,
        *(trains, trains, trains),
    ),
}
CLIMBING = {"VAE", "LU-linear", "coupling", "autoregressive"}  # by gradient, and so without an end of their own
TIED = {"duplicated rows", "constant column", "collinear columns"}  # and in float32 an offset of 1e8, whose steps are 8
SLOW = {  # seconds each
    ("2000 columns", name)
    for name in ("mixture, full", "mixture, tied", "LU-linear", "LinearVAE", "coupling", "autoregressive")
}


def test_the_table_has_every_cell() -> None:
    assert TABLE.keys() == DATA.keys()
    for cells in TABLE.values():
        assert list(cells) == list(MODELS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(data, name, marks=[pytest.mark.slow] if (data, name) in SLOW else [])
        for data in DATA
        for name in MODELS
    ],
)
def test_cell(data: str, name: str, dtype: torch.dtype) -> None:
    x = DATA[data]().to(dtype)
    assert x.shape[1] in (1, 3, WIDE)
    before = x.clone()
    cell = TABLE[data][name]
    expected = (cell.float64 if dtype is torch.float64 else cell.float32) if isinstance(cell, By) else cell
    ties = name in CLIMBING and (data in TIED or (data == "offset 1e8" and dtype is torch.float32))
    with pytest.warns(TiedColumns) if ties else nullcontext():
        if isinstance(expected, Answer):
            expected.check(name, data, x, fitted(name, x))
        else:
            refused(expected, name, x)
    assert x.equal(before), "the data was changed"


def refused(expected: Error, name: str, x: Tensor) -> None:
    make, fit = MODELS[name]
    built: list[nn.Module] = []
    states: list[dict[str, Tensor]] = []

    def attempt() -> None:
        built.append(make(x.shape[1]).to(x.dtype))
        states.append(deepcopy(built[0].state_dict()))
        fit(built[0], x)

    with pytest.raises(expected.error, match=f"(?s){expected.phrase}"):
        attempt()
    for model, state in zip(built, states, strict=True):
        for key, tensor in model.state_dict().items():
            assert tensor.equal(state[key]) or not expected.untouched, f"{key} was changed"
            assert tensor.isfinite().all()


@pytest.mark.slow
def test_the_way_out_of_an_overflow_is_the_one_that_the_error_names() -> None:
    """A line search that steps to where float32 overflows finds its way from a shorter first step."""
    x = DATA["2000 columns"]().float()
    torch.manual_seed(0)
    model = LinearVAE(WIDE, LATENTS)
    history = model.fit(x, replace(FULL_BATCH, learning_rate=0.1), generator=seeded())
    maximum.check("LinearVAE", "2000 columns", x, Fitted(model, history, model.log_prob(x).mean().item()))
