"""What studies compute on the pretended device is what they compute on the CPU: small runs, and a tiny preset."""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from density.data import blocks
from studies.budget import Options, within, worst
from studies.images.grey_images import grey_images
from studies.images.measure import measure
from studies.images.settings import Key, ModelName, Settings
from studies.kit.registry import every_study
from studies.kit.run import compute, parsed
from studies.kit.run import main as run
from studies.kit.study import Study, Task
from studies.kit.tables import frame
from tests.device.pretended import pretended

TINY = Settings(
    preset="gpu", sets=("digits",), train_rows=200, test_rows=20, small_steps=3, batch_size=32, flow_levels=2,
    flow_steps=1, flow_channels=(4,), vector_layers=2, wide=4, latents=3, channels=(4,), mixtures=2, components=2,
    draws=4, simulated=4, dtype="float64",
)  # fmt: skip


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in Settings().models if name not in ("gaussian", "glow")]


@pytest.mark.parametrize("model", ["gaussian", "glow", *OTHERS])
def test_images(model: ModelName, tmp_path: Path) -> None:
    settings = TINY.quickened()
    assert settings.device == "cuda"
    data = grey_images("digits", 0, None, train=settings.train_rows, test=settings.test_rows)
    key = Key("digits", data.hash, 0, model)
    rows, values = {}, {}
    for device in ("cpu", "cuda"):
        with pretended():
            rows[device] = measure(
                replace(settings, device=device), Task(key, data, makes=(tmp_path / f"{device}.npz",))
            )
        values[device] = np.load(tmp_path / f"{device}.npz")
    for name in values["cpu"]:
        np.testing.assert_allclose(values["cuda"][name], values["cpu"][name], rtol=1e-6, atol=1e-6)
    assert rows["cuda"]["bits"] == pytest.approx(rows["cpu"]["bits"], rel=1e-9)


MEMORY = 2**60  # bytes, rows or scalars: more than any block has
OF_THE_RUN = re.compile(  # times, places, names of files
    "second|clock|date|device|versions|settings_hash|passes|points|^ms$|_us$|^ours$|^theirs$"
)
SAME = 1e-6  # relative to a column's largest number, in float32
STOPPED = {  # what rounding leaves of an optimum, of steps that a solver chooses, and of counts above a threshold
    "norm_error": 1e-4,
    "worst": 1e-5,
    "unreliable": 1e-2,
}
PATHS = {"values"}  # of L-BFGS, which takes a step more or less by rounding: compared at their ends


def apart(expected: pd.Series, found: pd.Series) -> str | None:
    """Where two columns differ, in words; numbers by more than rounding, also those of a text that lists some."""
    mine, other = ([numbers(value) for value in column] for column in (expected, found))
    if expected.name in PATHS:
        mine, other = ([words[:: max(1, len(words) - 1)] for words in rows] for rows in (mine, other))
    largest = max([1.0, *(abs(word) for words in mine for word in words if isinstance(word, float))])
    within = {"abs": largest * STOPPED.get(str(expected.name), SAME), "rel": 0.0, "nan_ok": True}
    for row, (ours, theirs) in enumerate(zip(mine, other, strict=True)):
        if len(ours) != len(theirs) or any(
            b != (pytest.approx(a, **within) if isinstance(a, float) else a) for a, b in zip(ours, theirs, strict=True)
        ):
            return f"row {row} is {theirs} for {ours}"
    return None


def numbers(value: object) -> list[Any]:
    """The words of a text, or a number alone, as numbers where they are."""
    words: list[Any] = str(value).split()
    with suppress(ValueError):
        words = [float(word) for word in words]
    return words


def rows_of(study: Study, device: str, output: Path) -> tuple[int, pd.DataFrame]:
    settings = parsed(study, ["--quick", "--device", device, "--output", str(output / device)])
    outcome = compute(study, settings, settings.folder(study.name))
    return len(outcome.failures), frame(outcome.rows)


@pytest.mark.slow
@pytest.mark.parametrize("study", every_study(), ids=lambda study: study.name)
def test_small_runs(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module(f"{study.package}.measure")
    for most in ("ROWS_AT_ONCE", "ROWS_IN_CACHE", "SCALARS_IN_CACHE"):  # one block, and so the same draws
        monkeypatch.setattr(blocks, most, MEMORY)
    failures, expected = rows_of(study, "cpu", tmp_path)
    with pretended(MEMORY):
        there, found = rows_of(study, "cuda", tmp_path)
    assert there == failures == 0
    assert list(found.columns) == list(expected.columns)
    assert len(found) == len(expected) > 0
    compared = [name for name in expected.columns if not OF_THE_RUN.search(name)]
    wrong = {name: apart(expected[name], found[name]) for name in compared}
    assert not any(wrong.values()), {name: words for name, words in wrong.items() if words}


@pytest.mark.slow
def test_a_run_within_a_budget(tmp_path: Path) -> None:
    options = Options("10m", "cuda", studies=("naive_monte_carlo", "latent_space"), quick=True, output=tmp_path)
    for name in options.studies:
        importlib.import_module(f"studies.{name}.measure")
    with pretended():
        table = within(options, run)
    assert [row["ended"] for row in table] == ["all is well"] * 2, table
    assert worst(table) == 0
    assert len(list(tmp_path.glob("*/*/rows.csv"))) == 2
