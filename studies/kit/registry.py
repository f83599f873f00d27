"""The studies that there are, and their docstrings taken apart; nothing but the docstrings is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import iter_modules

import studies
from studies.kit.study import Study


@dataclass(frozen=True)
class Doc:
    """A study's docstring.

    Attributes:
        question: its first line.
        sections: what stands under ``Claim:``, ``Paper:``, ``Command:``, ``Run time:``, ``Expected:``, ``Answer:``,
            without indentation.
    """

    question: str
    sections: dict[str, str]


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
    ['Answer', 'Claim', 'Command', 'Expected', 'Paper', 'Run time']
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
