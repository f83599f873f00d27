"""Checks at the public edge, each with the one error that it raises, and the tensor that tells a module's dtype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from itertools import chain
from operator import index
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn
from torch.masked import MaskedTensor

MISSING = "which model.observed takes for missing (PPCA, mixtures, VAEs); other models need complete rows"
ROWS_AT_ONCE = 2**12
BESIDE = ("context", "validation")  # arguments that follow the dtype of x


def reference(module: nn.Module) -> Tensor:
    """The first floating-point parameter of a module, or else buffer: the dtype and device that it computes in.

    Raises:
        ValueError: there is none.
    """
    found = find_reference(module)
    if found is None:
        raise ValueError(
            f"{type(module).__name__} holds no floating-point tensor to take a dtype from; register a buffer"
        )
    return found


def find_reference(module: nn.Module) -> Tensor | None:
    """As :func:`reference`, but None for a module that holds no floating-point tensor and takes any dtype."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return None


def check_points(
    x: Tensor, features: int | None, owner: str, *, reference: Tensor | None = None, name: str = "x"
) -> None:
    """Raise unless x is a floating-point tensor ``[*batch, features]`` in the dtype of the reference. O(1).

    Args:
        name: of the argument, in errors.
    """
    check_floating(x, name, owner, reference)
    if x.ndim < 1 or (features is not None and x.shape[-1] != features):
        expected = "[*batch, features]" if features is None else f"[*batch, {features}]"
        raise ValueError(f"{owner} expects {name} of shape {expected}; got {list(x.shape)}")


def check_context(context: Tensor | None, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless the context is what an object with that many context features takes. O(1)."""
    if features == 0:
        if context is not None:
            raise ValueError(
                f"{owner} takes no context; got one. Build it with context features, or leave the context out"
            )
        return
    if context is None:
        raise ValueError(
            f"{owner} needs a context of shape [*batch, {features}]; got none (docs/howto/conditional_models.md)"
        )
    check_floating(context, "context", owner, reference)
    if context.ndim < 1 or context.shape[-1] != features:
        raise ValueError(f"{owner} expects a context of shape [*batch, {features}]; got {list(context.shape)}")


def check_batches(x: Tensor, context: Tensor | None, owner: str) -> None:
    """Raise unless the batch shapes of x ``[*batch, D]`` and the context ``[*batch, C]`` broadcast. O(1)."""
    if context is None or x.shape[:-1] == context.shape[:-1]:
        return
    try:
        torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    except RuntimeError as error:
        raise ValueError(
            f"{owner} expects batch shapes that broadcast; got x {list(x.shape)} and context {list(context.shape)}"
        ) from error


def check_data(x: Tensor, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless x is a data set: finite, floating point, ``[n, features]`` with n ≥ 1. O(nD).

    >>> import torch
    >>> check_data(torch.tensor([[0.0, 1.0], [2.0, torch.nan]]), 2, "PPCA")
    Traceback (most recent call last):
        ...
    ValueError: PPCA expects finite data; row 1, column 1 is nan (1 of 4 values are not finite). Remove or impute them
    """
    _check_shape(x, features, owner, reference)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for block in x.detach().split(ROWS_AT_ONCE):  # a sum in another dtype is that of a copy
        total += block.sum(dtype=torch.float64)
    if bool(total.isfinite()):
        return  # as no sum with an infinite or undefined term is; one pass instead of four
    finite = x.isfinite()
    if not finite.all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{owner} expects finite data; row {row}, column {column} is {x[row, column].item()} "
            f"({int((~finite).sum())} of {x.numel()} values are not finite). Remove or impute them"
        )


def check_contexts(
    context: Tensor | None, features: int, x: Tensor, owner: str, *, shared: bool = False, there: Tensor | None = None
) -> None:
    """Raise unless there is a finite context ``[n, features]`` for each row of data x ``[n, D]``, or none is due.

    Args:
        shared: whether a single one, ``[1, features]`` or ``[features]``, may stand for all rows.
        there: which rows count, ``[n]``: the contexts of others need not be finite. None for all.
    """
    check_context(context, features, owner, reference=x)
    if context is None:
        return
    rows = torch.atleast_2d(context) if shared else context
    counted = rows if there is None or len(rows) != len(x) else rows[there]
    check_data(counted, features, f"{owner}, as context,", reference=x)
    if len(rows) != len(x) and not (shared and len(rows) == 1):
        words = f"a context for each of the {len(x)} rows of data{', or one for all' if shared else ''}"
        raise ValueError(f"{owner} expects {words}; got {len(rows)}")


def check_count(n: SupportsIndex, name: str, *, least: int = 1) -> int:
    """The count as an int, whatever kind of integer it is; ValueError unless it is one, and at least so large.

    True is no count. A numpy integer is:

    >>> import numpy as np
    >>> check_count(np.int64(3), "features")
    3
    """
    truth = isinstance(n, bool) or (isinstance(n, Tensor) and n.dtype is torch.bool)
    try:
        count = least - 1 if truth else index(n)
    except TypeError:
        count = least - 1
    if count < least:
        raise ValueError(f"{name} must be {'a positive int' if least == 1 else f'an int, {least} or more'}; got {n!r}")
    return count


def check_columns(columns: Iterable[SupportsIndex], features: int, owner: str, *, proper: bool = False) -> list[int]:
    """The columns as ints; ValueError unless they are different ones of 0 … features − 1, one or more.

    Args:
        proper: not all of them.

    >>> check_columns(range(0, 4, 2), 4, "GaussianMixture")
    [0, 2]
    """
    found = [check_count(column, "a column", least=0) for column in columns]
    if not found or len(set(found)) < len(found) or max(found) >= features:
        raise ValueError(f"{owner} expects different columns of 0 … {features - 1}, one or more; got {found}")
    if proper and len(found) == features:
        raise ValueError(f"{owner} expects some columns and not all {features}; nothing would be left")
    return found


def settle_counts(settings: object, *names: str, prefix: str = "", least: int = 1) -> None:
    """Check counts among the fields of a frozen dataclass, and store them as ints; a None stays one."""
    for name in names:
        count = getattr(settings, name)
        if count is not None:
            object.__setattr__(settings, name, check_count(count, prefix + name, least=least))


def check_floating(x: Tensor, name: str, owner: str, reference: Tensor | None = None) -> None:
    """Raise unless x is a dense floating-point tensor, and in the dtype and on the device of the reference. O(1)."""
    if not isinstance(x, Tensor) or isinstance(x, MaskedTensor) or x.layout is not torch.strided:
        raise TypeError(f"{owner} expects {name} to be a torch.Tensor; got {foreign(x, name)}")
    if not x.is_floating_point():
        convert = f"{name}.to(x)" if name in BESIDE else f"{name}.double()"
        raise TypeError(f"{owner} expects {name} to be floating point; got {x.dtype}. Convert with {convert}")
    if reference is not None and (x.dtype != reference.dtype or x.device != reference.device):
        raise TypeError(
            f"{owner} computes in {reference.dtype} on {reference.device}; {name} is {x.dtype} on {x.device}. "
            + (f"Convert with {name}.to(x)" if name in BESIDE else f"Move one of them, e.g. model.to({name})")
        )


def foreign(x: object, name: str) -> str:
    """What came instead of a tensor, and how to make one of it. Nothing is imported to tell: packages may be absent.

    >>> foreign([1.0, 2.0], "x")
    'list. Convert with torch.tensor(x), a list of tensors with torch.stack(x)'
    """
    what = type(x).__name__
    if isinstance(x, MaskedTensor):
        return f"{what}. {name}.to_tensor(torch.nan) marks what it masks by nan, {MISSING}"
    if isinstance(x, Tensor):
        return f"a sparse one ({x.layout}). Convert with {name}.to_dense()"
    if isinstance(x, np.ma.MaskedArray):
        return f"{what}. torch.as_tensor({name}.filled(numpy.nan)) marks what it masks by nan, {MISSING}"
    if isinstance(x, np.ndarray):
        return f"{what}. Convert with torch.as_tensor({name}), which copies nothing: a memory map stays where it lies"
    if hasattr(x, "to_numpy"):
        return f"{what}. Convert with torch.tensor({name}.to_numpy()), once its columns are all numbers"
    if isinstance(x, list | tuple):
        return f"{what}. Convert with torch.tensor({name}), a list of tensors with torch.stack({name})"
    if isinstance(x, Mapping | str):
        return f"{what}. Give the tensor that holds the rows"
    if isinstance(x, Iterable):
        return (
            f"{what}. Join its chunks, torch.cat(list({name})), or of a loader of tuples the rows alone, torch.cat("
            f"[rows for rows, *_ in {name}]). Data in chunks is read by fits: of flows, VAEs, PPCA, GaussianMixture"
        )
    return f"{what}. Convert with torch.as_tensor({name})"


def check_settings(settings: object, kind: type, name: str, expected: str, owner: str) -> None:
    """Raise TypeError unless the settings of a fit are of the kind that it takes; the error says how to make them."""
    if not isinstance(settings, kind):
        raise TypeError(f"{owner} expects {expected} as {name}; got {in_words(settings)}")


def free_to_look(x: Tensor) -> bool:
    """Whether a branch on the values of a tensor costs nothing: on the CPU, where no compiler traces what is done.

    An accelerator would stop until all before is done, and a compiled graph would end there: what can do without, does.

    >>> import torch
    >>> free_to_look(torch.ones(1)), free_to_look(torch.ones(1, device="meta"))
    (True, False)
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def in_words(setting: object) -> str:
    """A setting as an error shows it: of a class where an instance is due, how to make one.

    >>> in_words(Tensor), in_words("adam")
    ('the class Tensor; make one, Tensor()', "'adam'")
    """
    if isinstance(setting, type):
        return f"the class {setting.__name__}; make one, {setting.__name__}()"
    return f"{type(setting).__name__}(…)" if is_dataclass(setting) else repr(setting)


def check_rows(
    x: Tensor, features: int, owner: str, *, reference: Tensor | None = None, incomplete: bool = False
) -> None:
    """:func:`check_incomplete` of data where nan marks a missing entry, :func:`check_data` of other data."""
    (check_incomplete if incomplete else check_data)(x, features, owner, reference=reference)


def check_incomplete(x: Tensor, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless x is a data set ``[n, features]``, n ≥ 1, in float32 or float64, without infinities. O(nD)."""
    _check_shape(x, features, owner, reference)
    infinite = x.isinf()
    if bool(infinite.any()):
        row, column = infinite.nonzero()[0].tolist()
        raise ValueError(
            f"{owner} expects finite data, or nan where an entry is missing; row {row}, column {column} is "
            f"{x[row, column].item()}. Remove it, or mark it as missing"
        )


def _check_shape(x: Tensor, features: int, owner: str, reference: Tensor | None) -> None:
    check_points(x, features, owner, reference=reference)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{owner} expects data in float32 or float64; got {x.dtype}. Convert with x.float()")
    if x.ndim != 2:
        raise ValueError(f"{owner} expects data of shape [n, {features}]; got {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{owner} expects at least one row of data; got none")
