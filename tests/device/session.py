"""A pretended device for a whole session of tests: ``pytest -p tests.device.session --device cuda tests/laws``.

Tests that are written for the device of ``--device`` run there as on a machine that has one; others, which
draw on the CPU with a generator of the device, say so.
"""

from __future__ import annotations

import torch

from tests.device.pretended import IMPORTED, Generator, pretended

SESSION = pretended()


def pytest_load_initial_conftests() -> None:
    """As a plugin alone, and before any module of the tests has imported what is replaced."""
    torch.Generator = Generator  # type: ignore[misc]
    for name, (_, replacement) in IMPORTED.items():
        if name != "Generator":
            setattr(torch.func, name, replacement)
    SESSION.__enter__()
