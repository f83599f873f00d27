"""Digests of data and of parameters, by which a checkpoint knows them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

BYTES_AT_ONCE = 2**26
ODD = 0x1E3779B97F4A7C15


def parameters_in_words(module: nn.Module) -> str:
    """Class of a module, and a digest of the names, shapes and dtypes of all that it holds."""
    tensors = [f"{name} {list(t.shape)} {t.dtype}" for name, t in module.state_dict().items()]
    return f"{type(module).__name__} with {len(tensors)} tensors, {_digest([s.encode() for s in tensors])}"


def data_in_words(data: Iterable[Tensor]) -> str:
    """Shapes and dtypes of data, and a digest of every byte; O(nD), a gigabyte in about a second."""
    return ", ".join(f"{list(t.shape)} {t.dtype} {_digest(_bytes(t))}" for t in data)


def row_digests(data: Sequence[Tensor]) -> Tensor:
    """A hash of every byte of each row of tensors ``[n, *]``: ``[n]``, integers of 64 bits, on the CPU. O(nD)."""
    flat = [t.detach().cpu().reshape(len(t), -1).contiguous().view(torch.int16) for t in data]
    words = torch.cat(flat, 1).long()
    mixed = (words + ODD * torch.arange(1, words.shape[1] + 1)).mul_(ODD)
    mixed = (mixed ^ (mixed >> 31)).mul_(ODD).sum(1)
    return (mixed ^ (mixed >> 29)).mul_(ODD)


def unordered_in_words(chunks: Iterable[Sequence[Tensor]]) -> str:
    """Number, widths, dtype and a digest of rows of tensors ``[n, *]`` that may come in any order. O(nD)."""
    rows, total, kind = 0, 0, ""
    for chunk in chunks:
        total += int(row_digests(chunk).sum().item())
        rows, kind = rows + len(chunk[0]), ", ".join(f"{list(t.shape[1:])} {t.dtype}" for t in chunk)
    return f"{rows} rows of {kind} in chunks, {total % 2**64:016x}"


def _bytes(tensor: Tensor) -> Iterable[memoryview]:
    rows = max(1, BYTES_AT_ONCE // max(1, tensor[:1].numel() * tensor.element_size()))
    for chunk in tensor.detach().split(rows):
        yield memoryview(chunk.contiguous().cpu().reshape(-1).view(torch.uint8).numpy())


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
