"""Settings of `judge`, and the rows that a run consists of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import tyro

from studies.data.load import Dataset, dataset
from studies.data.mixed import mixed_table
from studies.data.own.file import Selection
from studies.judge.own_models import Named, named
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import (
    ADDED_LATER,
    OF_THE_RUN,
    Bound,
    CommonSettings,
    all_or_at_least,
    at_least,
    quick,
    recorded,
    setting,
)

EXAMPLE = Path(__file__).parent / "examples" / "six_models.py"
POSITIVE_OR_OWN = Bound(lambda steps: steps is None or steps > 0, "must be positive")


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    file: tyro.conf.Positional[Path] = setting(EXAMPLE, recorded(_content))
    """A Python file that names models; it is YOUR CODE AND IS RUN AS SUCH, with all that it may do to your machine. It
    defines `to_fit`, a dictionary by name of functions that take the number of features and build a model, which is
    fitted here; or `fitted`, one of fitted models, or of functions that take the training rows and return a fitted one;
    or both. See docs/judge.md."""
    data: str = setting("rings", OF_THE_RUN)
    """digits, breast-cancer, wine; a toy density (toy, gaussian, mixture, eight-gaussians, checkerboard, rings, moons,
    random-flow, nonlinear); from the data directory mnist, mnist-binary, fashion-mnist, frey-faces, oil-flow, galaxies,
    power, gas, hepmass, miniboone, bsds300; or a path to your own file with one row a point."""
    trust: bool = setting(False, quick(True))
    """Take densities at their word: do not try whether they are normalised and their samples follow them."""
    train_rows: int = setting(20_000, quick(600), all_or_at_least(20))
    """Rows to fit, at most, drawn at random from those of the data; 0: all of them."""
    test_rows: int = setting(1000, quick(100), all_or_at_least(20))
    """Rows to judge by, at most, drawn at random from those of the data; 0: all of them."""
    steps: int | None = setting(2000, quick(100), POSITIVE_OR_OWN)
    """Steps of a gradient fit that is made here, at most; None: as many as the rows bear."""
    elbo_draws: int = setting(100, at_least(2, "to have a standard error"))
    """Latent draws for each test point of the ELBO."""

    mixed: bool = setting(False, ADDED_LATER)
    """Columns of your own file are of several kinds: words are categories, coded 0, 1, ..., whole numbers are counts,
    others numbers. Functions of the models' file that have an argument `columns` get the likelihoods of all columns in
    it; see docs/mixed_tables.md."""
    numbers: tuple[str, ...] | None = setting(None, ADDED_LATER)
    """With --mixed the columns of whole numbers that are numbers all the same, by name or by number from 1."""

    def check(self) -> None:
        super().check()
        if self.mixed and (self.dequantise or self.logit):
            raise InputError("--mixed takes columns as they are: leave out --dequantise and --logit")
        if self.numbers and not self.mixed:
            raise InputError("--numbers says which columns of a --mixed table are numbers; add --mixed")
        if self.file.suffix != ".py" or not self.file.is_file():
            raise InputError(f"no Python file '{self.file}'; give a .py file that names models")

    def folder(self, study: str) -> Path:
        common = super().folder(study)
        return common.with_name(f"{self.file.stem}-{common.name}")

    def options(self) -> str:
        rest = CommonSettings.options(replace(self, file=EXAMPLE))
        return rest if self.file == EXAMPLE else f"{self.file} {rest}".rstrip()


@dataclass(frozen=True)
class Key(study.Key):
    """A model, or what two of them say of each other, point by point."""

    model: str
    versus: str = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for each seed and model, then for each two models."""
    models = named(settings.file)
    if settings.logit and (ready := [model.name for model in models.values() if model.ready and not model.to_fit]):
        raise InputError(
            f"'{ready[0]}' of {settings.file.name} is fitted already, and not to logits: leave out --logit"
        )
    if len(settings.seeds) > 1 and (ready := [model.name for model in models.values() if model.ready]):
        raise InputError(
            f"'{ready[0]}' of {settings.file.name} is a model already, and cannot be made anew for each of "
            f"{len(settings.seeds)} seeds; give a function that makes it"
        )
    for seed in settings.seeds:
        data = _data(settings, seed)
        key = partial(Key, data.name, data.hash, seed)
        points = {name: _claims(settings, model, seed, data.hash) for name, model in models.items()}
        for name, paths in points.items():
            label = name if len(settings.seeds) == 1 else f"{name}, seed {seed}"
            yield study.Task(key(name), data, label, makes=paths)
        for first, second in combinations(models, 2):
            yield study.Task(key(first, second), data, needs=(*points[first], *points[second]))


def _data(settings: Settings, seed: int) -> Dataset:
    if not settings.mixed:
        return dataset(settings, seed, incomplete=True, narrowest=1)
    selection = Selection(
        settings.label, settings.drop or (), settings.test, settings.drop_incomplete, True, settings.numbers or ()
    )
    return mixed_table(settings.data, seed, selection, group_duplicates=settings.group_duplicates)


def _claims(settings: Settings, model: Named, seed: int, data_hash: str) -> tuple[Path, ...]:
    """A file for the claim of each fit, under a name that no other model has."""
    name = f"{re.sub(r'[^a-z0-9]+', '-', model.name.lower())}-{hashlib.sha256(model.name.encode()).hexdigest()[:6]}"
    return tuple(settings.arrays("judge", f"{name}-{seed}-{fit}", data_hash) for fit in range(len(model.sources)))
