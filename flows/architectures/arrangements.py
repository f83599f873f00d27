"""How the layers of a flow are arranged: which features a coupling passes, in which order an autoregression goes.

Each arrangement is a function of the width D and the number of the layer, from 0; one's own is as good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from density.families.noise import normal_noise
from flows.layers.linear_maps.lu import LULinear
from flows.transform import Transform

Masks = Callable[[int, int], Sequence[bool]]
Orders = Callable[[int, int], Sequence[int]]
Mixing = Callable[[int], Transform]


def alternating(features: int, layer: int) -> list[bool]:
    """Every other feature passes, the others in the next layer.

    >>> [alternating(3, layer) for layer in range(2)]
    [[True, False, True], [False, True, False]]
    """
    return [feature % 2 == layer % 2 for feature in range(features)]


def halves(features: int, layer: int) -> list[bool]:
    """The first half passes, the second half in the next layer.

    >>> [halves(3, layer) for layer in range(2)]
    [[True, False, False], [False, True, True]]
    """
    return [(feature < features // 2) == (layer % 2 == 0) for feature in range(features)]


def first_half(features: int, layer: int) -> list[bool]:
    """The first half passes in every layer, as where a linear layer before each mixes the features.

    >>> [first_half(3, layer) for layer in range(2)]
    [[True, False, False], [True, False, False]]
    """
    return halves(features, 0)


def random_masks(generator: Generator | None = None) -> Masks:
    """A random half of the features passes, the rest in the next layer; then another half is drawn.

    >>> masks = random_masks(torch.Generator().manual_seed(0))
    >>> [masks(4, layer) for layer in range(2)]
    [[False, True, True, False], [True, False, False, True]]
    """
    passed: set[int] = set()

    def masks(features: int, layer: int) -> list[bool]:
        nonlocal passed
        if layer % 2 == 0 or not passed:
            passed = set(_shuffled(features, generator)[: features // 2])
        return [(feature in passed) == (layer % 2 == 0) for feature in range(features)]

    return masks


def alternating_orders(features: int, layer: int) -> list[int]:
    """First to last, and last to first in the next layer.

    >>> [alternating_orders(3, layer) for layer in range(2)]
    [[0, 1, 2], [2, 1, 0]]
    """
    order = list(range(features))
    return order if layer % 2 == 0 else order[::-1]


def random_orders(generator: Generator | None = None) -> Orders:
    """A random order, and the same backwards in the next layer; then another one is drawn.

    >>> orders = random_orders(torch.Generator().manual_seed(0))
    >>> [orders(3, layer) for layer in range(2)]
    [[2, 1, 0], [0, 1, 2]]
    """
    order: list[int] = []

    def orders(features: int, layer: int) -> list[int]:
        nonlocal order
        if layer % 2 == 0 or not order:
            order = _shuffled(features, generator)
        return order if layer % 2 == 0 else order[::-1]

    return orders


def random_rotation(generator: Generator | None = None) -> Mixing:
    """LU-linear layers that start as random rotations, decomposed once.

    Kingma & Dhariwal 2018, arXiv:1807.03039, §3.2. For the channels of an image; on tables, whose columns mean
    something by themselves, :class:`~flows.LULinear` starts as the identity and fits better.

    Args:
        generator: draws the rotations; by default torch's global one.

    >>> matrix = random_rotation(torch.Generator().manual_seed(0))(3).matrix()
    >>> torch.allclose(matrix @ matrix.mT, torch.eye(3), atol=1e-6)
    True
    """
    return lambda features: LULinear.from_matrix(_rotation(features, generator))


def _shuffled(features: int, generator: Generator | None) -> list[int]:
    order: list[int] = normal_noise(features, generator=generator).argsort().tolist()
    return order


def _rotation(features: int, generator: Generator | None) -> Tensor:
    """A uniform rotation: Q of a Gaussian matrix, signs fixed by R (Mezzadri 2007, arXiv:math-ph/0609050, §5)."""
    q, r = torch.linalg.qr(normal_noise(features, features, generator=generator))
    q = q * r.diagonal().sign()
    return torch.cat([q[:, :1] * torch.linalg.det(q).sign(), q[:, 1:]], 1)
