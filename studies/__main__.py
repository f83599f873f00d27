"""List the studies: ``python -m studies``."""

from __future__ import annotations

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table


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


def main() -> None:
    """Print the list."""
    table = Table(
        "Run", "Question", "Run time", title="Studies (every one takes --help, --quick and --replot)", expand=False
    )
    for name, question, time in studies():
        table.add_row(f"python -m studies.{name}", question, time)
    Console().print(table)


if __name__ == "__main__":
    main()
