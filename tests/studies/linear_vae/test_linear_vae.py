"""The study runs from the command line on a CSV of one's own, and its parts measure what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from studies.data.load import load
from studies.kit.run import main
from studies.linear_vae.measure import apart, described, prepared, rotations
from studies.linear_vae.settings import Settings, tasks
from tests.studies.running import Refused

STUDY = "studies.linear_vae"
COLUMNS = 6


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
    assert main(STUDY, arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("passed:") == 6
    assert "open: Adam's path ends with every column within 5 degrees" in printed  # after so few steps
    assert "FAILED" not in printed
    assert list(tmp_path.rglob("figure.png"))
    assert main(STUDY, [*arguments, "--replot"]) == 0


def test_more_latents_than_columns_become_fewer(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(STUDY, ["--quick", "--data", str(table), "--steps", "20", "--output", str(tmp_path)]) in (0, 1)
    assert "note: 5 latents, since 'mine' has 6 columns" in capsys.readouterr().err
    narrow = tmp_path / "narrow.csv"
    narrow.write_text("\n".join(["a,b", *(f"{i},{i * i % 7}" for i in range(40))]))
    assert main(STUDY, ["--quick", "--data", str(narrow), "--output", str(tmp_path)]) == 2
    assert "needs 3 or more" in capsys.readouterr().err


def test_every_point_of_every_curve_is_a_row() -> None:
    """1 optimum; a path has eight points a factor of ten and both its ends; 4 noises; 3 angles."""
    keys = [task.key for task in tasks(Settings(steps=100, noises=4, angles=3))]
    parts = [key.part for key in keys]
    assert {part: parts.count(part) for part in parts} == {"optimum": 1, "path": 2 * 17, "collapse": 4, "rotation": 3}
    assert len(set(keys)) == len(keys)


def test_a_rotation_costs_nothing_at_zero_and_symmetrically_much(table: Path) -> None:
    settings = Settings(quick=True, data=str(table), latents=3, angles=3, draws=50)
    rows = rotations(prepared(settings, load(str(table), 0), 0))
    assert float(rows[0]["formula"]) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]  # orthogonal columns
    assert float(rows[1]["formula"]) < float(rows[2]["formula"])  # type: ignore[arg-type]
    assert all(float(row["log_p_change"]) < 1e-12 * 100 for row in rows)  # type: ignore[arg-type]


def test_angles_are_those_to_the_axes(table: Path) -> None:
    target = prepared(Settings(quick=True, data=str(table), latents=3), load(str(table), 0), 0)
    model = target.fresh("test")
    with torch.no_grad():
        turned = math.radians(20)
        model.decoder.weight.copy_(target.axes[:, :3])
        model.decoder.weight[:, 1] = math.cos(turned) * target.axes[:, 1] + math.sin(turned) * target.axes[:, 4]
    row = described(model, target)
    # arccos near 0 resolves √(2 ε) = 1e-6 degrees; both angles are 20 here
    assert row["axis_angle"] == pytest.approx(20, abs=1e-4)
    assert row["span_angle"] == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize(("noise", "moved"), [(1.97, True), (2.03, True), (2.1, False), (1.5, False)])
def test_a_noise_variance_at_an_eigenvalue_is_moved_off_it(noise: float, moved: bool) -> None:
    found = apart(noise, torch.tensor([4.0, 2.0, 1.0]))
    assert found == (pytest.approx(1.05 * noise) if moved else noise)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latents", "1"], "--latents must be at least 2"),
        (["--steps", "1"], "--steps must be at least 2"),
        (["--angles", "1"], "--angles must be at least 2"),
        (["--noises", "0"], "--noises must be positive"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
