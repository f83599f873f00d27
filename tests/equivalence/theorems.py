"""Statements of the theorems, from the page that has them, beside the errors that were measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.places import ROOT

PAGE = "docs/theorems.md"
SECTION = re.compile(r"^### Theorem (\d+)\n\n((?:\S.*\n)+)\n((?: {4}.+\n)+)\nProof: `(.+?)`", re.MULTILINE)


@dataclass(frozen=True)
class Theorem:
    """One theorem.

    Attributes:
        number: its own.
        words, formula: what it says.
        proof: the module of tests.
    """

    number: int
    words: str
    formula: str
    proof: str

    @property
    def address(self) -> str:
        """Where the page has it."""
        return f"{PAGE}#theorem-{self.number}"


def theorems() -> dict[int, Theorem]:
    """All that the page states, by number."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    return {
        int(number): Theorem(int(number), " ".join(words.split()), formula.strip(), proof)
        for number, words, formula, proof in SECTION.findall(text)
    }


def stated(lines: Sequence[str]) -> list[str]:
    """Lines of measured errors, each led by its theorem's number, under what these theorems say.

    >>> stated(["7b mixture: every log-weight = log p  3e-14"])[:2]  # doctest: +ELLIPSIS
    ['', 'Theorem 7. Where q is the posterior, in PPCA and in mixtures, every log-weight is log p(x); ...']
    """
    known, last, found = theorems(), None, list[str]()
    for line in lines:
        number = re.match(r"(\d+)[a-h]?\b", line.strip())
        theorem = known.get(int(number[1])) if number else None
        if theorem is not None and theorem != last:
            found += [
                "",
                f"Theorem {theorem.number}. {theorem.words}",
                f"    {theorem.formula}",
                f"    {theorem.address}",
            ]
        last = theorem or last
        found.append(line)
    return found
