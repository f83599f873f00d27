"""Results that are there: rows in `studies/reference`, and in a folder of one's own; each with its study."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

from studies.__main__ import studies
from studies.errors import InputError
from studies.kit import COMMON_KEY, Check
from studies.results import Rows
from studies.settings import CommonSettings

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True)
class Doc:
    """A study's docstring, taken apart.

    Attributes:
        name: of the study.
        question: its first line.
        sections: what stands under ``Claim:``, ``Paper:``, ``Command:``, ``Run time:``, ``Expected:``, ``Answer:``,
            without indentation.
    """

    name: str
    question: str
    sections: dict[str, str]


def doc(name: str, folder: Path = Path(__file__).parent) -> Doc:
    """The docstring of a study, which is not imported.

    >>> sorted(doc("elbo_gap").sections)
    ['Answer', 'Claim', 'Command', 'Expected', 'Paper', 'Run time']
    """
    text = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) or ""
    question, *lines = text.splitlines()
    sections: dict[str, list[str]] = {}
    body: list[str] = []
    for line in lines:
        start = re.match(r"([A-Z][a-z]+(?: [a-z]+)?):(?:\s+(.*)|)$", line)
        if start:
            body = sections.setdefault(start[1], [])
            body.append(start[2] or "")
        else:
            body.append(line.removeprefix("    "))
    return Doc(name, question, {title: "\n".join(part).strip("\n") for title, part in sections.items()})


@dataclass(frozen=True)
class Parts:
    """What a study file has, by the names that all of them use."""

    settings: type[CommonSettings]
    key: tuple[str, ...]
    table: Callable[[pd.DataFrame], RenderableType]
    checks: Callable[[pd.DataFrame], list[Check]]


def parts(name: str) -> Parts:
    """Import a study (its file alone: no torch) and take its functions.

    >>> parts("elbo_gap").settings().data
    'digits'
    """
    module: Any = resolve_name(f"studies.{name}")
    return Parts(module.Settings, _key(name, module), module.table, getattr(module, "checks", lambda rows: []))


def _key(name: str, module: ModuleType) -> tuple[str, ...]:
    """The key in the file's ``kit.Study(name, doc, settings, key, ...)``, literal or a constant of the module."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("kit.Study", "Study"):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            key = given["key"] if "key" in given else node.args[3]
            return tuple(getattr(module, key.id) if isinstance(key, ast.Name) else ast.literal_eval(key))
    raise InputError(f"studies/{name}.py has a run time and no kit.Study")


@dataclass(frozen=True, eq=False)
class Result:
    """Rows of one study on one data set, and the figure beside them.

    Attributes:
        study: its name.
        path: of the rows.
        figure: a PNG; None if there is none.
        rows: of one settings hash, in the order of the file.
        current: were they made by the settings that the code has now, at their defaults?
        committed: do they lie in `studies/reference`?
    """

    study: str
    path: Path
    figure: Path | None
    rows: pd.DataFrame
    current: bool
    committed: bool

    @property
    def data(self) -> str:
        """Names of the data sets."""
        return ", ".join(map(str, self.rows["data"].unique()))

    @property
    def quick(self) -> bool:
        """Was it a quick run, by the name of its folder?"""
        return self.path.parent.name.endswith("-quick")

    @property
    def stale(self) -> bool:
        """Committed as those of the code's defaults, and made by other settings.

        In `reference/STUDY/ANYTHING` lie rows that are meant to be of others.
        """
        return self.committed and not self.current and self.path.parent.parent.name != self.study

    def shown(self) -> pd.DataFrame:
        """Rows of the seeds that the study takes by default, or all if they are of other settings."""
        settings = parts(self.study).settings()
        chosen = settings.selected(self.rows) if self.current else self.rows
        return chosen if len(chosen) else self.rows


def results(name: str, folder: Path | None = None) -> list[Result]:
    """Everything there is of a study: first what was committed, then what lies in a folder of results.

    Rows of several settings are several results, those of the code's defaults first.

    Raises:
        InputError: a file of rows cannot be read.
    """
    found = [result for path in _committed(name) for result in _split(name, path, committed=True)]
    if folder is not None:
        for path in sorted((folder / name).glob("*/rows.csv")):
            found += _split(name, path, committed=False)
    return found


def every_result(folder: Path | None = None) -> Iterator[tuple[Doc, list[Result]]]:
    """All studies with their results."""
    for name, _, _ in studies():
        yield doc(name), results(name, folder)


def _committed(name: str) -> list[Path]:
    """``reference/NAME.csv``, ``reference/NAME/rows.csv`` and ``reference/NAME/ANYTHING/rows.csv``."""
    single = REFERENCE / f"{name}.csv"
    return [path for path in (single, REFERENCE / name / "rows.csv") if path.exists()] + sorted(
        (REFERENCE / name).glob("*/rows.csv")
    )


def _split(name: str, path: Path, *, committed: bool) -> list[Result]:
    study = parts(name)
    digest = study.settings().digest
    every = Rows(path, (*study.key, *COMMON_KEY)).frame()
    if every.empty:
        raise InputError(f"{path} has no rows")
    figures = [figure for figure in (path.with_suffix(".png"), path.with_name("figure.png")) if figure.exists()]
    figure = figures[0] if figures else None
    hashes = sorted(every["settings_hash"].unique(), key=lambda found: found != digest)
    return [
        Result(
            name,
            path,
            figure if position == 0 else None,  # it was drawn from the rows of one of them
            every[every["settings_hash"] == found].reset_index(drop=True),
            found == digest,
            committed,
        )
        for position, found in enumerate(hashes)
    ]
