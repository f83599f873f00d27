"""Models as plain data: the constructor calls that build them, their ``state_dict()``, and what neither of these says.

A recipe holds dictionaries, lists, numbers, strings and tensors:

- ``parts``: every module that is an argument of another one, in the order of building; the last is the model. Each has
  its ``class``, ``named`` and ``variadic`` arguments, and its ``path`` in the model, as ``get_submodule`` takes it. A
  module that is met twice is one part, so what is shared stays shared.
- ``state``: the model's ``state_dict()``, in copies on the CPU. They keep their strides, and with them the order in
  which products are summed.
- ``dtypes``: what each module's tensors compute in, for buffers that a ``state_dict()`` leaves out. Their values follow
  from the arguments.
- ``tied``: the further names of tensors in the state that have several, each with the first one.
- ``frozen``: parameters that take no gradients. ``evaluating``: modules in evaluation mode.

A part that the model does not register has no path, but a ``state`` and ``dtypes`` of its own. An argument that is no
number, string, tensor or None is a dictionary that says what it is: ``{"part": 3}``, ``{"list": [...]}``, ``{"type":
"torch.nn.Tanh"}``, … Hooks and generators are not kept.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import chain, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from density.rebuildable import Rebuildable, arguments_of, call_signature
from density.saving.classes import TORCH, class_named, name_of
from density.saving.files import UnusableFile

Recipe = dict[str, Any]


class Writer:
    """Writes a model as a recipe: modules and tensors once each, however often they are met.

    Attributes:
        own: the classes that it met of neither these packages nor ``torch.nn``, by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self.own: dict[str, type] = {}
        self._model = model
        self._paths = {module: path for path, module in model.named_modules()}
        self._parts: list[Recipe] = []
        self._places: dict[nn.Module, int] = {}
        self._copies: dict[Tensor, Tensor] = {}

    def recipe(self) -> Recipe:
        """The recipe; TypeError if a part or an argument cannot be written."""
        model = self._model
        self._part(model, type(model).__name__)
        tensors, first = self._tensors(model), first_names(model.state_dict(keep_vars=True))
        return {
            "parts": self._parts,
            **tensors,
            "tied": {name: other for name, other in first.items() if name != other},
            "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
            "evaluating": [name for name, module in model.named_modules() if not module.training],
        }

    def _part(self, module: nn.Module, owner: str) -> int:
        """The place of a module among the parts."""
        if module not in self._places:
            variadic, named = _arguments(module, owner)
            cls = type(module)
            part = {
                "class": self._name(cls, owner),
                "variadic": [self._value(item, f"{cls.__name__}, argument {i}") for i, item in enumerate(variadic)],
                "named": {key: self._value(item, f"{cls.__name__}, argument {key}") for key, item in named.items()},
            }
            registered = module in self._paths
            self._parts.append(part | ({"path": self._paths[module]} if registered else self._tensors(module)))
            self._places[module] = len(self._parts) - 1
        return self._places[module]

    def _tensors(self, module: nn.Module) -> Recipe:
        """The entries of a recipe that say what a module holds."""
        floating = {name: tensor for name, tensor in named_tensors(module).items() if tensor.is_floating_point()}
        return {
            "state": {name: self._copy(tensor) for name, tensor in module.state_dict(keep_vars=True).items()},
            "dtypes": {name.rpartition(".")[0]: self._value(tensor.dtype, name) for name, tensor in floating.items()},
        }

    def _copy(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise _refusal(f"the extra state {tensor!r}", type(self._model).__name__)
        if tensor not in self._copies:
            self._copies[tensor] = tensor.detach().to("cpu", copy=True)
        return self._copies[tensor]

    def _value(self, value: object, owner: str) -> object:
        """An argument as plain data; the inverse of :meth:`Builder.value`."""
        match value:
            case None | bool():
                return value
            case nn.Module():
                return {"part": self._part(value, owner)}
            case nn.Parameter():
                return nn.Parameter(self._copy(value), requires_grad=value.requires_grad)
            case Tensor():
                return self._copy(value)
            case np.ndarray() | np.generic():
                return self._value(value.tolist(), owner)
            case Enum():
                return {"enum": self._name(type(value), owner), "member": value.name}
            case int() | float() | str():
                return next(plain(value) for plain in (int, float, str) if isinstance(value, plain))
            case torch.dtype():
                return {"dtype": str(value).removeprefix("torch.")}
            case list() | range():
                return {"list": [self._value(item, owner) for item in value]}
            case tuple():
                return {"tuple": [self._value(item, owner) for item in value]}
            case type():
                return {"type": self._name(value, owner)}
        if dataclasses.is_dataclass(value):
            fields = {f.name: self._value(getattr(value, f.name), owner) for f in dataclasses.fields(value) if f.init}
            return {"value": self._name(type(value), owner), "fields": fields}
        raise _refusal(repr(value), owner)

    def _name(self, cls: type, owner: str) -> str:
        name = name_of(cls)
        if name is None:
            raise _refusal(f"the class {cls.__module__}.{cls.__qualname__}", owner)
        if "." not in name:
            self.own[name] = cls
        return name


class Builder:
    """Builds parts one after the other, by constructors of known classes and nothing else.

    Args:
        classes: of a user's own.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self.parts: list[nn.Module] = []
        self._own = {cls.__name__: cls for cls in classes}
        self._restored: set[Tensor] = set()

    def model(self, recipe: Recipe) -> nn.Module:
        """The model of a recipe. Every part has its tensors before it becomes an argument.

        Raises:
            UnusableFile: a class is not known, or no part of a model.
            Exception: what a constructor raises at arguments, or ``load_state_dict`` at tensors, that do not fit.
        """
        for part in recipe["parts"]:
            module, path = self.part(part), part.get("path")
            self._restore(module, part if path is None else recipe, f"{path}." if path else "")
        tensors = module.state_dict(keep_vars=True)
        for name, first in recipe["tied"].items():
            place(module, name, tensors[first])
        frozen = set(recipe["frozen"])
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen)
        set_training(module, recipe["evaluating"])
        return module

    def part(self, part: Recipe) -> nn.Module:
        """The next part, as its constructor leaves it."""
        cls = class_named(part["class"], self._own)
        if not issubclass(cls, nn.Module):
            raise UnusableFile(f"{part['class']} is no part of a model")
        named = {name: self.value(value) for name, value in part["named"].items()}
        variadic = [self.value(value) for value in part["variadic"]]
        if cls is nn.Sequential:
            variadic, named = [OrderedDict(named)], {}
        elif variadic:  # what stands before them can only be passed by position as well
            parameters = call_signature(cls).parameters.values()
            before = takewhile(lambda parameter: parameter.kind is not inspect.Parameter.VAR_POSITIONAL, parameters)
            variadic = [named.pop(parameter.name) for parameter in before] + variadic
        self.parts.append(cls(*variadic, **named))
        return self.parts[-1]

    def value(self, value: object) -> Any:  # noqa: ANN401 - whatever a constructor takes
        """The argument that plain data stands for."""
        match value:
            case None | bool() | int() | float() | str() | Tensor():
                return value
            case {"part": int(place)}:
                return self.parts[place]
            case {"list": list(items)}:
                return [self.value(item) for item in items]
            case {"tuple": list(items)}:
                return tuple(self.value(item) for item in items)
            case {"dtype": str(name)} if isinstance(dtype := getattr(torch, name, None), torch.dtype):
                return dtype
            case {"type": str(name)}:
                return class_named(name, self._own)
            case {"enum": str(name), "member": member} if issubclass(cls := class_named(name, self._own), Enum):
                return cls[member]
            case {"value": str(name), "fields": fields} if dataclasses.is_dataclass(
                cls := class_named(name, self._own)
            ):
                return cls(**{key: self.value(field) for key, field in fields.items()})
        raise UnusableFile(f"{value!r} is no argument")

    def _restore(self, module: nn.Module, recipe: Recipe, prefix: str) -> None:
        """Give a module the tensors whose names begin with the prefix, unless all are those of earlier parts."""
        if prefix and self._restored.issuperset((*module.parameters(), *module.buffers())):
            return
        inside = {name.removeprefix(prefix): t for name, t in recipe["state"].items() if name.startswith(prefix)}
        # In copies: the constructors that are given the module may write into it, and the last word is the recipe's.
        module.load_state_dict({name: tensor.clone() for name, tensor in inside.items()}, assign=True)
        for name, buffer in list(module.named_buffers(remove_duplicate=False)):
            dtype = self.value(recipe["dtypes"].get((prefix + name).rpartition(".")[0]))
            if name not in inside and buffer.is_floating_point():
                place(module, name, buffer.to(dtype))
        self._restored.update((*module.parameters(), *module.buffers()))


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by all of their names."""
    both = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return dict(chain.from_iterable(both))


def place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter or a buffer where its name within a module says."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, tensor)


def set_training(model: nn.Module, evaluating: Iterable[str]) -> None:
    """Put the named modules into evaluation mode and all others into training mode."""
    for name, module in model.named_modules():
        module.training = name not in evaluating


def first_names(things: Mapping[str, object]) -> dict[str, str]:
    """For every name, the first one that the same object goes by."""
    first: dict[object, str] = {}
    return {name: first.setdefault(thing, name) for name, thing in things.items()}


def _refusal(what: str, owner: str) -> TypeError:
    return TypeError(
        f"{owner}: a file cannot hold {what}. It holds numbers, strings, tensors, layers of torch.nn and what these "
        "packages export. Instead of a function that makes a layer, pass its class (nn.Tanh) or the network itself; a "
        "class of your own must remember what it was built with, `class Mine(density.Rebuildable, nn.Module)`, and "
        "the file be read with load(path, classes=[Mine])"
    )


def _arguments(module: nn.Module, owner: str) -> tuple[list[object], dict[str, object]]:
    """What a part was built with: the variadic arguments, and all others by name."""
    cls = type(module)
    if cls is nn.Sequential:
        inner = module.named_modules(remove_duplicate=False)
        return [], {name: child for name, child in inner if name and "." not in name}
    if cls in TORCH.values():
        return [], _settings_of_layer(module)
    if isinstance(module, Rebuildable):
        return arguments_of(module)
    raise _refusal(f"a {cls.__module__}.{cls.__qualname__}", owner)


def _settings_of_layer(layer: nn.Module) -> dict[str, object]:
    """torch's layers keep their arguments as attributes of the same names; what has its default is left out."""
    settings: dict[str, object] = {}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        value = getattr(layer, name, parameter.default)
        if name == "bias":
            value = value is not None
        if name not in ("args", "kwargs", "device", "dtype") and value != parameter.default:
            settings[name] = value
    return settings
