"""Studies that are one module each, as the kit sees them; this goes when the last of them is a package."""

# ruff: noqa: ANN401, D101, D103

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from types import SimpleNamespace
from typing import Any

import studies
from studies.data.load import Dataset, dataset
from studies.kit import settings, study
from studies.kit.rows import Row
from studies.kit.run import run
from studies.kit.settings import ADDED_LATER, OF_THE_RUN, quick
from studies.kit.study import Check

__all__ = ["ADDED_LATER", "OF_THE_RUN", "Check", "CommonSettings", "Study", "Task", "old_studies", "quick", "run"]


@dataclass(frozen=True)
class CommonSettings(settings.CommonSettings):
    def load(self, seed: int) -> Dataset:
        return dataset(self, seed)

    def selected(self, rows: Any) -> Any:
        return rows


@dataclass(frozen=True)
class Task:
    key: Row
    run: Callable[[], Row]
    label: str = ""
    output: Path | None = None
    needs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Parts(study.Study):
    text: str = ""
    settings: Any = None
    own: tuple[str, ...] = ()
    compute: Any = None
    report: Any = None

    @property
    def key(self) -> tuple[str, ...]:
        return ("study", "settings_hash", "data", "data_hash", "seed", *self.own)

    def tasks(self, settings: Any) -> Iterator[study.Task[study.Key, Any]]:
        named: Any = make_dataclass("Key", self.own, bases=(study.Key,), frozen=True)
        for task in self.compute(settings):
            makes = () if task.output is None else (task.output,)
            yield study.Task(named(**task.key), task.run, task.label, makes, task.needs)

    def measure(self, settings: Any, task: study.Task[study.Key, Any]) -> Row:
        row: Row = task.data()
        return row


def Study(
    name: str, doc: str, settings: Any, key: tuple[str, ...], compute: Any, figure: Any, table: Any, checks: Any
) -> Parts:
    report = SimpleNamespace(
        figure=figure, table=table, checks=checks, selected=lambda settings, rows: settings.selected(rows)
    )
    return Parts(f"studies.{name}", doc, settings, key, compute, report)


def old_studies() -> list[study.Study]:
    modules = [found.name for found in iter_modules(studies.__path__) if not found.ispkg]
    parts = ("_ask", "_figure", "_main__", "_models", "_report")
    found = [resolve_name(f"studies.{name}") for name in modules if not name.endswith(parts)]
    return [module.STUDY for module in found]
