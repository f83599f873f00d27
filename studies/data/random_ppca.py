"""`toy`: draws from a random PPCA model, whose entropy is in closed form."""

from __future__ import annotations

import math

import numpy as np

from studies.data.raw import Array, Raw
from studies.kit.seeds import derived_seed

FEATURES, LATENTS, NOISE, ROWS = 8, 3, 0.5, 2000


def random_ppca() -> Raw:
    """2000 draws of x = Wz + ½ε with three latents in eight dimensions; entropy ½ log det 2πe(WWᵀ + ¼I).

    >>> random_ppca().rows.shape
    (2000, 8)
    """
    axes = np.random.default_rng(derived_seed(0, "toy model")).standard_normal((FEATURES, LATENTS))
    draws = np.random.default_rng(derived_seed(0, "toy data")).standard_normal((ROWS, LATENTS + FEATURES))
    rows: Array = draws[:, :LATENTS] @ axes.T + NOISE * draws[:, LATENTS:]
    covariance = axes @ axes.T + NOISE**2 * np.eye(FEATURES)
    entropy = 0.5 * (np.linalg.slogdet(covariance)[1] + FEATURES * math.log(2 * math.pi * math.e))
    return Raw("toy", "point", rows, best=-float(entropy))
