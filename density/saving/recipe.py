"""A model as plain data: its parts in the order of building, each a class, arguments and tensors."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import pkgutil
from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from density.rebuildable import Rebuildable, arguments_of
from density.saving.files import UnusableFile

Recipe = dict[str, Any]

# Names in a file lead to classes of these packages; they are looked up when a file is read, and never imported here.
ROOMS = ("density", "flows", "lvm", "bridge")

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Upsample,
    nn.PixelShuffle,
    nn.Tanh,
    nn.Sigmoid,
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
)
TORCH: dict[str, type[nn.Module]] = {f"torch.nn.{c.__name__}": c for c in (nn.Sequential, *LAYERS)}


def recipe_of(model: nn.Module) -> tuple[Recipe, list[type]]:
    """What :func:`build` builds the model from, in dictionaries, lists, numbers, strings and copies of tensors.

    Returns:
        The recipe, and the classes in it that are neither of these packages nor of ``torch.nn``.

    Raises:
        TypeError: a part or an argument cannot be written as such.
    """
    writer = _Writer()
    root = writer.module(model, type(model).__name__)
    evaluating = [name for name, module in model.named_modules() if not module.training]
    recipe = {"root": root, "parts": writer.parts, "tensors": writer.tensors, "evaluating": evaluating}
    return recipe, list(writer.own.values())


def build(recipe: Recipe, classes: Iterable[type] = ()) -> nn.Module:
    """The model of a recipe, by the public constructors of its parts.

    Raises:
        UnusableFile: a class is none of ours, of ``torch.nn``'s layers or of the given ones.
        Exception: what a constructor raises at arguments that it does not take.
    """
    reader = _Reader(recipe, classes)
    model = reader.modules[recipe["root"]]
    evaluating = set(recipe["evaluating"])
    for name, module in model.named_modules():
        module.training = name not in evaluating
    model.load_state_dict(model.state_dict())  # changes no tensor; parts that keep what follows from theirs are told
    return model


class _Writer:
    """Modules and tensors are written once each, however often they are met."""

    def __init__(self) -> None:
        self.parts: list[Recipe] = []
        self.tensors: list[Recipe] = []
        self.own: dict[str, type] = {}
        self._places: dict[int, int] = {}
        self._met: list[object] = []  # kept alive, so that no id is given out twice

    def module(self, module: nn.Module, owner: str) -> int:
        if id(module) in self._places:
            return self._places[id(module)]
        variadic, named = _arguments(module, owner)
        name = type(module).__name__
        arguments = {
            "variadic": [self.value(value, f"{name}, argument {i}") for i, value in enumerate(variadic)],
            "named": {key: self.value(value, f"{name}, argument {key}") for key, value in named.items()},
        }
        given = {id(inner) for value in (*variadic, *named.values()) for inner in _modules(value)}
        tensors = {path: self.tensor(t) for path, t in _own_tensors(module, given)}
        dtype = self.value(_own_dtype(module, given), name)
        self.parts.append({"class": self.name(type(module), owner), **arguments, "tensors": tensors, "dtype": dtype})
        return self._place(module, len(self.parts) - 1)

    def tensor(self, tensor: Tensor) -> int:
        if id(tensor) in self._places:
            return self._places[id(tensor)]
        parameter = isinstance(tensor, nn.Parameter)
        # A copy keeps the layout in memory, and with it the order in which products are summed.
        data = tensor.detach().clone().cpu()
        self.tensors.append({"data": data, "parameter": parameter, "trained": tensor.requires_grad and parameter})
        return self._place(tensor, len(self.tensors) - 1)

    def value(self, value: object, owner: str) -> object:
        """An argument as plain data; what is no number, string or None is a dictionary that says what it is."""
        match value:
            case None | bool():
                return value
            case nn.Module():
                return {"part": self.module(value, owner)}
            case Tensor():
                return {"tensor": self.tensor(value)}
            case np.ndarray() | np.generic():
                return self.value(value.tolist(), owner)
            case Enum():
                return {"enum": self.name(type(value), owner), "member": value.name}
            case int() | float() | str():
                return next(plain(value) for plain in (int, float, str) if isinstance(value, plain))
            case torch.dtype():
                return {"dtype": str(value).removeprefix("torch.")}
            case list() | range():
                return {"list": [self.value(item, owner) for item in value]}
            case tuple():
                return {"tuple": [self.value(item, owner) for item in value]}
            case type():
                return {"type": self.name(value, owner)}
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return {
                "value": self.name(type(value), owner),
                "fields": {name: self.value(field, owner) for name, field in fields.items()},
            }
        raise TypeError(
            f"{owner}: {value!r} cannot be saved; a file holds numbers, strings, tensors, modules, and classes of "
            "these packages or of torch.nn. Instead of a function that makes a layer, pass its class (nn.Tanh) or the "
            "network itself"
        )

    def name(self, cls: type, owner: str) -> str:
        name = _name(cls)
        if name is None:
            raise TypeError(
                f"{owner}: the class {cls.__module__}.{cls.__qualname__} cannot be saved; it is neither of these "
                "packages or torch.nn's layers, nor a class of your own that derives from density.Rebuildable"
            )
        if "." not in name:
            self.own[name] = cls
        return name

    def _place(self, thing: object, place: int) -> int:
        self._met.append(thing)
        self._places[id(thing)] = place
        return place


class _Reader:
    def __init__(self, recipe: Recipe, classes: Iterable[type]) -> None:
        self.own = {c.__name__: c for c in classes}
        self.tensors = [
            nn.Parameter(t["data"], requires_grad=t["trained"]) if t["parameter"] else t["data"]
            for t in recipe["tensors"]
        ]
        self.modules: list[nn.Module] = []
        for part in recipe["parts"]:
            self.modules.append(self._part(part))

    def _part(self, part: Recipe) -> nn.Module:
        cls = self._class(part["class"])
        named = {name: self.value(value) for name, value in part["named"].items()}
        variadic = [self.value(value) for value in part["variadic"]]
        given = {id(inner) for value in (*variadic, *named.values()) for inner in _modules(value)}
        if cls is nn.Sequential:
            module: nn.Module = nn.Sequential(OrderedDict(named))
        elif issubclass(cls, nn.Module):
            leading = [named.pop(name) for name in _leading(cls)] if variadic else []
            module = cls(*leading, *variadic, **named)
        else:
            raise UnusableFile(f"{part['class']} is no part of a model")
        expected = {path: list(tensor.shape) for path, tensor in _own_tensors(module, given)}
        found = {path: list(self.tensors[index].shape) for path, index in part["tensors"].items()}
        if found != expected:
            path = min(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
            raise UnusableFile(
                f"{part['class']} should have its tensor {path} as {found.get(path)}, but is built with "
                f"{expected.get(path)} (shapes; None for no such tensor)"
            )
        for path, index in part["tensors"].items():
            parent, _, leaf = path.rpartition(".")
            owner, tensor = module.get_submodule(parent), self.tensors[index]
            table = owner._parameters if isinstance(tensor, nn.Parameter) else owner._buffers
            table[leaf] = tensor
        dtype = self.value(part["dtype"])
        for _, inner in _own_modules(module, given):
            for leaf in inner._non_persistent_buffers_set & inner._buffers.keys():
                buffer = inner._buffers[leaf]
                if dtype is not None and buffer is not None and buffer.is_floating_point():
                    inner._buffers[leaf] = buffer.to(dtype)
        return module

    def value(self, value: object) -> Any:  # noqa: ANN401 - whatever a constructor takes
        match value:
            case {"part": int(place)}:
                return self.modules[place]
            case {"tensor": int(place)}:
                return self.tensors[place]
            case {"list": list(items)}:
                return [self.value(item) for item in items]
            case {"tuple": list(items)}:
                return tuple(self.value(item) for item in items)
            case {"dtype": str(name)} if isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            case {"type": str(name)}:
                return self._class(name)
            case {"enum": str(name), "member": str(member)} if issubclass(enum := self._class(name), Enum):
                return enum[member]
            case {"value": str(name), "fields": dict(fields)} if dataclasses.is_dataclass(cls := self._class(name)):
                return cls(**{key: self.value(field) for key, field in fields.items()})
            case None | bool() | int() | float() | str():
                return value
        raise UnusableFile(f"{value!r} is no argument")

    def _class(self, name: str) -> type:
        known = TORCH.get(name) or self.own.get(name)
        if known is not None:
            return known
        room, _, rest = name.partition(".")
        if room in ROOMS and rest:
            module, _, attribute = name.rpartition(".")
            try:
                found = pkgutil.resolve_name(f"{module}:{attribute}")
            except (ImportError, AttributeError) as error:
                raise UnusableFile(f"this version has no {name}: {error}") from error
            if isinstance(found, type) and found.__module__.partition(".")[0] in ROOMS:
                return found
        raise UnusableFile(f"it holds a {name}, which is none of this program's; pass your own as load(classes=[...])")


def _name(cls: type) -> str | None:
    """What a class is called in files: by the package that exports it, or by its module; one's own by itself."""
    room = cls.__module__.partition(".")[0]
    if room in ROOMS:
        exported: object = getattr(pkgutil.resolve_name(room), cls.__name__, None)
        return f"{room if exported is cls else cls.__module__}.{cls.__qualname__}"
    if cls in TORCH.values():
        return f"torch.nn.{cls.__name__}"
    return cls.__name__ if issubclass(cls, Rebuildable) else None


def _arguments(module: nn.Module, owner: str) -> tuple[list[object], dict[str, object]]:
    """What a part was built with."""
    cls = type(module)
    if cls is nn.Sequential:
        return [], dict(module._modules)
    if cls in LAYERS:
        return [], _settings_of_layer(module)
    if isinstance(module, Rebuildable):
        return arguments_of(module)
    raise TypeError(
        f"{owner}: a file cannot rebuild a {cls.__module__}.{cls.__qualname__}, which does not say what it was built "
        f"with. Let a class of your own build it from numbers: one that derives from a class of these packages, or "
        "`class Mine(density.Rebuildable, nn.Module)`; read the file with load(path, classes=[Mine])"
    )


def _leading(cls: type) -> list[str]:
    """The parameters before the variadic one, which can then only be passed by position."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in itertools.takewhile(lambda p: p.kind is not inspect.Parameter.VAR_POSITIONAL, parameters)]


def _settings_of_layer(layer: nn.Module) -> dict[str, object]:
    """torch's layers keep their arguments as attributes of the same names; what has its default is left out."""
    settings: dict[str, object] = {}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if name in ("args", "kwargs", "device", "dtype") or not hasattr(layer, name):
            continue
        value = getattr(layer, name)
        if name == "bias":
            value = value is not None
        if parameter.default is inspect.Parameter.empty or value != parameter.default:
            settings[name] = value
    return settings


def _modules(value: object) -> Iterable[nn.Module]:
    """Modules within an argument, and theirs."""
    if isinstance(value, nn.Module):
        yield from value.modules()
        if isinstance(value, Rebuildable):  # arguments need not be registered: FlowVAE keeps its flow's parts alone
            variadic, named = arguments_of(value)
            for inner in (*variadic, *named.values()):
                yield from _modules(inner)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _modules(item)


def _own_modules(module: nn.Module, given: set[int]) -> Iterable[tuple[str, nn.Module]]:
    """The modules within a module, with prefixes for the names of their tensors, except those that it was given."""
    for path, inner in module.named_modules(remove_duplicate=False):
        if id(inner) not in given:
            yield f"{path}." if path else "", inner


def _own_tensors(module: nn.Module, given: set[int]) -> Iterable[tuple[str, Tensor]]:
    """The parameters and persistent buffers of a module's own: what constructors compute anew need not be kept."""
    for prefix, inner in _own_modules(module, given):
        for leaf, tensor in (*inner._parameters.items(), *inner._buffers.items()):
            if tensor is not None and leaf not in inner._non_persistent_buffers_set:
                yield prefix + leaf, tensor


def _own_dtype(module: nn.Module, given: set[int]) -> torch.dtype | None:
    """What a module's own tensors compute in, if there are any that do."""
    for _, inner in _own_modules(module, given):
        for tensor in (*inner._parameters.values(), *inner._buffers.values()):
            if tensor is not None and tensor.is_floating_point():
                return tensor.dtype
    return None
