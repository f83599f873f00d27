"""Flows of other libraries, for rows of mean 0 and standard deviation 1, as their builders make them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from studies.defaults.settings import Peer
from studies.kit.errors import InputError

LAYERS, SPLINE_LAYERS, BINS, BOUND = 5, 3, 8, 5.0


class Zuko(nn.Module):
    """A flow of zuko, which makes a distribution of its context."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of rows ``[n, D]``."""
        value: Tensor = self.flow().log_prob(x)
        return value


def peer(name: Peer, features: int, hidden: int) -> Any:  # noqa: ANN401 - a module that has a log_prob
    """An untrained flow of that name with two hidden layers in every network.

    Raises:
        InputError: its library is not installed.
    """
    library = name.split()[0]
    if find_spec(library) is None:
        raise InputError(f"--peers '{name}' needs the package {library}: pip install {library}")
    return MAKERS[name](features, hidden)


def _zuko_nsf(features: int, hidden: int) -> nn.Module:
    import zuko

    return Zuko(zuko.flows.NSF(features, 0, transforms=SPLINE_LAYERS, hidden_features=(hidden, hidden)))


def _zuko_maf(features: int, hidden: int) -> nn.Module:
    import zuko

    return Zuko(zuko.flows.MAF(features, 0, transforms=LAYERS, hidden_features=(hidden, hidden)))


def _nflows_maf(features: int, hidden: int) -> nn.Module:
    from nflows.flows.autoregressive import MaskedAutoregressiveFlow

    flow: nn.Module = MaskedAutoregressiveFlow(features, hidden, LAYERS, 2, use_residual_blocks=False)
    return flow


def _nflows_nsf(features: int, hidden: int) -> nn.Module:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import (
        CompositeTransform,
        LULinear,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        RandomPermutation,
    )

    parts = []
    for _ in range(SPLINE_LAYERS):
        spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            features, hidden, num_bins=BINS, tails="linear", tail_bound=BOUND, use_residual_blocks=False
        )
        parts += [RandomPermutation(features), LULinear(features, identity_init=True), spline]
    flow: nn.Module = Flow(CompositeTransform(parts), StandardNormal([features]))
    return flow


MAKERS: dict[Peer, Callable[[int, int], nn.Module]] = {
    "zuko NSF": _zuko_nsf,
    "zuko NSF, early stopping": _zuko_nsf,
    "zuko MAF": _zuko_maf,
    "nflows NSF": _nflows_nsf,
    "nflows MAF": _nflows_maf,
}
