"""The one error that a study shows without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what was expected, what came and what to do."""
