"""Lower precision where it is asked for: bfloat16 in networks, and not in their densities; TF32 in matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor, nn

from density.checks import find_reference
from density.own_precision import in_lower_precision

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def lowered(module: nn.Module, dtype: torch.dtype | None) -> AbstractContextManager[None]:
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
    return Lowering(module, dtype).entered()


class Lowering:
    """What :func:`lowered` does, for as many times as it is entered: a graph compiled in one of them is that of all.

    Networks have another ``forward`` meanwhile, since no graph is made of hooks that enter an autocast and leave it.

    Args:
        module, dtype: as there.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        networks = dict.fromkeys(_networks(module))  # parts may share one
        self.forwards = [] if dtype is None else [_Forward(network, dtype) for network in networks]
        self.networks = {forward.network for forward in self.forwards}
        self.words = f"networks in {str(dtype).removeprefix('torch.')}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The networks run lower within."""
        if not self.forwards:
            yield
            return
        with ExitStack() as after, in_lower_precision(self._concerns, self.words):
            for forward in self.forwards:
                after.callback(forward.put())
            yield

    def _concerns(self, model: nn.Module) -> bool:
        return not self.networks.isdisjoint(model.modules())


class _Forward:
    """The forward pass of a network under autocast; a copy of the network has a copy of it."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network, self.dtype, self.own = network, dtype, vars(network).get("forward")

    def __call__(self, *given: Tensor, **named: object) -> object:
        with torch.autocast(given[0].device.type, dtype=self.dtype):
            if self.own is None:
                output = type(self.network).forward(self.network, *given, **named)
            else:
                output = self.own(*given, **named)
        return _raised(output, given[0].dtype)

    def put(self) -> Callable[[], None]:
        """Give it to the network; returned is what takes it away again."""
        self.network.forward = self
        return self._take

    def _take(self) -> None:
        del self.network.forward
        if self.own is not None:
            self.network.forward = self.own


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
    with in_lower_precision(_on_cuda, "products in TF32"):
        if _is_allowed():  # and nothing is written: torch's "medium" precision, which allows more, would not come back
            yield
            return
        matmul.allow_tf32 = True
        try:
            yield
        finally:
            matmul.allow_tf32 = before in ("tf32", True)
            if named:
                matmul.fp32_precision = before


def _is_allowed() -> bool:
    try:
        return torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # torch does not say it where its older and its newer setting contradict
        return False


def _on_cuda(model: nn.Module) -> bool:
    reference = find_reference(model)
    return reference is not None and reference.device.type == "cuda" and reference.dtype == torch.float32


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, CONTAINERS):
        yield module
    else:
        for child in module.children():
            yield from _networks(child)


def _raised(output: object, dtype: torch.dtype) -> object:
    """A network's output, or several, in a dtype."""
    if isinstance(output, tuple | list):
        return tuple(_raised(one, dtype) for one in output)
    return output.to(dtype) if isinstance(output, Tensor) and output.is_floating_point() else output
