"""What a fit of a flow holds: no second copy of its data, and none of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows import flow_memory


def resident(rows: int, where: str, folder: Path) -> dict[str, float]:
    """Peak resident MiB, its growth by the fit, and MiB of the data, in a process of its own."""
    script = Path(flow_memory.__file__)
    command = [sys.executable, str(script), str(rows), str(folder / "x.f4"), where]
    out = subprocess.run(command, cwd=script.parents[2], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("peak", "growth", "data"), map(float, out), strict=True))


@pytest.mark.slow
def test_data_in_memory_is_not_copied(tmp_path: Path) -> None:
    """A row of 64 bytes; while they are shuffled, the numbers of the rows take at most 24 bytes each."""
    found = resident(2_000_000, "held", tmp_path)
    assert found["growth"] < 0.6 * found["data"], found


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1_000_000, 10_000_000])
def test_a_file_that_is_mapped_is_not_copied(rows: int, tmp_path: Path) -> None:
    """Pages of the file count as this process's as long as the system leaves them there: once, and no more."""
    found = resident(rows, "mapped", tmp_path)
    assert found["growth"] < 1.6 * found["data"] + 32, found
    assert found["peak"] < 1.5 * 1024, found
