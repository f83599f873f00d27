"""The index of the lecture: from each slide's claim to its formula, code, proof, measurement and exercise.

``docs/companion/slides.toml`` has the slides as data; here they become Markdown, without Sphinx.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

COMPANION = Path(__file__).parents[1] / "companion"
DATA = COMPANION / "slides.toml"
THEOREMS = Path(__file__).parents[1] / "theorems.md"


@dataclass(frozen=True)
class Theorem:
    """A row of the list of theorems: what holds, the worst error that was measured, and what would have failed."""

    statement: str
    error: str
    tolerance: str


@dataclass(frozen=True)
class Slide:
    """A slide of the lecture, or a block of it.

    Attributes:
        title: of the slide.
        block: title of the part of the slide that this is about; empty if it has none.
        claim: in our words.
        formula: in TeX; empty for a list or a picture.
        names: public names of the code that it is about.
        test: the test that proves it, ``path::function``.
        theorem: number of the row of the list of theorems in which its error stands; 0 if in none.
        error: what the test allows, in words, where there is no theorem.
        study: name of the study that measures it.
        chapter: name of the file, without its ending.
        exercise: number of an exercise in it.
    """

    title: str
    claim: str
    names: tuple[str, ...]
    test: str
    study: str
    chapter: str
    exercise: int
    block: str = ""
    formula: str = ""
    theorem: int = 0
    error: str = ""


def slides() -> list[Slide]:
    """All of them, in the order of the lecture."""
    with DATA.open("rb") as file:
        return [Slide(**{**row, "names": tuple(row["names"])}) for row in tomllib.load(file)["slide"]]


def theorems(text: str) -> dict[int, Theorem]:
    """The rows of the list that have a number.

    >>> theorems("| 3 | a = b (nats) | 1e-14 | 1e-9 |")
    {3: Theorem(statement='a = b (nats)', error='1e-14', tolerance='1e-9')}
    """
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (\S+) \| (\S*) \|$", text, re.MULTILINE)
    return {int(number): Theorem(statement, error, tolerance) for number, statement, error, tolerance in rows}


def chapter_title(name: str) -> str:
    """The first heading of a chapter."""
    found = re.search(r"^# (.+)$", (COMPANION / f"{name}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{name}.md has no heading"
    return found[1]


def entry(slide: Slide, proven: dict[int, Theorem]) -> list[str]:
    """The lines of one slide, in Markdown, under the slide's own heading."""
    lines = [f"### {slide.block}", ""] if slide.block else []
    lines += [slide.claim, ""]
    if slide.formula:
        lines += ["$$", slide.formula.strip(), "$$", ""]
    path, _, function = slide.test.partition("::")
    error = slide.error
    if slide.theorem:
        theorem = proven[slide.theorem]
        statement = f"[theorem {slide.theorem}](../theorems.md#theorem-{slide.theorem})"
        error = f"{statement}, worst error {theorem.error}, tolerance {theorem.tolerance}"
    chapter = f"[{chapter_title(slide.chapter)}]({slide.chapter}.md)"
    lines += [
        "- Code: " + ", ".join(f"{{py:obj}}`~{name}`" for name in slide.names),
        f"- Proof: [`{function}`]({slide.chapter}.md#what-proves-it) in `{path}`; {error}",
        f"- Measured: {{doc}}`studies.{slide.study} </gallery/{slide.study}>`",
        f"- Chapter: {chapter}, [exercise {slide.exercise}]({slide.chapter}.md#exercises)",
        "",
    ]
    return lines


def index() -> str:
    """All slides, those of one title under one heading."""
    proven = theorems(THEOREMS.read_text(encoding="utf-8"))
    lines, title = [], ""
    for slide in slides():
        if slide.title != title:
            title = slide.title
            lines += [f"## {title}", ""]
        lines += entry(slide, proven)
    return "\n".join(lines)
