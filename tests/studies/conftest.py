"""What tests of studies share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from studies.kit.run import main
from tests.studies.running import Refused


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    """Studies set torch's threads as their settings say; the next file's tests have what there was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """``refused(study, arguments)``: the one line of the error that they lead to; nothing is written."""

    def said(study: str, arguments: Sequence[str]) -> str:
        assert main(study, ["--output", str(tmp_path / "new"), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert not (tmp_path / "new").exists()
        return line

    return said
