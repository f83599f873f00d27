"""How a number from the literature is known, which stands beside it in every table."""

from __future__ import annotations

from enum import Enum


class Known(Enum):
    """Where a published number was read.

    >>> [known.value for known in Known]
    ['at its source', 'in a reprint', 'recalled']
    """

    SOURCE = "at its source"
    REPRINT = "in a reprint"
    RECALLED = "recalled"
