"""Docstrings, and what a study prints on a terminal, as blocks of a page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from studies.kit.show import WIDTH
from studies.report.formulas import FUNCTIONS


@dataclass(frozen=True)
class Block:
    """A piece of text or a table, ready for the page.

    Attributes:
        kind: paragraph, verbatim or table.
        text: of a paragraph or verbatim block; the title of a table.
        header, rows: of a table.
        right: which columns hold numbers.
        caption: under a table.
    """

    kind: str
    text: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    right: tuple[bool, ...] = ()
    caption: str = ""


def rendered(content: object) -> Iterator[Block]:
    """What a study prints on a terminal, as blocks of the page.

    >>> [block.kind for block in rendered(Group(Text("words"), Table("a", "b", title="t")))]
    ['paragraph', 'table']
    """
    if isinstance(content, Group):
        for part in content.renderables:
            yield from rendered(part)
    elif isinstance(content, Table):
        cells = [[_plain(cell) for cell in column.cells] for column in content.columns]
        yield Block(
            "table",
            _plain(content.title),
            tuple(_plain(column.header) for column in content.columns),
            tuple(zip(*cells, strict=True)),
            tuple(column.justify == "right" for column in content.columns),
            _plain(content.caption),
        )
    elif isinstance(content, Text | str):
        for line in _plain(content).split("\n"):
            if line.strip():
                yield Block("paragraph", line.strip())
    else:
        recorder = Console(file=io.StringIO(), width=WIDTH, record=True)
        recorder.print(content)
        yield Block("verbatim", recorder.export_text().rstrip())


def _plain(cell: object) -> str:
    """Text without the markup of a terminal."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return Text.from_markup(cell).plain
    if isinstance(cell, Text):
        return cell.plain
    recorder = Console(file=io.StringIO(), width=WIDTH, record=True)
    recorder.print(cell)
    return recorder.export_text().strip()


def prose(text: str, sentence: bool = True) -> list[Block]:
    """Paragraphs and tables of a docstring; of a sentence, the first letter becomes a capital.

    >>> [block.kind for block in prose("Some words.\\n\\n==  ==\\na   b\\n==  ==\\n1   2\\n==  ==")]
    ['paragraph', 'table']
    """
    found = []
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.strip()]
        indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
        lines = [line[indent:] for line in lines]
        rules = [number for number, line in enumerate(lines) if line.startswith("==") and not line.strip("= ")]
        if len(rules) == 3 and rules[0] == 0 and rules[-1] == len(lines) - 1:
            found.append(_simple_table(lines, rules[1]))
        elif rules or any(line.startswith("  ") or "   " in line.strip() for line in lines):
            found.append(Block("verbatim", "\n".join(lines)))
        elif lines:
            words = " ".join(lines)
            found.append(Block("paragraph", capitalised(words) if sentence and not found else words))
    return found


def capitalised(words: str) -> str:
    """With a capital, unless it begins with a formula.

    >>> capitalised("confirmed."), capitalised("log p(x) is exact"), capitalised("q(z|x) is a delta")
    ('Confirmed.', 'log p(x) is exact', 'q(z|x) is a delta')
    """
    first, _, rest = words.partition(" ")
    formula = first in FUNCTIONS or not first.strip(".,:;").isalpha() or (len(first) == 1 and first != "a" and rest)
    return words if formula else words[:1].upper() + words[1:]


def _simple_table(lines: list[str], middle: int) -> Block:
    """reStructuredText's simple table: columns begin where the rules of equals signs do."""
    rule = lines[0]
    starts = [i for i, sign in enumerate(rule) if sign == "=" and (i == 0 or rule[i - 1] == " ")]
    ends = [*starts[1:], None]

    def cells(line: str) -> tuple[str, ...]:
        found = (line[start:end].strip() for start, end in zip(starts, ends, strict=True))
        return tuple("" if cell == ".." else cell for cell in found)

    header = tuple(" ".join(filter(None, parts)) for parts in zip(*map(cells, lines[1:middle]), strict=True))
    rows = tuple(cells(line) for line in lines[middle + 1 : -1])
    return Block("table", "", header, rows, (False,) * len(starts))
