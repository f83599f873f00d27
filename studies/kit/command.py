"""The command line of a study: ``python -m studies.NAME``, which is ``main("studies.NAME")``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from studies.kit.errors import InputError
from studies.kit.rows import is_main
from studies.kit.run import compute, stored
from studies.kit.settings import CommonSettings
from studies.kit.study import Study


def main(package: str, arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing of a study, and show it; the exit status.

    A study's parts are imported as they are needed, so that ``--help`` loads neither torch nor pandas, and ``--replot``
    and a run that finds every row finished do not load torch.

    Returns:
        0: all is well; 1: a fit failed or a check did; 2: the request makes no sense; 130: interrupted. Finished rows
        are kept in every case, and the next run goes on from there.

    Raises:
        SystemExit: help was asked for (0), or an option is unknown or malformed (2).
    """
    return run(Study(package), arguments)


def run(study: Study, arguments: Sequence[str] | None) -> int:
    """As :func:`main`, of a study that is there."""
    try:
        settings = parsed(study, arguments)
        folder = settings.folder(study.name)
        outcome = stored(study, folder) if settings.replot else compute(study, settings, folder)
        if not is_main():
            return 0
        from studies.kit.show import show  # here, since it loads pandas and matplotlib

        return show(study, settings, folder, outcome)
    except (InputError, OSError) as error:
        if is_main():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished rows are kept, the same command goes on from there", file=sys.stderr)
        return 130


def parsed(study: Study, arguments: Sequence[str] | None) -> CommonSettings:
    """Settings from the command line; ``--help`` shows each with its default.

    Raises:
        InputError: a value makes no sense.
        SystemExit: help was asked for (0), or an option is unknown or malformed (2).
    """
    chosen = tyro.cli(
        study.settings,
        prog=f"python -m {study.package}",
        description=study.text,
        args=None if arguments is None else list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    chosen.check()
    return chosen.quickened()
