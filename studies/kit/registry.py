"""The studies that there are, and their docstrings taken apart; nothing but the docstrings is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import iter_modules

import studies
from studies.kit.study import Study

FEW_LETTERS = 40  # "confirmed." is no answer yet


@dataclass(frozen=True)
class Doc:
    """A study's docstring.

    Attributes:
        question: its first line.
        sections: what stands under ``In short:``, ``Formula:``, ``Claim:``, ``Paper:``, ``Command:``, ``Run time:``,
            ``Expected:``, ``Answer:``, without indentation.
    """

    question: str
    sections: dict[str, str]

    @property
    def short(self) -> str:
        """The answer in a sentence or two: what stands under ``In short:``, or the first of the answer's sentences.

        >>> Doc("Is it?", {"Answer": "confirmed. It is so, at 0.5 nats.\\nMore of it."}).short
        'Confirmed. It is so, at 0.5 nats.'
        """
        words = " ".join(self.sections.get("In short", self.sections.get("Answer", "")).split())
        if "In short" not in self.sections:
            sentences = re.split(r"(?<=[.!?;:])\s+(?=[A-Z])", words)
            words = " ".join(sentences[: 1 + (len(sentences[0]) < FEW_LETTERS)])
        return words[:1].upper() + words[1:] if len(words.split(" ")[0].strip(".,;:")) > 1 else words


def every_study() -> list[Study]:
    """The packages of `studies` that measure something, by name.

    >>> [study.name for study in every_study()][:2]
    ['amortization', 'audit']
    """
    packages = [f"{studies.__name__}.{module.name}" for module in iter_modules(studies.__path__) if module.ispkg]
    return [Study(package) for package in packages if find_spec(f"{package}.measure")]


def doc(study: Study) -> Doc:
    """The docstring of a study.

    >>> sorted(doc(Study("studies.elbo_gap")).sections)
    ['Answer', 'Claim', 'Command', 'Expected', 'Formula', 'In short', 'Paper', 'Run time']
    """
    question, *lines = study.text.splitlines()
    sections: dict[str, list[str]] = {}
    body: list[str] = []
    for line in lines:
        start = re.match(r"([A-Z][a-z]+(?: [a-z]+)?):(?:\s+(.*)|)$", line)
        if start:
            body = sections.setdefault(start[1], [])
            body.append(start[2] or "")
        else:
            body.append(line.removeprefix("    "))
    return Doc(question, {title: "\n".join(part).strip("\n") for title, part in sections.items()})
