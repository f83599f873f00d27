"""What counts as a count, and what an error says of what came instead of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch.masked import masked_tensor
from torch.utils.data import DataLoader, TensorDataset

from density import Gaussian, StandardNormal
from density.checks import check_count, check_floating, foreign, in_words, settle_counts


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)], ids=repr)
def test_whole_numbers_of_any_kind_are_counts(three: int) -> None:
    count = check_count(three, "n")
    assert count == 3
    assert type(count) is int


@pytest.mark.parametrize("none", [True, np.True_, torch.tensor(True), 0, -1, 3.0, np.float64(3), "3", None], ids=repr)
def test_other_things_are_none(none: int) -> None:
    with pytest.raises(ValueError, match="n must be a positive int; got "):
        check_count(none, "n")


def test_a_count_may_begin_elsewhere() -> None:
    assert check_count(np.int64(0), "context_features", least=0) == 0
    for bad in (-1, False):
        with pytest.raises(ValueError, match=f"context_features must be an int, 0 or more; got {bad}"):
            check_count(bad, "context_features", least=0)


def test_counts_of_settings_are_stored_as_ints() -> None:
    @dataclass(frozen=True)
    class Settings:
        steps: int | None
        draws: int | None

        def __post_init__(self) -> None:
            settle_counts(self, "steps", "draws", prefix="mine: ")

    settings = Settings(np.int64(3), None)  # type: ignore[arg-type]
    assert type(settings.steps) is int
    assert settings.draws is None
    with pytest.raises(ValueError, match="mine: draws must be a positive int; got 0"):
        Settings(1, 0)


def test_numpy_sizes_and_draws(generator: torch.Generator) -> None:
    prior = StandardNormal(np.int64(2))  # type: ignore[arg-type]
    assert prior.sample(np.int64(3), generator=generator).shape == (3, 2)  # type: ignore[arg-type]


def test_what_came_and_what_to_do() -> None:
    x = torch.ones(4, 2)
    with pytest.warns(UserWarning, match="MaskedTensor"):
        masked = masked_tensor(x, x > 0)
    masks = (
        "marks what it masks by nan, which model.observed takes for missing (PPCA, mixtures, VAEs); other models "
        "need complete rows"
    )
    expected = {
        "ndarray. Convert with torch.as_tensor(x), which copies nothing: a memory map stays where it lies": x.numpy(),
        f"MaskedArray. torch.as_tensor(x.filled(numpy.nan)) {masks}": np.ma.masked_array(x.numpy(), x.numpy() > 0),
        f"MaskedTensor. x.to_tensor(torch.nan) {masks}": masked,
        "DataFrame. Convert with torch.tensor(x.to_numpy()), once its columns are all numbers": pd.DataFrame(x),
        "Series. Convert with torch.tensor(x.to_numpy()), once its columns are all numbers": pd.Series([1.0]),
        "list. Convert with torch.tensor(x), a list of tensors with torch.stack(x)": [[1.0, 2.0]],
        "a sparse one (torch.sparse_coo). Convert with x.to_dense()": x.to_sparse(),
        "DataLoader. Join its chunks, torch.cat(list(x)), or of a loader of tuples the rows alone, torch.cat([rows for "
        "rows, *_ in x]). Data in chunks is read by fits: of flows, VAEs, PPCA, GaussianMixture": DataLoader(
            TensorDataset(x)
        ),
        "dict. Give the tensor that holds the rows": {"rows": x},
        "float. Convert with torch.as_tensor(x)": 1.0,
    }
    for message, value in expected.items():
        assert foreign(value, "x") == message
        with pytest.raises(TypeError) as error:
            check_floating(value, "x", "Gaussian")  # type: ignore[arg-type]
        assert str(error.value) == f"Gaussian expects x to be a torch.Tensor; got {message}"


def test_the_advice_works() -> None:
    x = torch.randn(10, 2)
    loader = DataLoader(TensorDataset(x, x[:, 0]), batch_size=3)
    plain: DataLoader[torch.Tensor] = DataLoader(x, batch_size=3)  # type: ignore[arg-type]
    for same in (
        torch.as_tensor(x.numpy()),
        torch.tensor(pd.DataFrame(x.numpy()).to_numpy()),
        torch.tensor(x.tolist()),
        torch.stack(list(x)),
        x.to_sparse().to_dense(),
        torch.cat([rows for rows, *_ in loader]),
        torch.cat(list(plain)),
    ):
        assert same.equal(x)
        Gaussian(2).fit(same)


def test_a_class_where_an_instance_is_due() -> None:
    assert in_words(Gaussian) == "the class Gaussian; make one, Gaussian()"
    assert in_words("full") == "'full'"
