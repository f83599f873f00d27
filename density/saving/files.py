"""Files of tensors that are written whole or not at all, and that execute nothing when read."""

from __future__ import annotations

import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "elbogap"
VERSION = 2


class UnusableFile(ValueError):
    """A file is cut short, altered, of another program or of a later version; nothing was read from it.

    >>> import tempfile
    >>> from density import UnusableFile, load
    >>> path = Path(tempfile.mkdtemp()) / "model.pt"
    >>> written = path.write_bytes(b"no model")
    >>> try:
    ...     load(path)
    ... except UnusableFile:
    ...     print("no file of ours")
    no file of ours
    """


def write(path: str | os.PathLike[str], kind: str, content: dict[str, Any]) -> None:
    """Write a dictionary of tensors, numbers, strings, lists and dictionaries, atomically.

    The file is that of ``torch.save``, with the kind and the version of the format beside the content. It is written
    under another name in the same folder, flushed to the disk and then renamed: a process that is killed at any moment
    leaves the old file or the new one, never half of one.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with scratch.open("xb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "kind": kind, "content": content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str], kind: str, *, device: torch.device | str | None = None) -> dict[str, Any]:
    """The content that :func:`write` wrote, with its tensors on a device (that of writing, if None).

    Every byte of content is checked against its checksum before anything is made of it, and nothing in the file is
    executed (``torch.load`` with ``weights_only=True``).

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is cut short, altered, foreign, of another kind or of a later version.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # A part that is marked as a folder has no checksum that fails, and torch would read what memory holds.
            marked = next((part.filename for part in archive.infolist() if part.external_attr), None)
            damaged = archive.testzip() or marked
        if damaged is not None:
            raise UnusableFile(f"{path} is damaged (its part {damaged} fails its checksum). Use another copy")
        whole = torch.load(path, map_location=device, weights_only=True)
    except (UnusableFile, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # damage shows in many ways: in names, in flags, in the directory of the parts
        raise UnusableFile(f"{path} is cut short, altered or no {FORMAT} file: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise UnusableFile(f"{path} was not written by {FORMAT}")
    if whole["version"] > VERSION:
        raise UnusableFile(
            f"{path} has version {whole['version']} of the format; this {FORMAT} reads up to {VERSION}. Update it"
        )
    if whole["kind"] != kind:
        raise UnusableFile(f"{path} holds a {whole['kind']}, not a {kind}")
    content: dict[str, Any] = whole["content"]
    return content
