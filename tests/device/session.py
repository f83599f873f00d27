"""A pretended device for a whole session of tests: ``pytest -p tests.device.session --device cuda tests/laws``.

Tests that are written for the device of ``--device`` run there as on a machine that has one; others, which
draw on the CPU with a generator of the device, say so.
"""

from __future__ import annotations

import torch

from tests.device.pretended import IMPORTED, Generator, pretended

torch.Generator = Generator  # type: ignore[misc]  # before any module imports it
for _name, (_, _replacement) in IMPORTED.items():
    if _name != "Generator":
        setattr(torch.func, _name, _replacement)
SESSION = pretended()
SESSION.__enter__()
