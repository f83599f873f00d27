"""Mixtures on several processes, started by torchrun: the sums are those of one, and so are the fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.lvm.mixture import mixture_fits
from tests.places import ROOT

SCRIPT = Path(mixture_fits.__file__)


def assert_one_process_equals(count: int, folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [*command, str(SCRIPT), "shared", str(folder)], env=environment, text=True, capture_output=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-6000:]
    results = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
    expected = mixture_fits.found()
    for rank, result in enumerate(results):
        for part in ("found", "unseeded", "resumed"):  # every process saw the same sums: the same bits
            torch.testing.assert_close(result[part], results[0][part], rtol=0, atol=0)
        for name, values in expected.items():
            torch.testing.assert_close(
                result["found"][name],
                values,
                rtol=1e-10,
                atol=1e-10,
                msg=lambda message, name=name, rank=rank: f"{name}, process {rank}: {message}",
            )
        assert all(a.equal(b) for a, b in zip(result["resumed"]["weights"], result["resumed"]["again"], strict=True))
    alone, history = mixture_fits.fit("em", None)
    torch.testing.assert_close(results[0]["resumed"]["weights"], list(alone.values()), rtol=1e-9, atol=1e-9)
    assert results[0]["resumed"]["objective"] == pytest.approx(history.objective, rel=1e-10)


def test_two_processes(tmp_path: Path) -> None:
    assert_one_process_equals(2, tmp_path)


@pytest.mark.slow
def test_four_processes(tmp_path: Path) -> None:
    assert_one_process_equals(4, tmp_path)
