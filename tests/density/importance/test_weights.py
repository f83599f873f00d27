"""Blocks of log-weights: every draw of every point once, progress counted, nothing said without a terminal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from density.data import blocks
from density.importance import weights
from density.importance.weights import weight_blocks


def test_progress_counts_every_draw_of_every_point_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bars: list[tqdm] = []

    def counted(**settings: object) -> tqdm:
        assert settings["disable"] is None  # silent without a terminal
        bars.append(tqdm(**(settings | {"disable": False, "delay": 1e9})))  # type: ignore[call-overload]
        return bars[-1]

    monkeypatch.setattr(weights, "tqdm", counted)
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 7)
    calls: list[tuple[int, int]] = []

    def draw(rows: Tensor, count: int) -> Tensor:
        calls.append((count, len(rows)))
        return rows[:, 0].expand(count, len(rows))

    x = torch.arange(9.0).unsqueeze(1)
    for points, log_weights in weight_blocks(draw, x, draws=5):
        assert torch.equal(log_weights, x[points, 0].double().expand(5, -1))
    assert all(count * rows <= 7 for count, rows in calls)
    assert [bar.total for bar in bars] == [45]
    assert bars[0].n == 45
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("features", "most"), [(784, 2**20 // 784), (2, 2**12)])
def test_on_a_cpu_blocks_stay_in_cache_and_the_encoder_runs_seldom(features: int, most: int) -> None:
    calls: list[tuple[int, int]] = []

    def draw(rows: Tensor, count: int) -> Tensor:
        calls.append((count, len(rows)))
        return torch.zeros(count, len(rows))

    x, draws = torch.zeros(100, features), 600
    for _ in weight_blocks(draw, x, draws):
        pass
    assert sum(count * rows for count, rows in calls) == 100 * draws
    assert max(count * rows for count, rows in calls) <= most
    # A call runs the encoder once for each of its points; here 64 draws share a run, fewer only at the end.
    assert sum(rows for _, rows in calls) <= 100 * draws / 60
