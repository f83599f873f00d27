"""What tests of studies share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    """Studies set torch's threads as their settings say; the next file's tests have what there was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
