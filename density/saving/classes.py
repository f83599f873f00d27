"""Classes by the names that files know them by: ``lvm.PPCA``, ``torch.nn.Tanh``, or a user's class by itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping

from torch import nn

from density.rebuildable import Rebuildable
from density.saving.files import UnusableFile

ROOMS = ("density", "flows", "lvm", "bridge")
LAYERS = (
    "Sequential Linear Identity Flatten Unflatten Conv1d Conv2d ConvTranspose1d ConvTranspose2d LayerNorm GroupNorm "
    "BatchNorm1d BatchNorm2d Dropout AvgPool2d MaxPool2d AdaptiveAvgPool2d Upsample PixelShuffle Tanh Sigmoid ReLU "
    "LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Softplus Softsign Hardtanh"
)
TORCH: dict[str, type[nn.Module]] = {f"torch.nn.{name}": getattr(nn, name) for name in LAYERS.split()}


def name_of(cls: type) -> str | None:
    """The name of a class; None for one that no room exports, no layer and no :class:`Rebuildable` of a user's."""
    room = cls.__module__.partition(".")[0]
    if room in ROOMS:
        return f"{room}.{cls.__name__}" if _exported(room, cls.__name__) is cls else None
    if cls in TORCH.values():
        return f"torch.nn.{cls.__name__}"
    return cls.__name__ if issubclass(cls, Rebuildable) else None


def class_named(name: str, own: Mapping[str, type]) -> type:
    """The class of a name: what a room exports, a layer, or one of a user's own; nothing else is reached.

    Of ``room.any.path.Class`` only the room and the class count, so that a class may move within its room.

    Raises:
        UnusableFile: there is no such class.
    """
    room, _, path = name.partition(".")
    cls = TORCH.get(name) or own.get(name) or (_exported(room, path.rpartition(".")[2]) if room in ROOMS else None)
    if cls is None:
        raise UnusableFile(f"it holds a {name}, which is none of this program's; pass your own as load(classes=[...])")
    return cls


def _exported(room: str, name: str) -> type | None:
    found: object = getattr(pkgutil.resolve_name(room), name, None)
    return found if isinstance(found, type) and found.__module__.partition(".")[0] in ROOMS else None
