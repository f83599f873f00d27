"""Permutations of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.transform import Transform


class Permutation(Transform):
    """A permutation of the features, z_i = x_{order[i]}; the log-determinant is 0.

    Args:
        order: each of 0 … D−1 once.

    Raises:
        ValueError: order is no permutation.

    Cost: O(D) per point.

    >>> import torch
    >>> Permutation([2, 0, 1])(torch.tensor([10.0, 11.0, 12.0]))[0].tolist()
    [12.0, 10.0, 11.0]
    """

    order: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        self.register_buffer("order", as_order(order, type(self).__name__).to(torch.get_default_device()))
        self.features = len(self.order)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x[..., self.order], x.new_zeros(x.shape[:-1])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z[..., self.order.argsort()], z.new_zeros(z.shape[:-1])


def as_order(order: Sequence[int] | Tensor, owner: str) -> Tensor:
    """A permutation of 0 … D−1 as an index tensor of its own, on the CPU; ValueError if it is none."""
    try:
        index = torch.as_tensor(order).clone().cpu()  # masks and degrees are worked out here
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{owner} expects an order that holds each of 0 ... D-1 once; got {order!r}") from error
    integer = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    if index.ndim != 1 or len(index) == 0 or not integer or index.sort().values.tolist() != list(range(len(index))):
        raise ValueError(f"{owner} expects an order that holds each of 0 ... D-1 once; got {index.tolist()}")
    return index.long()
