"""One computation on several processes: torch.distributed where ``torchrun`` started it, one process otherwise.

Every process is given the same data and the same seeds, works on its share, and sums with the others. Where no process
group was started, every function here is the identity of a run with one process, at no cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


class ProcessLost(RuntimeError):
    """Another process of this run has ended, so that a sum over all of them can no longer be formed.

    >>> issubclass(ProcessLost, RuntimeError)
    True
    """


def world() -> int:
    """The number of processes that share this run.

    >>> world()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0.

    >>> rank()
    0
    """
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Is this the process that reports progress and writes files?

    >>> is_main()
    True
    """
    return rank() == 0


def share(n: int) -> slice:
    """The rows, of n, that this process works on: contiguous, in order of rank, sizes differ by at most one.

    >>> share(10)
    slice(0, 10, None)
    """
    size, own = world(), rank()
    return slice(n * own // size, n * (own + 1) // size)


def total(tensor: Tensor) -> Tensor:
    """The sum over processes, the same in every one.

    Raises:
        ProcessLost: another process has ended.

    >>> total(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if world() == 1:
        return tensor
    summed = tensor.detach().clone().contiguous()
    with _naming_the_lost():
        dist.all_reduce(summed)
    return summed


def gathered(rows: Tensor) -> Tensor:
    """The rows ``[n_r, ...]`` of every process in order of rank, ``[Σ n_r, ...]``, the same in every one.

    Raises:
        ProcessLost: another process has ended.

    >>> gathered(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world() == 1:
        return rows
    counts = torch.zeros(world(), dtype=torch.int64, device=rows.device)
    counts[rank()] = rows.shape[0]
    lengths = total(counts).tolist()
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: rows.shape[0]] = rows.detach()
    parts = [torch.empty_like(padded) for _ in lengths]
    with _naming_the_lost():
        dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def collected(result: Result) -> list[Result]:
    """The results of every process in order of rank, the same list in every one: small objects, tensors on the CPU.

    Raises:
        ProcessLost: another process has ended.

    >>> collected({"rank": rank()})
    [{'rank': 0}]
    """
    if world() == 1:
        return [result]
    results: list[Any] = [None] * world()
    with _naming_the_lost():
        dist.all_gather_object(results, result)
    return results


def from_main(make: Callable[[], Result]) -> Result:
    """The result of the first process, in every one: small objects, tensors on the CPU. Its error is raised in all.

    Raises:
        ProcessLost: another process has ended.

    >>> from_main(lambda: 3)
    3
    """
    if world() == 1:
        return make()
    made: list[Any] = [None, None]
    if is_main():
        try:
            made[0] = make()
        except Exception as error:  # the others wait for an answer, whatever it is
            made[1] = error
    with _naming_the_lost():
        dist.broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    result: Result = made[0]
    return result


def barrier() -> None:
    """Wait for every process.

    Raises:
        ProcessLost: another process has ended.

    >>> barrier()  # of one process: at once
    """
    if world() > 1:
        with _naming_the_lost():
            dist.barrier()


@contextmanager
def joined(device: torch.device | str = "cpu", *, timeout: timedelta = timedelta(minutes=30)) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, or run alone; yields the device of this process.

    gloo on CPU, nccl on CUDA, where each process takes the device of its local rank.

    Args:
        device: "cpu", "cuda" or one device.
        timeout: how long a sum waits for a process that does not answer.

    >>> with joined("cpu") as device:  # started without torchrun
    ...     print(device, world())
    cpu 1
    """
    device = torch.device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            f"process {rank()} of {world()} lost another one while it waited for its sum ({error}). The run cannot go "
            "on; start it again, and it resumes from its checkpoint if it has one"
        ) from error
