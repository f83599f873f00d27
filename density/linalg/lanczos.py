"""The largest eigenvalue of a symmetric operator outside a subspace, by products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

LOST = 1e-12  # of its length: less of a product that is left outside what was there before is rounding


def largest_outside(times: Callable[[Tensor], Tensor], axes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue of S, restricted to the complement of some axes, and its eigenvector ``[D]``.

    Lanczos' iteration with full orthogonalisation, from a random vector that is always the same (Golub & Van Loan 2013,
    section 10.3). With as many steps as the complement has dimensions it is exact up to rounding; with fewer the value
    is a lower bound, close where the eigenvalue stands out.

    Args:
        times: S v for v ``[D]``; S is symmetric.
        axes: orthonormal columns ``[D, q]``, q < D.
        steps: products at most.

    O(D(q + m)m) for m steps, and m products.

    >>> values = torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    >>> value, vector = largest_outside(lambda v: values * v, torch.eye(4, dtype=torch.float64)[:, :1], steps=3)
    >>> value.item(), vector.abs().round(decimals=6).tolist()
    (3.0, [0.0, 1.0, 0.0, 0.0])
    """
    features, inside = axes.shape
    generator = Generator().manual_seed(0)
    vector = torch.randn(features, generator=generator, dtype=axes.dtype).to(axes.device)
    basis, products = axes, []
    for _ in range(min(steps, features - inside)):
        length = vector.norm()
        for _ in range(2):
            vector = vector - basis @ (basis.mT @ vector)
        if not bool(vector.norm() > LOST * length):
            break
        vector = vector / vector.norm()
        basis = torch.cat([basis, vector.unsqueeze(1)], 1)
        vector = times(vector)
        products.append(vector)
    krylov = basis[:, inside:]
    inner = krylov.mT @ torch.stack(products, 1)
    values, vectors = torch.linalg.eigh(0.5 * (inner + inner.mT))
    return values[-1], krylov @ vectors[:, -1]
