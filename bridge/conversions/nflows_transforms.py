"""nflows transforms here, and ours in nflows (Durkan et al. 2020, github.com/bayesiains/nflows).

Both libraries take data to noise forward and return the log-determinant beside the value, so nothing changes sign.
Import this module for itself: ``flows`` does not, and nflows is an optional dependency.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from nflows.transforms import Transform as NflowsTransform
from nflows.transforms.base import InputOutsideDomain
from nflows.utils import torchutils
from torch import Tensor

from density.checks import check_count
from flows.transform import Transform

_lock = threading.RLock()


class FromNflows(Transform):
    """Any nflows transform of vectors as a :class:`~flows.transform.Transform`: splines come this way.

    nflows 0.14 finds a spline's bin with its last knot moved by 1e-6, which float32 rounds away from a bound of 32 on.
    An x on the bound then falls into a bin that does not exist: an index error, on a GPU one that ends the process.
    While a wrapped transform runs, nflows searches with ours, which ends at the last bin and else finds the same.

    Args:
        transform: the nflows transform.
        features: width D of its points.
        context_features: width C of its context; nflows does not say either itself.

    Raises:
        TypeError: not an nflows transform.
        ValueError: on a call, an input outside the domain of a transform that has one.

    Cost: that of the transform.

    >>> from nflows.transforms import PiecewiseRationalQuadraticCDF
    >>> spline = FromNflows(PiecewiseRationalQuadraticCDF([2], tails="linear", tail_bound=50.0), features=2)
    >>> z, log_det = spline(torch.tensor([50.0, -50.0]))
    >>> z.tolist()
    [50.0, -50.0]
    """

    features: int

    def __init__(self, transform: NflowsTransform, features: int, context_features: int = 0) -> None:
        super().__init__()
        if not isinstance(transform, NflowsTransform):
            raise TypeError(f"{type(self).__name__} takes an nflows Transform; got a {type(transform).__name__}")
        features = check_count(features, "features")
        context_features = check_count(context_features, "context_features", least=0)
        self.transform = transform
        self.features = features
        self.context_features = context_features

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._call(x, context, inverse=False)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._call(z, context, inverse=True)

    def _call(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if x.numel() == 0:  # nflows cannot reshape nothing
            return x.clone(), x.new_zeros(x.shape[:-1])
        rows = x.reshape(-1, self.features)
        contexts = context.reshape(-1, self.context_features) if context is not None and self.context_features else None
        run = self.transform.inverse if inverse else self.transform.forward
        try:
            with _bounded_search():
                y, log_det = run(rows, contexts)
        except InputOutsideDomain as error:
            raise ValueError(
                f"{type(self.transform).__name__} of nflows got a value outside its domain, from {x.min().item()} to "
                f"{x.max().item()}; rescale the data, or give its splines tails"
            ) from error
        return y.reshape(x.shape), log_det.reshape(x.shape[:-1])


class ToNflows(NflowsTransform):
    """One of our transforms as an nflows transform, for a ``CompositeTransform`` or an nflows ``Flow``.

    Args:
        transform: ours. nflows hands every part its context; one that takes none is not given it.

    Cost: that of the transform.

    >>> from flows import ActNorm
    >>> from nflows.transforms import CompositeTransform, ReversePermutation
    >>> composite = CompositeTransform([ToNflows(ActNorm(3)), ReversePermutation(3)])
    >>> composite(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()
    [[3.0, 2.0, 1.0]]
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise TypeError(f"ToNflows takes one of our Transforms; got a {type(transform).__name__}")
        self.transform = transform

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.forward(inputs, context if self.transform.context_features else None)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(inputs, context if self.transform.context_features else None)


@contextmanager
def _bounded_search() -> Iterator[None]:
    """Let nflows find bins by :func:`_bin` for a while; one thread at a time."""
    with _lock:
        original = torchutils.searchsorted
        torchutils.searchsorted = _bin
        try:
            yield
        finally:
            torchutils.searchsorted = original


def _bin(bin_locations: Tensor, inputs: Tensor, eps: float = 1e-6) -> Tensor:
    """Index of the bin that holds each input, for knots ``[..., bins + 1]``; beyond the ends the first or last bin."""
    index = torch.sum(inputs[..., None] >= bin_locations, dim=-1) - 1
    return index.clamp(0, bin_locations.shape[-1] - 2)
