"""Models that are built on the CPU follow their data to the device, and come to the same there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from density import Checkpoint
from density.saving import files
from lvm.finite_mixture import fit as finite_mixture
from lvm.mixture import starts
from tests.cases.fits import FEATURES, FITS, RESUMED, ROWS
from tests.device.comparing import both, seed


def taken_there(name: str, device: str) -> nn.Module:
    """A model that its data took there."""
    x = torch.randn(ROWS, FEATURES, generator=seed("cpu"), dtype=torch.float64)
    torch.manual_seed(3)
    return FITS[name](x.to(device), seed(device))


@pytest.mark.parametrize("name", FITS)
def test_a_model_follows_its_data(name: str) -> None:
    both(partial(taken_there, name))


@pytest.mark.parametrize("name", ["mixture, stream", "mixture, weights in a stream", "mixture of kinds"])
def test_starts_look_at_some_of_many_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, at 20 of 40: which do make another start than all of them."""
    of_all = taken_there(name, "cpu").state_dict()
    monkeypatch.setattr(starts, "MOST_ROWS", 20)
    monkeypatch.setattr(starts, "MOST_ROWS_OF_A_COMPONENT", 10)
    monkeypatch.setattr(finite_mixture, "MOST_ROWS", 20)
    assert any(not value.equal(of_all[key]) for key, value in taken_there(name, "cpu").state_dict().items())
    both(partial(taken_there, name))


class Cut(Exception):
    """What ends a fit at a moment."""


@pytest.mark.parametrize("name", RESUMED)
def test_a_fit_that_is_cut_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(ROWS, FEATURES, generator=seed("cpu"), dtype=torch.float64)
    write, left = files.write, 0

    def until_cut(*arguments: object) -> None:
        nonlocal left
        write(*arguments)  # type: ignore[arg-type]
        left -= 1
        if left == 0:
            raise Cut

    monkeypatch.setattr(files, "write", until_cut)

    def call(device: str) -> nn.Module:
        nonlocal left
        fit, left = RESUMED[name](Checkpoint(tmp_path / device, steps=1)), 2
        for _ in range(2):
            torch.manual_seed(3)
            try:
                return fit(x.to(device), seed(device))
            except Cut:
                continue
        raise AssertionError("it was cut once more")

    both(call)
