"""List the studies, ``python -m studies``, or run what fits a time, ``python -m studies --budget 8m``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from studies.budget import Options, within, worst, write
from studies.kit.errors import InputError
from studies.kit.registry import doc, every_study

HELP = """usage: python -m studies

Lists the studies. Run one with `python -m studies.NAME`; every one takes --help, --quick and --replot.
`python -m studies.report` puts all results on one page.
`python -m studies --device cuda --budget 8m` runs those that fit eight minutes; --studies NAME ... says which."""


def main(arguments: Sequence[str]) -> int:
    """Print the list, or run within a budget; returns the exit status."""
    if arguments and set(arguments) <= {"-h", "--help"}:
        print(HELP)
        return 0
    if arguments and arguments[0].startswith("--"):
        return _within(arguments)
    if arguments:
        known = [study.name for study in every_study()]
        hint = f"python -m studies.{arguments[0]}" if arguments[0] in known else "python -m studies, without arguments"
        print(f"error: nothing to do with {' '.join(arguments)}. Try {hint}", file=sys.stderr)
        return 2
    table = Table(title="Studies (every one takes --help, --quick and --replot)", expand=False)
    table.add_column("Run", no_wrap=True)
    table.add_column("Question")
    table.add_column("Run time")
    for study in every_study():
        about = doc(study)
        table.add_row(f"python -m {study.package}", about.question, about.sections["Run time"].splitlines()[0])
    Console().print(table)
    return 0


def _within(arguments: Sequence[str]) -> int:
    options = tyro.cli(Options, prog="python -m studies", args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,))
    try:
        table = within(options)
        write(table, options)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return worst(table)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
