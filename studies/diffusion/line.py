r"""Three bumps on a line: of known density, and of an entropy by quadrature.

.. math:: p(x) = \sum_k w_k N(x; m_k, s_k^2)
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from studies.data.load import Dataset
from studies.data.raw import Array
from studies.kit.seeds import derived_seed

WEIGHTS, MEANS, STDS = np.array([0.3, 0.5, 0.2]), np.array([-2.0, 0.5, 2.0]), np.array([0.3, 0.6, 0.2])
EDGE, NODES = 8.0, 16_001  # of the rule for the entropy, far beyond the bumps and two hundred nodes for the narrowest


def line_log_density(x: Array) -> Array:
    """log p(x) ``[n]`` of points ``[n, 1]``, nats. O(n).

    >>> bool(abs(np.exp(line_log_density(np.linspace(-8, 8, 2001)[:, None])).sum() * 0.008 - 1) < 1e-12)
    True
    """
    each = np.log(WEIGHTS / STDS) - 0.5 * ((x - MEANS) / STDS) ** 2 - 0.5 * math.log(2 * math.pi)
    return np.asarray(np.logaddexp.reduce(each, axis=1))


def line(train_rows: int, test_rows: int, seed: int) -> Dataset:
    """Draws from the bumps, the same for every seed; the seed splits them.

    >>> line(100, 20, seed=0).test.shape
    (20, 1)
    """
    rows = train_rows + test_rows
    draws = np.random.default_rng(derived_seed(0, "line data"))
    bump = draws.choice(len(WEIGHTS), rows, p=WEIGHTS)
    x = (MEANS[bump] + STDS[bump] * draws.standard_normal(rows))[:, None]
    digest = hashlib.sha256(repr(x.shape).encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
    order = np.random.default_rng(derived_seed(seed, "split")).permutation(rows)
    train, test = x[order[test_rows:]], x[order[:test_rows]]
    return Dataset("line", digest, "point", train, test, 0.0, "", -_entropy())


def _entropy() -> float:
    """−∫ p log p by the trapezoid rule."""
    nodes = np.linspace(-EDGE, EDGE, NODES)
    log_p = line_log_density(nodes[:, None])
    return -float((np.exp(log_p) * log_p).sum() * (nodes[1] - nodes[0]))
