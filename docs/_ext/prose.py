"""Docstrings as reStructuredText: what they write plainly and Sphinx would misread."""

from __future__ import annotations

import inspect
import re

PIECE = re.compile(r"(``.*?``|:math:`.*?`)|[^`:]+|.")


def summary_and_rest(docstring: str | None) -> tuple[str, str]:
    """The first line without its full stop, and what follows it.

    >>> summary_and_rest("A map.  \\n\\n    Of x.")
    ('A map', 'Of x.')
    """
    first, _, rest = inspect.cleandoc(docstring or "").partition("\n")
    return escaped([first.strip().removesuffix(".")])[0], "\n".join(escaped(rest.strip().splitlines()))


def escaped(lines: list[str]) -> list[str]:
    r"""Prose whose bars are bars: in reStructuredText ``|a|`` would be a substitution.

    Formulas, literals and examples stay as they are.

    >>> escaped(["of |x| and ``|y|``", ".. math:: |z|", "", "    |z|", ">>> a |b|"])
    ['of \\|x\\| and ``|y|``', '.. math:: |z|', '', '    |z|', '>>> a |b|']
    """
    found: list[str] = []
    directive: int | None = None  # the indentation of the one that we are in
    example = False
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if directive is not None and line.strip() and depth <= directive:
            directive = None
        if line.lstrip().startswith(".. "):
            directive = depth
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        found.append(line if example or directive is not None else _bars(line))
    return found


def _bars(line: str) -> str:
    return PIECE.sub(lambda piece: piece[1] or piece[0].replace("|", r"\|"), line)
