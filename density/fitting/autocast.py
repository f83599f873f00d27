"""Lower precision where it is asked for: bfloat16 in the networks, and not in the densities that they parametrise;
TF32 in products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from density.checks import find_reference
from density.own_precision import in_lower_precision

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@contextmanager
def lowered(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    r"""Run the networks inside a module under ``torch.autocast``; everything between them in its own precision.

    A network is an outermost module of ``torch.nn``, such as a ``Sequential``: its matrix products run in ``dtype``,
    and what it returns has the dtype of what it was given. Bijections and log-densities are not touched.
    A coupling layer therefore stays exactly invertible, and its log-determinant that of the map it computes: rounding
    changes which density the weights stand for, by a relative 2⁻⁸ of a network's outputs in bfloat16, and not that it
    integrates to one. How much that is in log p is measured in docs/speed.md. Claims made within say so.

    In steps of a fit ``Training(autocast=torch.bfloat16)`` does this; around a claim it scores in that precision.

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
    >>> from flows import maf
    >>> flow = maf(2, layers=1, hidden=(8,))
    >>> with lowered(flow, torch.bfloat16):
    ...     flow.log_density(x).method
    'change of variables, networks in bfloat16'
    """
    if dtype is None:
        yield
        return
    networks = [*_networks(module)]
    concerns = set(networks)
    words = f"networks in {str(dtype).removeprefix('torch.')}"
    with ExitStack() as hooks, in_lower_precision(lambda model: not concerns.isdisjoint(model.modules()), words):
        for network in networks:
            entered: list[torch.autocast] = []
            for handle in (
                network.register_forward_pre_hook(_entering(entered, dtype)),
                network.register_forward_hook(_leaving(entered), always_call=True),
            ):
                hooks.callback(handle.remove)
        yield


@contextmanager
def tensor_float_32(allowed: bool = True) -> Iterator[None]:
    """Allow TF32 in products of float32 matrices on CUDA: factors rounded to 11 bits, sums in float32.

    Afterwards, also after an error, torch's setting is what it was. It concerns all products within and not those of
    networks alone: also those of linear layers, whose log-determinants are those of the matrices before rounding, so
    that log p is no longer exactly that of the map as it is computed. Without the tensor cores of a recent GPU, and in
    float64, nothing changes. Claims made within on CUDA say so.

    In steps of a fit ``Training(tf32=True)`` does this. Convolutions are rounded so by torch's own default
    (``torch.backends.cudnn.allow_tf32``), which this leaves alone.

    Args:
        allowed: False changes nothing.

    >>> with tensor_float_32():
    ...     torch.backends.cuda.matmul.allow_tf32
    True
    >>> torch.backends.cuda.matmul.allow_tf32
    False
    """
    if not allowed:
        yield
        return
    matmul = torch.backends.cuda.matmul
    named = hasattr(matmul, "fp32_precision")  # since torch 2.9, beside the older one
    before = matmul.fp32_precision if named else matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with in_lower_precision(_on_cuda, "products in TF32"):
            yield
    finally:
        matmul.allow_tf32 = before in ("tf32", True)
        if named:
            matmul.fp32_precision = before


def _on_cuda(model: nn.Module) -> bool:
    reference = find_reference(model)
    return reference is not None and reference.device.type == "cuda" and reference.dtype == torch.float32


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
