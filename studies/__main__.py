"""List the studies: ``python -m studies``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

HELP = """usage: python -m studies

Lists the studies. Run one with `python -m studies.NAME`; every one takes --help, --quick and --replot.
`python -m studies.report` puts all results on one page."""


def studies() -> list[tuple[str, str, str]]:
    """Name, question and run time of every study, read from the docstrings; nothing is imported.

    >>> [name for name, question, time in studies() if name == "elbo_gap"]
    ['elbo_gap']
    """
    found = []
    for path in sorted(Path(__file__).parent.glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        times = [line.removeprefix("Run time:").strip() for line in doc.splitlines() if line.startswith("Run time:")]
        if times:
            found.append((path.stem, doc.splitlines()[0], times[0]))
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the list; returns the exit status."""
    if arguments and set(arguments) <= {"-h", "--help"}:
        print(HELP)
        return 0
    if arguments:
        known = [name for name, _, _ in studies()]
        hint = f"python -m studies.{arguments[0]}" if arguments[0] in known else "python -m studies, without arguments"
        print(f"error: nothing to do with {' '.join(arguments)}. Try {hint}", file=sys.stderr)
        return 2
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Studies (every one takes --help, --quick and --replot)", expand=False)
    table.add_column("Run", no_wrap=True)
    table.add_column("Question")
    table.add_column("Run time")
    for name, question, time in studies():
        table.add_row(f"python -m studies.{name}", question, time)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
