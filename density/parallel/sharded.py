"""Claims about log p(x) whose rows are shared out among processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.log_density import LogDensity
from density.parallel import processes
from density.parallel.random_streams import Streams
from density.weight_diagnostics import WeightDiagnostics

Claiming = Callable[[Tensor, Generator | None], LogDensity]


def sharded(claim: Claiming, x: Tensor, *, parts: int | None = None, generator: Generator | None = None) -> LogDensity:
    """A claim about every row of x, of which each process computes its share; the same claim in every process.

    Rows are independent under every estimator of log p(x) here, so that nothing but their values travels. Part p of
    the rows draws from stream p of :class:`~density.parallel.random_streams.Streams`: the number of parts, and not that
    of processes, decides the draws.

    Args:
        claim: maps rows ``[m, D]`` and a generator to a claim about them.
        x: points ``[n, D]``, the same on every process.
        parts: contiguous parts of the rows; None for one a process.
        generator: seeded alike on every process. One part on one process draws from it directly.

    Returns:
        The claims of all parts in the order of rows, as :meth:`~density.log_density.LogDensity.concatenate` joins
        them, on the device of x.

    Raises:
        ValueError: fewer parts than processes.
        Exception: what the claim raises about some rows, in every process.
        ProcessLost: another process has ended.

    >>> from density.families.gaussian import Gaussian
    >>> model = Gaussian(2)
    >>> x = torch.zeros(10, 2)
    >>> sharded(lambda rows, generator: model.log_density(rows, generator=generator), x, parts=3)
    log p(x) = -1.8379 ± 0 (data) nats, exact (closed form), Lebesgue measure, 10 points
    """
    parts = processes.world() if parts is None else parts
    parts = check_count(parts, "parts")
    if parts < processes.world():
        raise ValueError(f"{processes.world()} processes need a part of the rows each; got parts={parts}")
    if parts == 1:
        return claim(x, generator)
    streams = Streams(generator, x.device)
    own = processes.share(parts)
    claims: list[LogDensity] = []
    failure: Exception | None = None
    try:
        for part in range(own.start, own.stop):
            rows = x[len(x) * part // parts : len(x) * (part + 1) // parts]
            if len(rows):
                with streams.at(part) as stream:
                    claims.append(claim(rows, stream))
    except Exception as error:  # the other processes wait for an answer, whatever it is
        failure = error
    found = processes.collected(([_moved(part, torch.device("cpu")) for part in claims], failure))
    for _, failed in found:
        if failed is not None:
            raise failed
    return _moved(LogDensity.concatenate([part for shared, _ in found for part in shared]), x.device)


def _moved(claim: LogDensity, device: torch.device) -> LogDensity:
    """The claim with its tensors, and those of its diagnostics, on a device."""
    weights = claim.weights
    if weights is not None:
        weights = replace(weights, **_tensors(weights, device))
    return replace(claim, **_tensors(claim, device), weights=weights)


def _tensors(owner: LogDensity | WeightDiagnostics, device: torch.device) -> dict[str, Any]:
    values = {field.name: getattr(owner, field.name) for field in fields(owner)}
    return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
