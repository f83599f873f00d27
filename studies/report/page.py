"""The page of results: a line a study, then chapters, from docstrings and rows to HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies.kit.registry import doc
from studies.kit.study import TOLD, Check, Finding, Study
from studies.kit.tables import typeset
from studies.report.argument import in_order
from studies.report.committed import Result
from studies.report.formulas import inline, mathml
from studies.report.pictures import Picture, picture
from studies.report.prose import Block, prose, rendered

LONG = 24  # letters of a cell that may take several lines
BESIDE = ("In short", "Answer", "Formula", "Expected")  # sections that have a place of their own


@dataclass(frozen=True)
class Shown:
    """One result on the page.

    Attributes:
        title: the data; of what settings, where these are not the defaults.
        small: whether it stands beside another result, folded: a quick run, or one of other data or settings.
        picture: its figure.
        blocks: tables and words.
        checks: what must hold of any run.
        findings: what may come out either way.
        provenance: where the numbers come from.
        warning: why it is not to be taken for the study's result.
    """

    title: str
    small: bool
    picture: Picture | None
    blocks: list[Block]
    checks: list[Check]
    findings: list[Finding]
    provenance: list[tuple[str, str]]
    warning: str

    @property
    def held(self) -> int:
        """How many checks passed."""
        return sum(bool(check.passed) for check in self.checks)

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many findings came out how."""
        counts = Counter(finding.verdict for finding in self.findings)
        return [(word, counts[word]) for word in TOLD.values() if counts[word]]

    @property
    def anew(self) -> bool:
        """Whether a finding says more than of the fits that were made."""
        return any(finding.anew for finding in self.findings)


@dataclass(frozen=True)
class Chapter:
    """One study on the page.

    Attributes:
        short: its answer in a sentence or two.
        answer: the whole of it.
        formula: what it is about; empty of most.
        sections: the docstring's others.
        results: what was measured, the committed one first.
    """

    name: str
    question: str
    short: str
    answer: list[Block]
    formula: str
    sections: list[tuple[str, list[Block]]]
    results: list[Shown]


def page(chapters: Sequence[Chapter]) -> str:
    """The HTML, from the template beside this file; chapters in the order of the argument."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "words": lambda text: Markup(inline(unbroken(typeset(text)))),
        "kind": lambda cell: "whole" if is_number(cell) else "words" if len(cell) > LONG else "",
        "formula": lambda text: Markup(mathml(text, display=True)),
        "numbers": typeset,
        "address": lambda text: Markup(text.replace("&", "&amp;")),
    }
    return environment.get_template("report.html").render(divisions=in_order(chapters))


def unbroken(text: str) -> str:
    """A text in which no line ends between a number and its error, or its sign.

    >>> unbroken("≥ 0.55 ± 0.02 nats") == "≥\\u00a00.55\\u00a0±\\u00a00.02 nats"
    True
    """
    return re.sub(r"(?<=[≤≥<>=]) (?=[−\d])", "\u00a0", text.replace(" ± ", "\u00a0±\u00a0"))


def is_number(cell: str) -> bool:
    """Whether a cell holds a number with its error, and few words.

    >>> is_number("≥ −109.18 ± 0.67  (≥ −106.60)"), is_number("0.5 of all")
    (True, False)
    """
    return not re.search(r"[A-Za-z]{2}", cell) and len(cell) < 2 * LONG


def chapter(study: Study, results: list[Result]) -> Chapter:
    """One study, with all that is known of it."""
    about = doc(study)
    order = ("Claim", "Paper", "Command", "Run time")
    titles = [*order, *(title for title in about.sections if title not in (*order, *BESIDE))]
    sections = [
        (title, prose(about.sections[title], title != "Command")) for title in titles if title in about.sections
    ]
    answer = prose(about.sections.get("Answer", ""))
    if not any(result.current for result in results):  # else each of these numbers is in a table, which a test ensures
        sections.append(("Expected", prose(about.sections.get("Expected", ""))))
    shown = [_shown(result, first=place == 0) for place, result in enumerate(results)]
    formula = " ".join(about.sections.get("Formula", "").split())
    return Chapter(study.name, about.question, about.short, answer, formula, sections, shown)


def _shown(result: Result, first: bool) -> Shown:
    report, rows = result.study.report, result.shown()
    try:
        blocks = list(rendered(report.table(rows)))
        checks = list(report.checks(result.every_seed()))
        if result.current and len(rows) < len(result.rows):
            seeds = ", ".join(map(str, sorted(result.rows["seed"].unique())))
            blocks += [Block("paragraph", f"All seeds ({seeds}) together:"), *rendered(report.table(result.rows))]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        reason = f"These rows are not those of a whole run, and there is no table of them ({type(error).__name__})."
        blocks, checks = [Block("paragraph", reason)], []
    drawn = picture(result.figure, result.study.shows(result.data)) if result.figure else None
    warning = ""
    if result.stale:
        warning = f"rows in {result.path.name} were made by other settings than the code's defaults; run it again"
    kind = ", quick run" if result.quick else "" if result.current else ", other settings than the defaults"
    said = drawn.caption if drawn else ""
    return Shown(
        f"{result.data}{kind}",
        not first or result.quick,
        drawn,
        [block for block in blocks if not (said and block.kind == "paragraph" and typeset(block.text) in said)],
        [check for check in checks if not isinstance(check, Finding)],
        [check for check in checks if isinstance(check, Finding)],
        _provenance(result),
        warning,
    )


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
