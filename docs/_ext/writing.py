"""Pages that are written before the build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def heading(text: str, sign: str) -> str:
    """A title in reStructuredText.

    >>> print(heading("A", "="))
    A
    =
    <BLANKLINE>
    """
    return f"{text}\n{sign * max(len(text), 1)}\n\n"


def write_folder(folder: Path, pages: Mapping[str, str]) -> None:
    """These pages and no others; what did not change is left alone, so that a second build reads little."""
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
