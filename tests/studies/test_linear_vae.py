"""The study runs from the command line on a CSV of one's own, and its parts measure what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from studies import linear_vae, linear_vae_models
from studies.data.load import load
from studies.linear_vae import Settings

COLUMNS, AXES = 6, 3


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with header whose three leading variances are far apart."""
    draws = np.random.default_rng(0).standard_normal((300, COLUMNS))
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((COLUMNS, COLUMNS)))
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    rows = draws * np.array([6.0, 4.0, 2.5, 1.0, 0.9, 0.8]) @ turn + 3
    pd.DataFrame(rows, columns=[f"c{i}" for i in range(COLUMNS)]).to_csv(path, index=False)
    return path


def test_the_study_runs_on_a_csv_and_all_its_claims_hold(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--data", str(table), "--latents", "3", "--output", str(tmp_path)]
    assert linear_vae.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("passed:") == 6
    assert "FAILED" not in printed
    assert list(tmp_path.rglob("figure.png"))
    assert linear_vae.main([*arguments, "--replot"]) == 0


def test_more_latents_than_columns_become_fewer(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert linear_vae.main(["--quick", "--data", str(table), "--output", str(tmp_path)]) == 0
    assert "note: 5 latents, since 'mine' has 6 columns" in capsys.readouterr().err
    narrow = tmp_path / "narrow.csv"
    narrow.write_text("\n".join(["a,b", *(f"{i},{i * i % 7}" for i in range(40))]))
    assert linear_vae.main(["--quick", "--data", str(narrow), "--output", str(tmp_path)]) == 2
    assert "needs 3 or more" in capsys.readouterr().err


def test_a_rotation_costs_nothing_at_zero_and_symmetrically_much(table: Path) -> None:
    settings = Settings(quick=True, data=str(table), latents=3, angles=3, draws=50)
    rows = linear_vae_models.rotations(linear_vae_models.prepared(settings, load(str(table), 0), 0), settings)
    assert float(rows[0]["formula"]) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]  # orthogonal columns
    assert float(rows[1]["formula"]) < float(rows[2]["formula"])  # type: ignore[arg-type]
    assert all(float(row["log_p_change"]) < 1e-12 * 100 for row in rows)  # type: ignore[arg-type]


def test_angles_are_those_to_the_axes(table: Path) -> None:
    settings = Settings(quick=True, data=str(table), latents=3)
    found = linear_vae_models.prepared(settings, load(str(table), 0), 0)
    model = linear_vae_models._fresh(found, settings, "test")
    with torch.no_grad():
        turned = math.radians(20)
        model.decoder.weight.copy_(found.axes[:, :3])
        model.decoder.weight[:, 1] = math.cos(turned) * found.axes[:, 1] + math.sin(turned) * found.axes[:, 4]
    described = linear_vae_models._described(model, found)
    # arccos near 0 resolves √(2 ε) = 1e-6 degrees; both angles are 20 here
    assert described["axis_angle"] == pytest.approx(20, abs=1e-4)
    assert described["span_angle"] == pytest.approx(20, abs=1e-4)


def test_eigenvalues_that_are_close_to_a_neighbour_are_not_clear() -> None:
    spectrum = torch.tensor([4.0, 2.0, 1.98, 1.0])
    assert linear_vae_models._clear(spectrum).tolist() == [True, False, False, True]
