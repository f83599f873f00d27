"""Models in files: the arguments that each part was built with, and the model's ``state_dict()``.

A file is no pickled object; :mod:`density.saving.recipe` says what it holds. Reading one calls the public constructors
of these packages and of a short list from ``torch.nn``, and nothing else. What a class does inside may change without
making old files unreadable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum

import torch
from torch import nn

from density.data.digest import data_in_words
from density.saving.files import UnusableFile, read, write
from density.saving.first_version import first_version
from density.saving.recipe import Builder, Recipe, Writer, first_names, named_tensors

KIND = "model"
# The dictionaries that every module has; torch has no other public answer to whether there are hooks.
TABLES = {name for name, value in vars(nn.Module()).items() if isinstance(value, dict)}


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
        ValueError: the model was changed after it was built, in ways that its constructors do not know: other parts,
            other settings, hooks.
        OSError: the file cannot be written.

    Cost: building the model once more, a digest of the tensors of both, and writing them.

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
    writer = Writer(model)
    recipe, cause = writer.recipe(), None
    try:
        changed = _difference(model, _built(recipe, writer.own.values()))
    except Exception as error:  # a constructor refuses the arguments, or its module the tensors
        changed, cause = " ".join(str(error).split()), error
    if changed is not None:
        raise ValueError(
            f"{type(model).__name__} was changed after it was built: {changed}. A file holds the arguments of "
            "constructors, so build the model anew with the parts that it has now, and save that"
        ) from cause
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

    >>> import tempfile
    >>> from density import Gaussian
    >>> path = tempfile.mkdtemp() + "/model.pt"
    >>> save(Gaussian(2), path)
    >>> type(load(path)).__name__
    'Gaussian'
    """
    content = read(path, KIND, device="cpu")
    try:
        return _built(content, classes).to(device)
    except UnusableFile as error:
        raise UnusableFile(f"{path}: {error}") from error
    except Exception as error:  # a constructor refuses what another version's took, or the file is a forgery
        raise UnusableFile(f"{path} holds a model that this version cannot build: {error}") from error


def _built(content: Recipe, classes: Iterable[type]) -> nn.Module:
    """Build, wherever new tensors go by default, on the CPU, and leave the global generator where it is."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        # The first version has a root; in later ones it is the last of the parts.
        return first_version(content, classes) if "root" in content else Builder(classes).model(content)


def _difference(model: nn.Module, again: nn.Module) -> str | None:
    """The first place where a model differs from another one, in words; None if there is none."""
    mine, other = _facts(model), _facts(again)
    for name in sorted(mine | other, key=lambda name: " of " in name):  # what there is before what it is like
        if name not in mine or name not in other:
            return f"{name} was {'added' if name in mine else 'removed'}"
        if mine[name] != other[name]:
            return f"{name} is {mine[name]}, not {other[name]}"
    return None


def _facts(model: nn.Module) -> dict[str, str]:
    """What makes a model what it is, in words: its modules, tensors, plain attributes and hooks, by name."""
    modules, tensors = dict(model.named_modules(remove_duplicate=False)), named_tensors(model)
    facts = {name or "the whole": f"a {type(m).__module__}.{type(m).__qualname__}" for name, m in modules.items()}
    for name, tensor in tensors.items():
        facts[name] = f"{data_in_words([tensor.flatten()])} of shape {list(tensor.shape)}"
        if isinstance(tensor, nn.Parameter):
            facts[name] += f", requires_grad={tensor.requires_grad}"
    for name, first in (first_names(modules) | first_names(model.state_dict(keep_vars=True))).items():
        facts[f"first name of {name}"] = first
    for name, module in modules.items():
        for key, value in vars(module).items():
            if key in TABLES:
                facts[f"{key} of {name or 'the whole'}"] = f"of {len(value)} entries"
            elif not key.startswith("_") and isinstance(value, bool | int | float | str | Enum | tuple | None):
                facts[f"{key} of {name or 'the whole'}"] = repr(value)
    return facts
