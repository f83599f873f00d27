"""AᵀA at little more than half the cost of a general product."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STRIPS = 4
NARROW = 256  # below it, four smaller products are no faster than one


def gram(a: Tensor) -> Tensor:
    """AᵀA ``[D, D]`` for A ``[n, D]``, exactly symmetric.

    In one thread of a CPU by numpy, which forms one half only (BLAS's syrk, which torch does not have): nD²/2
    multiplications. Elsewhere by strips of the upper half, 5/8 nD²: the threads of two libraries, each of which waits
    for work by spinning, take more from one another than is gained.

    >>> import torch
    >>> a = torch.arange(6.0).reshape(3, 2)
    >>> bool((gram(a) == a.mT @ a).all())
    True
    """
    features = a.shape[1]
    alone = a.device.type == "cpu" and torch.get_num_threads() == 1
    if alone and not (a.requires_grad and torch.is_grad_enabled()):
        rows = a.detach().numpy()
        return torch.from_numpy(np.matmul(rows.T, rows))
    if features < NARROW:
        product = a.mT @ a
        return product.triu() + product.triu(1).mT
    width = -(-features // STRIPS)
    out = a.new_empty(features, features)
    for start in range(0, features, width):
        strip = slice(start, start + width)
        upper = a[:, strip].mT @ a[:, start:]
        out[strip, start:] = upper
        out[start:, strip] = upper.mT
        corner = upper[:, : upper.shape[0]]
        out[strip, strip] = corner.triu() + corner.triu(1).mT
    return out
