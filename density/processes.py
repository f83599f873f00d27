"""The former address of :mod:`density.parallel.processes`."""

from density.parallel.processes import (
    ProcessLost,
    barrier,
    collected,
    from_main,
    gathered,
    is_main,
    joined,
    rank,
    share,
    total,
    world,
)

__all__ = [
    "ProcessLost",
    "barrier",
    "collected",
    "from_main",
    "gathered",
    "is_main",
    "joined",
    "rank",
    "share",
    "total",
    "world",
]
