# ruff: noqa: ANN401
"""Rows that are not there, and entries that an array masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density.data.chunks import Chunks
from density.data.rows import Rows
from lvm import EM, PPCA, EMSolver, GaussianMixture, StochasticEM
from lvm.ppca import MissingEM

N, D = 60, 3


def data(generator: Generator) -> tuple[Tensor, Tensor]:
    """Rows, and weights of which a third is 0; rows of weight 0 are far away, and one of them is undefined."""
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.5])
    weights = torch.randint(1, 4, (N,), generator=generator).double()
    weights[::3] = 0
    x[::3] += 1e6
    x[3] = torch.nan
    return x, weights


def seeded() -> Generator:
    return Generator().manual_seed(0)


QUIET = EM(max_iterations=20, progress=False)
FITS: dict[str, Callable[[Any, Tensor | None], Any]] = {
    "PPCA": lambda x, w: _fitted(PPCA(D, 1), lambda m: m.fit(x, weights=w)),
    "PPCA, EM": lambda x, w: _fitted(PPCA(D, 1), lambda m: m.fit(x, solver=EMSolver(progress=False), weights=w)),
    "PPCA, observed": lambda x, w: _fitted(
        PPCA(D, 1), lambda m: m.observed.fit(x, MissingEM(max_iterations=20, progress=False), weights=w)
    ),
    "mixture": lambda x, w: _fitted(GaussianMixture(D, 2), lambda m: m.fit(x, em=QUIET, weights=w, generator=seeded())),
    "mixture, observed": lambda x, w: _fitted(
        GaussianMixture(D, 2), lambda m: m.observed.fit(x, QUIET, weights=w, generator=seeded())
    ),
    "mixture, stochastic": lambda x, w: _fitted(
        GaussianMixture(D, 2),
        lambda m: m.fit(x, em=StochasticEM(epochs=3, batch_size=10, progress=False), weights=w, generator=seeded()),
    ),
    "mixture, E-step": lambda x, w: GaussianMixture(D, 2).double().summarise(x, w).mean,
}


def _fitted(model: Any, fit: Callable[[Any], Any]) -> Any:
    torch.manual_seed(1)
    fit(model)
    return model


def numbers(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found.state_dict().values())


@pytest.mark.parametrize("name", FITS)
def test_a_row_of_weight_zero_is_not_there(name: str, generator: Generator) -> None:
    x, weights = data(generator)
    there = weights > 0
    torch.manual_seed(1)
    expected = numbers(FITS[name](x[there], weights[there]))
    torch.manual_seed(1)
    for mine, theirs in zip(numbers(FITS[name](x, weights)), expected, strict=True):
        assert mine.equal(theirs)


@pytest.mark.parametrize("beside", [True, False])
def test_nor_is_it_in_a_chunk(beside: bool, generator: Generator) -> None:
    """Of one chunk every row has weight 0, of the first one too."""
    x, weights = data(generator)
    weights[:10] = 0
    weights[20:30] = 0
    there = weights > 0
    expected = PPCA(D, 1)
    expected.fit(x[there], weights=weights[there])
    chunks = list(zip(x.split(10), weights.split(10), strict=True))
    model = PPCA(D, 1)
    if beside:
        model.fit([rows for rows, _ in chunks], weights=weights)
    else:
        model.fit(Chunks(chunks, weighted=True))
    for mine, theirs in zip(numbers(model), numbers(expected), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_no_row_is_left(generator: Generator) -> None:
    x, _ = data(generator)
    nothing = torch.zeros(N)
    for source in (x, [x[:30], x[30:]]):
        with pytest.raises(ValueError, match="PPCA expects at least one row of data; got none"):
            PPCA(D, 1).fit(source, weights=nothing)
    with pytest.raises(ValueError, match="got none of positive weight"):
        PPCA(D, 1).fit(Chunks([(x, nothing)], weighted=True))


def test_an_error_names_the_row_of_the_data_that_came(generator: Generator) -> None:
    x, weights = data(generator)
    x[4, 1] = torch.inf  # the third of those with a weight
    with pytest.raises(ValueError, match="row 4, column 1 is inf"):
        PPCA(D, 1).fit(x, weights=weights)
    with pytest.raises(ValueError, match=r"none of them negative; got -1\.0"):
        PPCA(D, 1).fit(x, weights=-torch.ones(N))


def holes(generator: Generator) -> tuple[Tensor, np.ma.MaskedArray[Any, Any]]:
    """Rows with nan, and the array that masks the same entries over a wild value."""
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.5])
    hole = torch.rand(N, D, generator=generator) < 0.1
    masked = np.ma.masked_array(torch.where(hole, 1e6, x).numpy(), hole.numpy())
    return torch.where(hole, torch.nan, x), masked


def test_a_mask_marks_missing_entries(generator: Generator) -> None:
    x, masked = holes(generator)
    for name in ("PPCA, observed", "mixture, observed"):
        for source in (masked, [masked[:20], masked[20:]]):
            torch.manual_seed(1)
            expected = numbers(FITS[name](x if source is masked else list(x.split([20, 40])), None))
            torch.manual_seed(1)
            for mine, theirs in zip(numbers(FITS[name](source, None)), expected, strict=True):
                assert mine.equal(theirs)
    assert torch.cat(list(Chunks(masked, rows=7))).isnan().equal(x.isnan())


def test_a_mask_is_refused_where_nothing_may_be_missing(generator: Generator) -> None:
    _, masked = holes(generator)
    for model in (PPCA(D, 1), GaussianMixture(D, 2)):
        with pytest.raises(ValueError, match=r"is nan .*, where nan or a mask marks .*model\.observed\.fit"):
            model.fit(masked)
    whole = np.ma.masked_array(masked.data, False)
    assert next(iter(Rows(whole, D, "PPCA")))[0].equal(torch.as_tensor(masked.data))


def test_a_masked_array_of_integers_has_no_nan() -> None:
    masked = np.ma.masked_array(np.arange(6).reshape(3, 2), np.eye(3, 2))
    with pytest.raises(
        TypeError, match=r"masked array of int64 cannot mark .* by nan; convert it, data.astype\(float\)"
    ):
        list(Chunks(masked))


@pytest.mark.parametrize("source", ["text", {"a": torch.ones(3)}, 5], ids=["text", "mapping", "number"])
def test_what_is_no_data(source: Any) -> None:
    with pytest.raises(
        TypeError, match=f"data must be a tensor, an array or an iterable of them; got {type(source).__name__}"
    ):
        Chunks(source)


def test_a_chunk_that_is_none() -> None:
    with pytest.raises(TypeError, match="a chunk of data must be a tensor or an array of numbers; got dict"):
        PPCA(D, 1).fit([{"rows": torch.ones(3, 3)}])  # type: ignore[list-item]
