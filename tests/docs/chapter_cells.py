"""The cells of a MyST notebook, run as plain Python: what the site executes, without the site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.places import ROOT

COMPANION = ROOT / "docs" / "companion"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?::(?P<name>[\w-]+): (?P<value>.*)\n)")


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes:
        code: Python, preceded by as many empty lines as stand before it in the file, so that errors name its lines.
        tags: of the cell, such as ``hide-cell`` of a solution.
    """

    code: str
    tags: tuple[str, ...]

    @property
    def hidden(self) -> bool:
        return "hide-cell" in self.tags


def chapters() -> list[Path]:
    """The chapters in their order, ``NN_name.md``."""
    return sorted(COMPANION.glob("[0-9][0-9]_*.md"))


def cells(chapter: Path) -> Iterator[Cell]:
    """The code cells of a chapter, in their order."""
    text = chapter.read_text(encoding="utf-8")
    for match in CELL.finditer(text):
        tags: tuple[str, ...] = ()
        start = match.start("text")
        while option := OPTION.match(text, start):
            if option["name"] == "tags":
                tags = tuple(tag.strip() for tag in option["value"].strip("[] ").split(","))
            start = option.end()
        yield Cell("\n" * text.count("\n", 0, start) + text[start : match.end("text")], tags)


def execute(chapter: Path) -> dict[str, object]:
    """Run every cell in one namespace, which is returned; an exception names file and line."""
    namespace: dict[str, object] = {"__name__": chapter.stem}
    for cell in cells(chapter):
        exec(compile(cell.code, str(chapter), "exec"), namespace)
    return namespace
