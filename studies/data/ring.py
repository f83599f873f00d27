r"""A ring in the plane: smooth, of known entropy, and neither a flow of a normal nor a VAE's curve exactly.

.. math:: \log r \sim N(0, s^2), \quad \alpha \sim U[0, 2\pi), \quad x = r\,(\cos\alpha, \sin\alpha), \qquad
          \log p(x) = \log N(\log r; 0, s^2) - 2 \log r - \log 2\pi

Since E log r = 0, its entropy is log 2π + ½ log(2πe s²), without an integral.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from studies.data.load import Dataset
from studies.data.raw import Array
from studies.kit.seeds import derived_seed

SPREAD = 0.25  # s
ENTROPY = math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e * SPREAD**2)  # nats


def ring_log_density(x: Array) -> Array:
    """log p(x) ``[n]`` of points ``[n, 2]``, nats. O(n).

    >>> bool(abs(ring_log_density(np.array([[1.0, 0.0]])).item() + 1.37052) < 1e-5)  # −log 2πs − ½ log 2π
    True
    """
    log_radius = np.log(np.hypot(x[:, 0], x[:, 1]))
    standardised = log_radius / SPREAD
    of_log_radius = -0.5 * standardised**2 - math.log(SPREAD) - 0.5 * math.log(2 * math.pi)
    log_density: Array = of_log_radius - 2 * log_radius - math.log(2 * math.pi)
    return log_density


def ring(train_rows: int, test_rows: int, seed: int) -> Dataset:
    """Draws from the ring, the same for every seed; the seed splits them.

    >>> ring(100, 20, seed=0).test.shape
    (20, 2)
    """
    rows = train_rows + test_rows
    draws = np.random.default_rng(derived_seed(0, "ring data"))
    radius, angle = np.exp(SPREAD * draws.standard_normal(rows)), draws.uniform(0, 2 * math.pi, rows)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    digest = hashlib.sha256(repr(x.shape).encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
    order = np.random.default_rng(derived_seed(seed, "split")).permutation(rows)
    return Dataset("ring", digest, "point", x[order[test_rows:]], x[order[:test_rows]], 0.0, "", -ENTROPY)
