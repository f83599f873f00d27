"""The page of results: chapters, one a study, from docstrings and rows to HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from studies.kit.registry import doc
from studies.kit.show import WIDTH
from studies.kit.study import Check, Study
from studies.report.committed import Result


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


@dataclass(frozen=True)
class Shown:
    """One result on the page."""

    title: str
    figure: str
    alt: str
    blocks: list[Block]
    checks: list[Check]
    provenance: list[tuple[str, str]]
    warning: str

    @property
    def compared(self) -> bool:
        """Whether a check says what was expected and what came."""
        return any(check.expected or check.measured for check in self.checks)


@dataclass(frozen=True)
class Chapter:
    """One study on the page."""

    name: str
    question: str
    sections: list[tuple[str, list[Block]]]
    results: list[Shown]


def page(chapters: list[Chapter]) -> str:
    """The HTML, from the template beside this file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(chapters=chapters)


def chapter(study: Study, results: list[Result]) -> Chapter:
    """One study, with all that is known of it."""
    about = doc(study)
    order = ("Claim", "Answer", "Expected", "Paper", "Command", "Run time")
    titles = [*order, *(title for title in about.sections if title not in order)]
    sections = [
        (title, prose(about.sections[title], title != "Command")) for title in titles if title in about.sections
    ]
    return Chapter(study.name, about.question, sections, [_shown(result) for result in results])


def _shown(result: Result) -> Shown:
    report, rows = result.study.report, result.shown()
    try:
        blocks, checks = list(rendered(report.table(rows))), report.checks(rows)
        if result.current and len(rows) < len(result.rows):
            seeds = ", ".join(map(str, sorted(result.rows["seed"].unique())))
            blocks += [Block("paragraph", f"All seeds ({seeds}) together:"), *rendered(report.table(result.rows))]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        reason = f"These rows are not those of a whole run, and there is no table of them ({type(error).__name__})."
        blocks, checks = [Block("paragraph", reason)], []
    picture = base64.b64encode(result.figure.read_bytes()).decode() if result.figure else ""
    warning = ""
    if result.stale:
        warning = f"rows in {result.path.name} were made by other settings than the code's defaults; run it again"
    kind = ", quick run" if result.quick else "" if result.current else ", other settings than the defaults"
    title = f"{result.data}{kind}"
    alt = f"{result.study.name} on {result.data}: {report.table.__doc__ or ''}".strip()
    return Shown(title, picture, alt, blocks, checks, _provenance(result), warning)


def _provenance(result: Result) -> list[tuple[str, str]]:
    rows = result.rows
    facts = {
        "seeds": "seed",
        "settings hash": "settings_hash",
        "data hash": "data_hash",
        "file": "source",
        "device": "device",
        "dtype": "dtype",
        "versions": "versions",
    }
    found = [("rows", f"{len(rows)}, {'committed' if result.committed else 'your own'}: {result.path.name}")]
    for name, column in facts.items():
        if column in rows:
            values = [str(value) for value in rows[column].dropna().unique()]
            text = ", ".join(value[:12] if column == "data_hash" else value for value in values[:6])
            found.append((name, text + (f" and {len(values) - 6} more" if len(values) > 6 else "")))
    if "date" in rows:
        first, last = rows["date"].min()[:10], rows["date"].max()[:10]
        found.append(("computed", first if first == last else f"{first} to {last}"))
    if "seconds" in rows:
        found.append(("time", _duration(rows)))
    return found


def _duration(rows: pd.DataFrame) -> str:
    columns = [column for column in ("seconds", "seconds_asking") if column in rows]
    seconds = float(rows[columns].sum().sum())
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


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
            found.append(Block("paragraph", words[0].upper() + words[1:] if sentence and not found else words))
    return found


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
