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


def with_tables(text: str) -> str:
    r"""Prose of a study's docstring, its simple tables taken apart: cells may hold bars, and be wide.

    >>> print(with_tables("==  ===\na   b\n==  ===\n1   |x|\n==  ==="))
    .. list-table::
       :header-rows: 1
       :widths: auto
    <BLANKLINE>
       * - a
         - b
       * - 1
         - \|x\|
    <BLANKLINE>
    """
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(_table(part) or "\n".join(escaped(part.splitlines())) for part in parts)


def _table(part: str) -> str:
    """A list-table, or nothing where the part is no simple table."""
    lines = inspect.cleandoc(part).splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"=+( +=+)+", line.strip())]
    if len(rules) != 3 or rules[0] != 0 or rules[2] != len(lines) - 1:
        return ""
    starts = [found.start() for found in re.finditer(r"=+", lines[0])]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]
    header = [" ".join(filter(None, column)) for column in zip(*cells[1 : rules[1]], strict=True)]
    return list_table([header, *cells[rules[1] + 1 : -1]])


def list_table(rows: list[list[str]], kind: str = "") -> str:
    """Rows of cells, the first of which is the header; in reStructuredText."""
    text = ".. list-table::\n   :header-rows: 1\n   :widths: auto\n" + (f"   :class: {kind}\n" if kind else "") + "\n"
    for row in rows:
        for number, cell in enumerate(row):
            words = "" if cell == ".." else _bars(re.sub(r" ?([±≥≤]) ", _kept_together, cell))
            text += f"   {' ' if number else '*'} - {words}".rstrip() + "\n"
    return text


def _kept_together(sign: re.Match[str]) -> str:
    return sign[0].replace(" ", "\N{NO-BREAK SPACE}")


def capital(words: str) -> str:
    """The beginning of a sentence: a word gets a capital letter, a formula none.

    >>> capital("as claimed"), capital("log p(x) and gap")
    ('As claimed', 'log p(x) and gap')
    """
    return words if words.startswith(("log ", "p(")) else words[:1].upper() + words[1:]


def _bars(line: str) -> str:
    return PIECE.sub(lambda piece: piece[1] or piece[0].replace("|", r"\|"), line)
