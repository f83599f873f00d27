"""Models in files of the first version of the format: they are read for good, and no longer written.

Each part had a class and arguments as now, and beside them its own tensors: the parameters and persistent buffers of
the modules in it that are neither parts before it nor in them, as places in a list ``tensors`` with the values, and in
``dtype`` what the other buffers of these modules compute in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from density.saving.files import UnusableFile
from density.saving.recipe import Builder, Recipe, place, set_training


class _FirstBuilder(Builder):
    """Knows the tensors of a file by their places."""

    def __init__(self, content: Recipe, classes: Iterable[type]) -> None:
        super().__init__(classes)
        self.tensors = [
            nn.Parameter(kept["data"], requires_grad=kept["trained"]) if kept["parameter"] else kept["data"]
            for kept in content["tensors"]
        ]

    def value(self, value: object) -> Any:  # noqa: ANN401 - as the present version's
        match value:
            case {"tensor": int(place)}:
                return self.tensors[place]
        return super().value(value)


def first_version(content: Recipe, classes: Iterable[type]) -> nn.Module:
    """The model of a file of the first version; raises as :meth:`~density.saving.recipe.Builder.model` does."""
    builder, before = _FirstBuilder(content, classes), set[nn.Module]()
    for part in content["parts"]:
        module = builder.part(part)
        paths = {path for path, inner in module.named_modules(remove_duplicate=False) if inner not in before}
        built = {name: t for name, t in module.state_dict().items() if name.rpartition(".")[0] in paths}
        own = {name: builder.tensors[index] for name, index in part["tensors"].items()}
        if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in built.items()}:
            raise UnusableFile(f"the tensors of {part['class']}, {[*own]}, are not those of this version, {[*built]}")
        for name, buffer in list(module.named_buffers(remove_duplicate=False)):
            if name.rpartition(".")[0] in paths and name not in built and buffer.is_floating_point():
                own[name] = buffer.to(builder.value(part["dtype"]))
        for name, tensor in own.items():
            place(module, name, tensor)
        before.update(module.modules())
    model = builder.parts[content["root"]]
    set_training(model, content["evaluating"])
    model.load_state_dict(model.state_dict())  # changes no tensor; parts that keep what follows from theirs are told
    return model
