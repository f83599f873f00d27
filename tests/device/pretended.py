# ruff: noqa: ANN401
"""A device that is none: tensors that say ``cuda:0``, are computed on the CPU, and refuse to be mixed with its tensors.

A :class:`Pretended` tensor is a CPU tensor of another class, and every call of torch's passes :class:`_Device`, which
makes them where ``device=`` or a default says so, moves them, and raises what CUDA raises where tensors, or a tensor
and a generator, lie apart. Computations that never ask where they run give bit for bit what they give on the CPU.

Transforms of ``torch.func`` hand their functions new tensors, which are told here where they lie. What it cannot see:
the inside of torch's own functions, compilation, rounding, asynchrony. Kernels and waits are counted by
:mod:`tests.device.counting`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
TOOLS = Path(__file__).parent
OWN_OF_TORCH = tuple(str(Path(torch.__file__).parent / folder) for folder in ("optim", "nn/utils"))
PACKAGES = ("density", "flows", "lvm", "bridge", "studies", "tests")
MOVES = {
    Tensor.__deepcopy__,
    Tensor.copy_,
    Tensor.to,
    Tensor.cpu,
    Tensor.cuda,
    torch.as_tensor,
    Tensor.data.__set__,  # type: ignore[attr-defined]
    Tensor.grad.__set__,  # type: ignore[attr-defined]
}
COMPARISONS = {"_has_compatible_shallow_copy_type"}  # may ``module.to`` keep the tensor object?
INDEXED = {Tensor.__getitem__, Tensor.__setitem__}  # whose indices may lie on the CPU


class Pretended(Tensor):
    """A tensor on the device."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = nn.Parameter.__torch_function__  # as tensors are: what becomes of a result the mode says

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the host")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.numpy()

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification) if self.dim() == 0 else super().__format__(specification)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy, trains = self.detach().clone(), self.requires_grad
            memo[id(self)] = (
                nn.Parameter(copy, trains) if isinstance(self, nn.Parameter) else copy.requires_grad_(trains)
            )
        found: Tensor = memo[id(self)]
        return found


class Generator(torch.Generator):
    """A generator that says where it lies, and draws what one on the CPU draws."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._place = CUDA if torch.device(device).type == "cuda" else CPU

    @property
    def device(self) -> torch.device:
        return self._place


class _Device(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        given = leaves(args, kwargs)
        there = any(isinstance(t, Pretended) for t in given)
        if name == "__get__":  # an attribute
            found = func(*args)
            return _lying(found, CUDA) if there and isinstance(found, Tensor) else found
        named = func is torch.tensor or func is torch.as_tensor or func is Tensor.to
        place = _asked(args[1:] if named else (), kwargs)
        if func in (Tensor.cpu, Tensor.cuda):
            place = CUDA if func is Tensor.cuda else CPU
            func, args = Tensor.to, (args[0],)
        if func is Tensor.to and there and place == CPU and _brings_together():
            return args[0]
        if there and func not in MOVES and name not in COMPARISONS:
            _require_together(func, args, given)
        if isinstance(kwargs.get("generator"), torch.Generator):
            _require_near(func, kwargs["generator"], place or (CUDA if there else CPU))
        if place is not None:
            args, kwargs = tree_map_only((torch.device, str), _here, args), {**kwargs, **_placed(kwargs)}
        if func is Tensor.to and place is not None:
            args = args[0], *(_bare(a) if isinstance(a, Tensor) else a for a in args[1:])
        found = func(*args, **kwargs)
        if place is not None:
            found, given = _apart(found, args, place), []
        elif there and func != Tensor.as_subclass:
            place = CUDA
        for t in leaves(found) if place is not None else ():
            if isinstance(t, Tensor) and all(t is not own for own in given):  # what was written into stays where it is
                _lying(t, place)
        return found


def _lying(t: Tensor, place: torch.device) -> Tensor:
    """The same tensor, lying there: an alias would be a view, of which gradients are taken otherwise."""
    if type(t) in (Tensor, Pretended):
        t.__class__ = Pretended if place.type == "cuda" else Tensor
    return t


def _module_to(module: nn.Module, *args: Any, to: Any = nn.Module.to, **kwargs: Any) -> nn.Module:
    """``module.to``, told by position where to; of a tensor torch would ask where it lies."""
    if args and isinstance(args[0], Tensor):
        args = args[0].device, args[0].dtype
    elif kwargs.get("device") is not None:
        args = kwargs.pop("device"), *([kwargs.pop("dtype")] if "dtype" in kwargs else [])
    moved: nn.Module = to(module, *args, **kwargs)
    return moved


def _saved(content: Any, *arguments: Any, save: Any = torch.save) -> None:
    """Written as it is; read again, it is wanted on the CPU."""
    save(tree_map_only(Pretended, lambda t: t.detach().as_subclass(Tensor), content), *arguments)


def _loaded(source: Any, *arguments: Any, map_location: Any = None, load: Any = torch.load, **how: Any) -> Any:
    """What was written, where it is wanted."""
    found = load(source, *arguments, map_location=None if map_location is None else CPU, **how)
    there = isinstance(map_location, str | torch.device) and torch.device(map_location).type == "cuda"
    return _told(found, [there] * len(leaves(found)))


def leaves(*given: Any) -> list[Any]:
    """What lists, tuples and dictionaries hold, in any order: torch's own walk takes most of the time of a test."""
    found, left = [], [*given]
    while left:
        value = left.pop()
        if isinstance(value, list | tuple):
            left += value
        elif isinstance(value, dict):
            left += value.values()
        else:
            found.append(value)
    return found


def _asked(args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call asks for, by its name or by a tensor that lies there."""
    for value in (kwargs.get("device"), kwargs.get("other"), *args):
        if isinstance(value, Pretended):
            return CUDA
        if isinstance(value, Tensor):
            return CPU
        if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu")):
            return torch.device(value)
    return None


def _brings_together() -> bool:
    """Whether it is torch's own optimisers or clipping that ask, which know on the CPU what they bring together."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(str(TOOLS)):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OWN_OF_TORCH)


def _here(value: Any) -> Any:
    named = isinstance(value, str) and value.split(":")[0] == "cuda"
    return CPU if named or isinstance(value, torch.device) else value


def _placed(kwargs: Any) -> dict[str, Any]:
    return {"device": CPU} if kwargs.get("device") is not None else {}


def _bare(t: Tensor) -> Tensor:
    return t.as_subclass(Tensor) if isinstance(t, Pretended) else t


def _apart(found: Any, args: Any, place: torch.device) -> Any:
    """A copy of what is asked for elsewhere than where it lies, and was given back as it is."""
    moved = isinstance(found, Tensor) and isinstance(found, Pretended) is not (place.type == "cuda")
    same = any(isinstance(t, Tensor) and found.data_ptr() == t.data_ptr() for t in leaves(args)) if moved else False
    return found.clone() if same else found


def _require_together(func: Any, args: Any, given: list[Any]) -> None:
    """Numbers of the CPU may take part, and its indices into what lies on the device."""
    indexed = func in INDEXED and isinstance(args[0], Pretended)
    for t in leaves(args[2:]) if indexed else given:
        if isinstance(t, Tensor) and not isinstance(t, Pretended) and t.dim() > 0:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({getattr(func, '__name__', func)}, whose tensor of shape {list(t.shape)} is on the cpu)"
            )


def _require_near(func: Any, generator: torch.Generator, place: torch.device) -> None:
    if generator.device.type != place.type:
        raise RuntimeError(f"Expected a '{place}' device type for generator but found '{generator.device}' ({func})")


def _told(given: Any, there: list[bool]) -> Any:
    """The same tensors, each on the device where there says so."""
    for t, lies in zip(leaves(given), there, strict=True):
        if lies and type(t) is Tensor:
            t.__class__ = Pretended
    return given


def _inside(function: Any, there: list[bool]) -> Any:
    return lambda *args, **kwargs: function(*_told((args, kwargs), there)[0], **kwargs)


def _transformed(transform: Any) -> Any:
    """``vmap`` and ``grad_and_value``, whose function is told where its arguments lie."""

    def of(function: Any, *how: Any, **named: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            there = [isinstance(t, Pretended) for t in leaves((args, kwargs))]
            found = transform(_inside(function, there), *how, **named)(*args, **kwargs)
            return _told(found, [any(there)] * len(leaves(found)))

        return call

    return of


def _vjp(function: Any, *primals: Any, vjp: Any = torch.func.vjp) -> Any:
    there = [isinstance(t, Pretended) for t in leaves((primals, {}))]
    value, pull = vjp(_inside(function, there), *primals)

    def told_pull(*cotangents: Any) -> Any:
        found = pull(*cotangents)
        return _told(found, [any(there)] * len(leaves(found)))

    return _told(value, [any(there)] * len(leaves(value))), told_pull


IMPORTED = {
    "Generator": (torch.Generator, Generator),
    "vjp": (torch.func.vjp, _vjp),
    **{f.__name__: (f, _transformed(f)) for f in (torch.func.vmap, torch.func.grad_and_value)},
}


@contextmanager
def pretended(memory: int = 2**34) -> Iterator[None]:
    """There is a device called cuda within, of so many bytes, all of them free."""
    torch_cuda = {
        "mem_get_info": lambda device=None: (memory, memory),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "manual_seed": lambda seed: torch.default_generator.manual_seed(seed),
        "device": lambda device: nullcontext(),
        "synchronize": lambda device=None: None,
    }
    with ExitStack() as stack:
        for name, replacement in torch_cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, replacement))
        ours = [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]
        for module in ours:  # whoever imported them by name
            for word, (own, replacement) in IMPORTED.items():
                if vars(module).get(word) is own:
                    stack.enter_context(patch.object(module, word, replacement))
        stack.enter_context(patch.object(nn.Module, "to", _module_to))
        stack.enter_context(patch.object(torch, "save", _saved))
        stack.enter_context(patch.object(torch, "load", _loaded))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Device())
        yield
