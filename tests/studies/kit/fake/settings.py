"""Settings and rows of the fake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from studies.kit import study
from studies.kit.settings import OF_THE_RUN, CommonSettings, setting


@dataclass(frozen=True)
class Settings(CommonSettings):
    """A hash of the data can be given, as if the file had changed."""

    hash: str = setting("0", OF_THE_RUN)
    pause: float = setting(0.02, OF_THE_RUN)


@dataclass(frozen=True)
class Key(study.Key):
    step: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """Thirty rows."""
    for step in range(30):
        yield study.Task(Key("none", settings.hash, 0, step), None, f"step {step}")
