"""Data of known density for `survae`: four patterns in the plane, and sets of four numbers in random order.

The patterns are those of Nielsen et al. 2020, figure 3: checkerboard and circles after Durkan et al. 2019 (NSF), eight
Gaussians after Grathwohl et al. 2019 (FFJORD), corners. Each has a sampler, its exact log-density and its entropy.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import permutations

import numpy as np
from scipy import special

from studies.data.raw import Array
from studies.data.toys import Toy, checkerboard, eight_gaussians, entropy_in_the_plane, log_blurred_ring

RADIUS, RING_STD = 2.0, 0.1
CENTRES = np.array([(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
PLACES, PLACE_STD = np.array([-2.5, -0.5, 0.5, 2.5]), 0.4


def _signs(n: int, features: int, generator: np.random.Generator) -> Array:
    return generator.choice(np.array([-1.0, 1.0]), (n, features))


def _corners(n: int, generator: np.random.Generator) -> Array:
    """In every quadrant an L whose arms, [1, 2] × [1, 4] and its mirror image, have half the mass each."""
    sizes = 1 + generator.random((n, 2)) * np.array([1.0, 3.0])
    flipped = np.where(generator.random((n, 1)) < 0.5, sizes, sizes[:, ::-1])
    return np.asarray(flipped * _signs(n, 2, generator))


def _log_corners(x: Array) -> Array:
    a, b = np.abs(x).T
    arms = sum((p >= 1) & (p <= 2) & (q >= 1) & (q <= 4) for p, q in ((a, b), (b, a)))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.asarray(arms) / 24.0))


def _circles(n: int, generator: np.random.Generator) -> Array:
    angle = 2 * np.pi * generator.random(n)
    ring = RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1) + RING_STD * generator.standard_normal((n, 2))
    return np.asarray(ring + CENTRES[generator.integers(0, 4, n)])


def _log_circles(x: Array) -> Array:
    distance = np.linalg.norm(x[:, None] - CENTRES, axis=-1)
    return np.asarray(special.logsumexp(log_blurred_ring(distance, RADIUS, RING_STD), axis=1) - math.log(4))


def _sets(n: int, generator: np.random.Generator) -> Array:
    ordered = PLACES + PLACE_STD * generator.standard_normal((n, len(PLACES)))
    return np.asarray(generator.permuted(ordered, axis=1))


def _log_sets(x: Array) -> Array:
    """The mean over all orders of the places."""
    orders = np.array(list(permutations(PLACES)))
    square = ((x[:, None] - orders) ** 2).sum(-1) / PLACE_STD**2
    normaliser = 0.5 * len(PLACES) * math.log(2 * math.pi * PLACE_STD**2)
    return np.asarray(special.logsumexp(-0.5 * square, axis=1) - math.log(len(orders)) - normaliser)


def _entropy_of_sets(n: int = 200_000) -> float:
    """By sampling, with a standard error below 1e-3: log 24, and the entropy of four normals, less what overlaps."""
    normals = 0.5 * len(PLACES) * math.log(2 * math.pi * math.e * PLACE_STD**2)
    x = PLACES + PLACE_STD * np.random.default_rng(0).standard_normal((n, len(PLACES)))
    own = -0.5 * ((x - PLACES) ** 2).sum(1) / PLACE_STD**2
    every = -0.5 * ((x[:, None] - np.array(list(permutations(PLACES)))) ** 2).sum(-1) / PLACE_STD**2
    # log p = own − log 24 + log Σ exp(every − own): the last term alone is sampled, and it is small.
    overlap = float((special.logsumexp(every, axis=1) - own).mean())
    return normals + math.log(math.factorial(len(PLACES))) - overlap


@cache
def toys() -> dict[str, Toy]:
    """All of them, by name; entropies are computed here, in seconds."""
    # Corners: a third of the mass has density 1/12, two thirds have 1/24.
    corners = math.log(12) / 3 + 2 * math.log(24) / 3
    return {
        "checkerboard": checkerboard(),
        "corners": Toy(_corners, _log_corners, corners, bounded=True),
        "eight-gaussians": eight_gaussians(),
        "circles": Toy(_circles, _log_circles, entropy_in_the_plane(_log_circles)),
        "sets": Toy(_sets, _log_sets, _entropy_of_sets()),
    }
