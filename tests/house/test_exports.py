"""Files know a class by its room and its name, so a room exports every class that can be in a saved model."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from enum import Enum

import pytest
from torch import nn

import lvm
from density import Rebuildable
from density.saving.classes import ROOMS

# What can be no part of a saved model, for it holds something that a file cannot.
HOLDS_WHAT_A_FILE_CANNOT = {
    "density.families.gaussian.GivenGaussian",  # a Scale
    "bridge.conversions.nflows_transforms.FromNflows",  # a network of nflows
    "bridge.adapters.scvi.FromScvi",  # a network of scvi-tools
}


def classes() -> Iterator[type]:
    """All that the rooms define."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__ == module.name and not value.__name__.startswith("_"):
                    yield value


def named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def parts() -> Iterator[type]:
    """Modules that say how they were built."""
    for cls in classes():
        concrete = issubclass(cls, Rebuildable) and issubclass(cls, nn.Module) and not inspect.isabstract(cls)
        if concrete and named(cls) not in HOLDS_WHAT_A_FILE_CANNOT:
            yield cls


def arguments() -> Iterator[type]:
    """Data classes and enumerations that a constructor of a part takes, by what it says of its arguments."""
    wanted = {
        kind
        for part in parts()
        for hint in typing.get_type_hints(part.__init__).values()
        for kind in (hint, *typing.get_args(hint))
        if isinstance(kind, type) and kind.__module__.partition(".")[0] in ROOMS
    }
    for cls in classes():
        if (dataclasses.is_dataclass(cls) or issubclass(cls, Enum)) and issubclass(cls, tuple(wanted)):
            yield cls


def unexported() -> list[str]:
    return sorted(
        named(cls)
        for cls in (*parts(), *arguments())
        if getattr(importlib.import_module(cls.__module__.partition(".")[0]), cls.__name__, None) is not cls
    )


def test_every_class_that_can_be_saved_is_exported_by_its_room() -> None:
    assert unexported() == []


def test_the_walk_finds_parts_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Components", "Diagonal", "VAE"):
        monkeypatch.delattr(lvm, name)
    assert unexported() == ["lvm.mixture.components.Components", "lvm.mixture.covariance.Diagonal", "lvm.vae.model.VAE"]


def test_no_room_exports_two_classes_of_one_name() -> None:
    """Of a class that moved, a file may say the former module; the name must still lead to it alone."""
    names = [f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in (*parts(), *arguments())]
    assert sorted(names) == sorted(set(names))
