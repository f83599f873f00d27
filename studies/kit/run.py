"""A run of a study, from its command line to what is missing of its rows, each kept as it comes.

Under ``torchrun`` every process computes every row, and what the rows need is summed over processes; the main process
alone writes and prints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from studies.kit.errors import InputError
from studies.kit.provenance import provenance, write_manifest
from studies.kit.rows import Outcome, Row, Rows, is_main
from studies.kit.settings import CommonSettings
from studies.kit.study import Key, Study, Task


def main(package: str, arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing of the study in a package, such as "studies.elbo_gap", and show it; the exit status.

    Returns:
        0: all is well; 1: a fit failed or a check did; 2: the request makes no sense; 130: interrupted. Finished rows
        are kept in every case, and the next run goes on from there.

    Raises:
        SystemExit: help was asked for (0), or an option is unknown or malformed (2).
    """
    study = Study(package)
    try:
        settings = parsed(study, arguments)
        folder = settings.folder(study.name)
        outcome = Outcome(Rows(folder / "rows.csv", study.key)) if settings.replot else compute(study, settings, folder)
        if not is_main():
            return 0
        from studies.kit.show import show  # here, since pandas and matplotlib take longer to load than --help should

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

    An option that is given counts as chosen, also where its value is the default: no preset changes it.
    """
    chosen = _read(study, arguments, study.settings())
    chosen.check()
    presets = chosen.of_presets()
    if not presets:
        return chosen
    flags = {name for name, value in presets.items() if isinstance(value, bool)}  # given, they differ from the default
    others = {name: value for name, value in presets.items() if name not in flags}
    chosen = _read(study, arguments, replace(study.settings(), **others))
    return replace(chosen, **{name: presets[name] for name in flags})


def _read(study: Study, arguments: Sequence[str] | None, default: CommonSettings) -> CommonSettings:
    return tyro.cli(
        study.settings,
        prog=f"python -m {study.package}",
        description=study.text,
        args=None if arguments is None else list(arguments),
        default=default,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def compute(study: Study, settings: CommonSettings, folder: Path) -> Outcome:
    """Compute what is missing; the study's ``measure`` is imported for the first row that is."""
    with _processes(settings.device) as wait:
        if is_main():
            Rows(folder / "rows.csv", study.key)  # mends what a kill has cut, before others read it
        wait()
        rows = Rows(folder / "rows.csv", study.key)
        wait()
        started, failures, new = time.perf_counter(), [], 0
        tasks = list(study.tasks(settings))
        _refuse_unused(study, settings, [task.data for task in tasks])
        refused = _reasons([task for task in tasks if task.refused])
        if refused and all(task.refused for task in tasks):
            raise InputError("; ".join(refused))
        open_tasks = [task for task in tasks if not task.refused]
        bar = tqdm(open_tasks, desc=study.name, unit="row", disable=None if is_main() else True)
        try:
            for task in bar:
                key: Row = {"study": study.name, "settings_hash": settings.digest, **asdict(task.key)}
                if key in rows and all(path.exists() for path in task.makes):
                    continue
                if not all(path.exists() for path in task.needs):
                    continue
                bar.set_postfix_str(task.label)
                begun = time.perf_counter()
                try:
                    with _said(task.data):
                        columns = study.measure(settings, task)
                except InputError:
                    raise
                except (ValueError, ArithmeticError, RuntimeError) as error:
                    failures.append(f"{task.label or asdict(task.key)}: {error}")
                    continue
                seconds = time.perf_counter() - begun
                about = {"dtype": settings.dtype, "seconds": round(seconds, 3)}
                if is_main():
                    rows.append({**key, **about, **columns, **_source(task.data), **provenance(settings.device)})
                new += 1
                wait()
                if task.label and is_main():
                    tqdm.write(f"{task.label}: {seconds:.1f} s", file=sys.stderr)
        finally:
            if is_main() and (new or (len(rows) and not (folder / "manifest.json").exists())):
                write_manifest(folder / "manifest.json", study.name, settings, rows, time.perf_counter() - started)
        return Outcome(rows, frozenset(task.key.data_hash for task in tasks), tuple(failures), new, refused)


def _refuse_unused(study: Study, settings: CommonSettings, data: Sequence[object]) -> None:
    """Raise an error of options that choose among columns or rows where there are none to choose from."""
    own = any(getattr(each, "source", "") for each in data)
    noisy = any("dequantised" in getattr(each, "note", "") for each in data)
    of_own = {name: own for name in ("label", "drop", "test", "drop_incomplete")}
    for name, used in {"dequantise": noisy, **of_own}.items():
        if getattr(settings, name) and not used:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} changes nothing in {study.name} with --data {settings.data}: leave it out")


def _source(data: object) -> Row:
    """What a row says of one's own file, and of what was done to it; nothing of other data."""
    source = getattr(data, "source", "")
    return {"source": "; ".join(filter(None, (source, getattr(data, "note", ""))))} if source else {}


def _reasons(tasks: Sequence[Task[Key, Any]]) -> tuple[str, ...]:
    """Each reason once, after the tasks that it is of."""
    labels: dict[str, list[str]] = {}
    for task in tasks:
        labels.setdefault(task.refused, []).append(task.label)
    return tuple(f"{', '.join(dict.fromkeys(filter(None, of)))}: {reason}" for reason, of in labels.items())


def _said(data: object) -> AbstractContextManager[None]:
    from studies.kit.ties import ties_said  # here, since torch takes longer to load than --help should

    return ties_said(data)


@contextmanager
def _processes(device: str) -> Iterator[Callable[[], None]]:
    """Join the processes that ``torchrun`` started, if it did; yields what makes each of them wait for the others."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield lambda: None
        return
    from density.parallel.processes import barrier, joined

    with joined(device):
        yield barrier
