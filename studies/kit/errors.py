"""The one error that a study shows without a traceback, and warnings that are said once."""

from __future__ import annotations

import sys
from functools import cache


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what was expected, what came and what to do."""


@cache
def warn(message: str) -> None:
    """Say on stderr, once in a process, what is probably not what the user meant."""
    print(f"warning: {message}", file=sys.stderr)
