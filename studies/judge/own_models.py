"""Models that a file of one's own names: the file is run as the code that it is, and asked for what it names."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from studies.kit.errors import InputError

TO_FIT, FITTED = "to_fit", "fitted"
OF_OBJECTS = ("state_dict", "log_density", "score_samples")  # what a model has, even where it can be called


@dataclass(frozen=True)
class Named:
    """What a file says of one model.

    Attributes:
        name: of the model.
        sources: one a fit: a model, or a function that returns one.
        to_fit: whether the study is to fit it.
    """

    name: str
    sources: tuple[object, ...]
    to_fit: bool

    @property
    def ready(self) -> bool:
        """Whether a source is a model already, which cannot be made anew for another seed."""
        return not all(map(is_function, self.sources))


def is_function(source: object) -> bool:
    """Whether it is called for a model, a class among them; a module that can be called is a model."""
    return callable(source) and (inspect.isclass(source) or not any(hasattr(source, name) for name in OF_OBJECTS))


@cache
def named(path: Path) -> dict[str, Named]:
    """The models of a file by name, in its order; it is run once in a process.

    Raises:
        InputError: the file cannot be run, or names no models; the message has its line.
    """
    module = _run(path)
    found: dict[str, Named] = {}
    for kind in (TO_FIT, FITTED):
        models = getattr(module, kind, {})
        if not isinstance(models, Mapping) or not all(isinstance(name, str) and name for name in models):
            raise InputError(f"{path}: {kind} must be a dictionary of models by their names; got {models!r:.80}")
        if twice := found.keys() & models.keys():
            raise InputError(f"{path}: '{min(twice)}' is in {TO_FIT} and in {FITTED}; a model has one name")
        for name, given in models.items():
            sources = tuple(given) if isinstance(given, list | tuple) else (given,)
            if not sources:
                raise InputError(f"{path}: '{name}' is an empty list; give a model, a function, or a list of its fits")
            found[name] = Named(name, sources, kind == TO_FIT)
    if not found:
        raise InputError(
            f"{path} names no models. Define {TO_FIT}, a dictionary of functions that build a model of so many "
            f"features, or {FITTED}, one of fitted models or functions that fit one to training rows"
        )
    return found


def _run(path: Path) -> ModuleType:
    """The file as a module under a name of its own; it may import its neighbours, now and later."""
    module = ModuleType(f"judged_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except Exception as error:  # whatever somebody's code raises
        package = missing_package(error)
        cure = "" if package is None else (
            f". Install {package}; or import it in the function that needs it, and the study goes on without that model"
        )  # fmt: skip
        raise InputError(f"{blamed(path, error)}{cure}") from error
    return module


def missing_package(error: Exception) -> str | None:
    """The package that an error says is not installed; None of other errors."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    return package if find_spec(package) is None else None


def blamed(path: Path, error: Exception) -> str:
    """An error in one line, with the line of the file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {type(error).__name__}: {' '.join(words.split())}"
