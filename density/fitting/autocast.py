"""Lower precision where it is safe: in the networks, and not in the densities that they parametrise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@contextmanager
def lowered(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    r"""Run the networks inside a module under ``torch.autocast``; everything between them in its own precision.

    A network is an outermost module of ``torch.nn``, such as a ``Sequential``: its matrix products run in ``dtype``,
    and what it returns has the dtype of what it was given. Bijections and log-densities are not touched.
    A coupling layer therefore stays exactly invertible, and its log-determinant that of the map it computes: rounding
    changes which density the weights stand for, by a relative 2⁻⁸ of a network's outputs in bfloat16, and not that it
    integrates to one.

    Args:
        module: with float32 parameters; float64 is not touched by ``torch.autocast``.
        dtype: such as ``torch.bfloat16``; None changes nothing.

    >>> from density.families.nets import mlp
    >>> net = mlp(2, 1)
    >>> x = torch.randn(5, 2)
    >>> with torch.no_grad(), lowered(net, torch.bfloat16):
    ...     y = net(x)
    >>> y.dtype, bool((y != net(x)).any())
    (torch.float32, True)
    """
    if dtype is None:
        yield
        return
    with ExitStack() as hooks:
        for network in _networks(module):
            entered: list[torch.autocast] = []
            for handle in (
                network.register_forward_pre_hook(_entering(entered, dtype)),
                network.register_forward_hook(_leaving(entered), always_call=True),
            ):
                hooks.callback(handle.remove)
        yield


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, CONTAINERS):
        yield module
    else:
        for child in module.children():
            yield from _networks(child)


def _entering(entered: list[torch.autocast], dtype: torch.dtype) -> Callable[..., None]:
    def enter(network: nn.Module, given: tuple[Tensor, ...]) -> None:
        context = torch.autocast(given[0].device.type, dtype=dtype)
        context.__enter__()
        entered.append(context)

    return enter


def _leaving(entered: list[torch.autocast]) -> Callable[..., object]:
    def leave(network: nn.Module, given: tuple[Tensor, ...], output: object) -> object:
        entered.pop().__exit__(None, None, None)
        return _raised(output, given[0].dtype)

    return leave


def _raised(output: object, dtype: torch.dtype) -> object:
    """A network's output, or several, in a dtype."""
    if isinstance(output, tuple | list):
        return tuple(_raised(one, dtype) for one in output)
    return output.to(dtype) if isinstance(output, Tensor) and output.is_floating_point() else output
