"""Models in files: how each part was built, and the tensors that it holds.

A file is no pickled object. It holds a list of parts, every one as the name of its class, the arguments of its public
constructor and its tensors. Reading one calls those constructors, of these packages and of a short list from
``torch.nn``, and nothing else. What is inside a class may change without making old files unreadable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum
from typing import Any, TypeVar

import torch
from torch import nn

from density.saving.files import UnusableFile, read, write
from density.saving.recipe import Recipe, build, recipe_of

KIND = "model"

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model, configuration included, to one file, whole or not at all.

    Any density, model, transform or link of these packages, with the networks of ``torch.nn`` in them (layers,
    activations, ``Sequential``). Parts and parameters that are shared stay shared. Before anything is written, the
    model is built again from what will be, and compared: what is saved can be loaded.

    Args:
        model: on any device; ``load`` brings it back on the CPU, or where it is told.
        path: of the file; its folder is made.

    Raises:
        TypeError: a part is of a class that cannot be built again from its arguments, such as a network class of your
            own (see :class:`~density.rebuildable.Rebuildable`), an nflows transform or a compiled module.
        ValueError: the model was changed after it was built, in ways that its constructors do not know.
        OSError: the file cannot be written.

    Cost: building the model twice more, and writing its tensors.

    >>> import tempfile
    >>> from density.families.gaussian import Gaussian
    >>> model = Gaussian(2)
    >>> _ = model.fit(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/gaussian.pt")
    ...     again = load(f"{folder}/gaussian.pt")
    >>> type(again).__name__, again.log_prob(torch.zeros(1, 2)).equal(model.log_prob(torch.zeros(1, 2)))
    ('Gaussian', True)
    """
    recipe, own = recipe_of(model)
    try:
        changed = _difference(model, _built(recipe, own))
    except UnusableFile as error:
        changed = str(error)
    if changed is not None:
        raise ValueError(
            f"{type(model).__name__} was changed after it was built: {changed}. A file holds the arguments of "
            "constructors, so build the model anew with the parts that it has now, and save that"
        )
    write(path, KIND, recipe)


def load(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    classes: Iterable[type[nn.Module]] = (),
) -> nn.Module:
    """The model that :func:`save` wrote: class, values, dtypes, training mode and frozen parameters as they were.

    Nothing in the file is executed, and torch's global generator does not move.

    Args:
        path: of the file.
        device: where the model goes.
        classes: of your own, where the model has parts of them.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is cut short, altered, foreign, no model, of a later version, or holds a part of a class that
            is not among ``classes``.

    Cost: building the model, and reading its tensors.
    """
    content: Any = read(path, KIND, device="cpu")
    try:
        model = _built(content, classes)
    except UnusableFile as error:
        raise UnusableFile(f"{path}: {error}") from error
    except Exception as error:  # a constructor refuses what another version's took, or the file is a forgery
        raise UnusableFile(f"{path} holds a model that this version cannot build: {error}") from error
    return model.to(device)


def _built(recipe: Recipe, classes: Iterable[type]) -> nn.Module:
    """Build, wherever new tensors go by default, on the CPU, and leave the global generator where it is."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return build(recipe, classes)


def _difference(model: nn.Module, again: nn.Module) -> str | None:
    """How the first differs from the second in parts, tensors or settings, in words; None if it does not."""
    modules = [dict(m.named_modules(remove_duplicate=False)) for m in (model, again)]
    tensors = [_tensors(m) for m in (model, again)]
    parameters = [dict(m.named_parameters(remove_duplicate=False)) for m in (model, again)]
    for mine, other in (modules, parameters, tensors):
        if mine.keys() != other.keys():
            name = min(mine.keys() ^ other.keys())
            return f"{name} was {'added' if name in mine else 'removed'}"
    for mine, other in (modules, parameters):
        for name, where in _first_names(mine).items():
            if where != _first_names(other)[name]:
                return f"{name or 'the whole'} is shared with another part, or no longer is"
    for name, module in modules[0].items():
        other_module = modules[1][name]
        if type(module) is not type(other_module):
            return f"{name or 'the whole'} is a {type(module).__name__}, not a {type(other_module).__name__}"
        mine, other = _settings(module), _settings(other_module)
        for key in sorted(mine.keys() | other.keys()):
            if mine.get(key) != other.get(key):
                return f"{key} of {name or 'the whole'} is {mine.get(key)}, not {other.get(key)}"
    for name, tensor in tensors[0].items():
        copy = tensors[1][name]
        same = tensor.dtype == copy.dtype and tensor.shape == copy.shape
        if not (same and _equal(tensor.detach().cpu(), copy.detach())):
            return f"{name} is {tensor.dtype} of shape {list(tensor.shape)}, and comes back otherwise"
    return None


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _first_names(things: dict[str, Any]) -> dict[str, str]:
    """For every name, the first one that the same object goes by."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(thing), name) for name, thing in things.items()}


def _settings(module: nn.Module) -> dict[str, str]:
    """The plain attributes of a module, as text, and whether it has hooks."""
    plain = {
        name: repr(value)
        for name, value in vars(module).items()
        if not name.startswith("_") and isinstance(value, bool | int | float | str | Enum | tuple | None)
    }
    return plain | {"hooks": repr(bool(module._forward_hooks or module._forward_pre_hooks))}


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())  # nan equals nan here
