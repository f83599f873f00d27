r"""Toy densities: samplers with an exact log-density and a known entropy.

In the plane: a mixture, eight Gaussians, a checkerboard, rings, moons. In four or five dimensions: a Gaussian, a random
flow, a random model with two latents and a nonlinear decoder. (`toy`, a random PPCA in eight, is of this kind too.)
Entropies are in closed form where there is one, by quadrature in the plane, and else means over simulated points with
their standard error; all are that of one fixed distribution, whatever the seed of a study.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from studies.data.raw import Array, Raw
from studies.kit.seeds import derived_seed

LogDensity = Callable[[Array], Array]

ROWS = 10_000
ANGLES = np.pi / 8 + np.pi / 4 * np.arange(8)
MEANS = 4 / 1.414 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
BUMP_STD = 0.5 / 1.414
RADII, RING_STD = np.array([1.0, 2.0, 3.0]), 0.1
MOON_STD, MOON_NODES = 0.1, 128
LATENT_EDGE, LATENT_NODES = 6.0, 121  # of the grid over two latents: steps of 0.1, below the posterior's width


@dataclass(frozen=True)
class Toy:
    """A distribution that is known.

    Attributes:
        sample: rows ``[n, D]`` from n and a generator.
        log_density: exact log p(x) ``[n]``, nats, −∞ outside the support.
        entropy: H, nats: no model's mean −log p(x) can be below it.
        bounded: whether the support has a border where the density ends abruptly.
        entropy_error: standard error of an entropy that is a mean over simulated points; 0 where it is known.
    """

    sample: Callable[[int, np.random.Generator], Array]
    log_density: LogDensity
    entropy: float
    bounded: bool = False
    entropy_error: float = 0.0


def toy(name: str) -> Raw:
    """Ten thousand draws from a toy density, the same for every seed; the seed splits them."""
    known = TOYS[name]()
    rows = known.sample(ROWS, np.random.default_rng(derived_seed(0, "toy", name)))
    return Raw(name, "point", rows, best=-known.entropy, best_error=known.entropy_error)


@cache
def gaussian() -> Toy:
    """N(μ, Σ) in four dimensions, all of them correlated."""
    features = 4
    generator = _generator("gaussian")
    factor, mean = generator.standard_normal((features, features)), generator.standard_normal(features)
    log_det = np.linalg.slogdet(factor)[1]

    def log_density(x: Array) -> Array:
        z = np.linalg.solve(factor, (x - mean).T)
        return np.asarray(-0.5 * (z**2).sum(0) - 0.5 * features * math.log(2 * math.pi) - log_det)

    entropy = 0.5 * features * math.log(2 * math.pi * math.e) + log_det
    return Toy(lambda n, g: mean + g.standard_normal((n, features)) @ factor.T, log_density, float(entropy))


@cache
def mixture() -> Toy:
    """Five Gaussians of different weight and shape in the plane."""
    generator = _generator("mixture")
    means, factors = generator.uniform(-3, 3, (5, 2)), 0.5 * generator.standard_normal((5, 2, 2)) + 0.5 * np.eye(2)
    weights = generator.dirichlet(np.full(5, 5.0))

    def sample(n: int, g: np.random.Generator) -> Array:
        k = g.choice(5, n, p=weights)
        return np.asarray(means[k] + np.einsum("nij,nj->ni", factors[k], g.standard_normal((n, 2))))

    def log_density(x: Array) -> Array:
        z = np.linalg.solve(factors, (x[:, None] - means)[..., None])[..., 0]
        each = np.log(weights) - 0.5 * (z**2).sum(-1) - np.linalg.slogdet(factors)[1] - math.log(2 * math.pi)
        return _log_sum_exp(each)

    return Toy(sample, log_density, entropy_in_the_plane(log_density, nodes=601, edge=9.0))


@cache
def eight_gaussians() -> Toy:
    """Eight equal bumps on a circle (Grathwohl et al. 2019)."""

    def sample(n: int, generator: np.random.Generator) -> Array:
        return np.asarray(MEANS[generator.integers(0, 8, n)] + BUMP_STD * generator.standard_normal((n, 2)))

    def log_density(x: Array) -> Array:
        square = ((x[:, None] - MEANS) ** 2).sum(-1) / BUMP_STD**2
        return _log_sum_exp(-0.5 * square) - math.log(8 * 2 * math.pi * BUMP_STD**2)

    return Toy(sample, log_density, entropy_in_the_plane(log_density))


@cache
def checkerboard() -> Toy:
    """Eight squares of side 2 in [−4, 4]² (Durkan et al. 2019); its entropy is log 32."""

    def sample(n: int, generator: np.random.Generator) -> Array:
        column = generator.integers(0, 4, n)
        row = 2 * generator.integers(0, 2, n) + column % 2
        return np.asarray(2 * (np.stack([column, row], 1) + generator.random((n, 2))) - 4)

    def log_density(x: Array) -> Array:
        cell = np.floor((x + 4) / 2)
        inside = (np.abs(x) <= 4).all(1) & ((cell.sum(1) % 2) == 0)
        return np.where(inside, -math.log(32), -np.inf)

    return Toy(sample, log_density, math.log(32), bounded=True)


@cache
def rings() -> Toy:
    """Three rings about the origin, of equal mass, blurred by a normal."""

    def sample(n: int, generator: np.random.Generator) -> Array:
        angle, radius = 2 * np.pi * generator.random(n), RADII[generator.integers(0, len(RADII), n)]
        ring = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return np.asarray(ring + RING_STD * generator.standard_normal((n, 2)))

    def log_density(x: Array) -> Array:
        each = log_blurred_ring(np.linalg.norm(x, axis=1)[:, None], RADII, RING_STD)
        return _log_sum_exp(each) - math.log(len(RADII))

    return Toy(sample, log_density, entropy_in_the_plane(log_density))


@cache
def moons() -> Toy:
    """Two half circles that reach into each other, blurred by a normal; the density is an integral over the arc."""
    # Gauss-Legendre: exact to rounding once the nodes are closer than the blur is wide; here π/128 against 0.1.
    nodes, share = np.polynomial.legendre.leggauss(MOON_NODES)
    angle = np.pi / 2 * (1 + nodes)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    arcs = np.concatenate([upper, [1.0, 0.5] - upper])
    log_share = np.log(np.concatenate([share, share]) / 4)  # the weights of one arc sum to 2

    def sample(n: int, generator: np.random.Generator) -> Array:
        t, lower = np.pi * generator.random(n), generator.random(n) < 0.5
        arc = np.stack([np.cos(t), np.sin(t)], 1)
        return np.asarray(
            np.where(lower[:, None], [1.0, 0.5] - arc, arc) + MOON_STD * generator.standard_normal((n, 2))
        )

    def log_density(x: Array) -> Array:
        return _log_isotropic_mixture(x, arcs, MOON_STD, log_share)

    return Toy(sample, log_density, entropy_in_the_plane(log_density, nodes=301, edge=3.0))


@cache
def random_flow(features: int = 4, layers: int = 4, draws: int = 200_000) -> Toy:
    """Normals through random affine couplings: H = H(z) + E log|det ∂x/∂z|, the mean over simulated z."""
    generator = _generator("random flow")
    half = features // 2
    weights = [
        (generator.standard_normal((half, 16)), 0.4 * generator.standard_normal((16, 2 * half))) for _ in range(layers)
    ]

    def coupling(rows: Array, layer: int) -> tuple[Array, Array]:
        into, out = weights[layer]
        log_scale, shift = np.split(np.tanh(rows @ into) @ out, 2, axis=1)
        return np.tanh(log_scale), shift

    def forward(z: Array) -> tuple[Array, Array]:
        a, b, log_det = z[:, :half], z[:, half:], np.zeros(len(z))
        for layer in range(layers):
            log_scale, shift = coupling(a, layer)
            a, b, log_det = b * np.exp(log_scale) + shift, a, log_det + log_scale.sum(1)
        return np.concatenate([a, b], 1), log_det

    def log_density(x: Array) -> Array:
        a, b, log_det = x[:, :half], x[:, half:], np.zeros(len(x))
        for layer in reversed(range(layers)):
            log_scale, shift = coupling(b, layer)
            a, b, log_det = b, (a - shift) * np.exp(-log_scale), log_det + log_scale.sum(1)
        square = (a**2).sum(1) + (b**2).sum(1)
        return np.asarray(-0.5 * square - 0.5 * features * math.log(2 * math.pi) - log_det)

    log_det = forward(_generator("random flow, entropy").standard_normal((draws, features)))[1]
    entropy = 0.5 * features * math.log(2 * math.pi * math.e) + float(log_det.mean())
    error = float(log_det.std() / math.sqrt(draws))
    return Toy(lambda n, g: forward(g.standard_normal((n, features)))[0], log_density, entropy, entropy_error=error)


@cache
def nonlinear(features: int = 5, std: float = 0.3, draws: int = 10_000) -> Toy:
    """x = g(z) + σε with two latents and a random network g; log p(x) by quadrature, entropy over simulated x."""
    generator = _generator("nonlinear model")
    into, bias = generator.standard_normal((2, 8)), generator.standard_normal(8)
    out = 0.7 * generator.standard_normal((8, features))

    def decode(z: Array) -> Array:
        return np.asarray(np.tanh(z @ into + bias) @ out)

    axis = np.linspace(-LATENT_EDGE, LATENT_EDGE, LATENT_NODES)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_prior = -0.5 * (grid**2).sum(1) - math.log(2 * math.pi) + 2 * math.log(axis[1] - axis[0])
    centres = decode(grid)

    def sample(n: int, g: np.random.Generator) -> Array:
        return decode(g.standard_normal((n, 2))) + std * g.standard_normal((n, features))

    def log_density(x: Array) -> Array:
        return _log_isotropic_mixture(x, centres, std, log_prior)

    own = _generator("nonlinear model, entropy")
    noise = std * own.standard_normal((draws, features))
    log_p = log_density(decode(own.standard_normal((draws, 2))) + noise)
    # H(x) = H(x|z) + E[log p(x|z) − log p(x)]: only the second term is sampled.
    given = 0.5 * features * math.log(2 * math.pi * math.e * std**2)
    log_given = -0.5 * (noise**2).sum(1) / std**2 - 0.5 * features * math.log(2 * math.pi * std**2)
    information = log_given - log_p
    error = float(information.std() / math.sqrt(draws))
    return Toy(sample, log_density, given + float(information.mean()), entropy_error=error)


TOYS: dict[str, Callable[[], Toy]] = {
    "gaussian": gaussian,
    "mixture": mixture,
    "eight-gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "rings": rings,
    "moons": moons,
    "random-flow": random_flow,
    "nonlinear": nonlinear,
}


def entropy_in_the_plane(log_density: LogDensity, nodes: int = 801, edge: float = 6.0) -> float:
    """−∫ p log p by the trapezoid rule, for a density that is smooth and ends within the edge."""
    axis = np.linspace(-edge, edge, nodes)
    total = 0.0
    for row in axis:
        log_p = log_density(np.stack([np.full(nodes, row), axis], 1))
        total -= float((np.exp(log_p) * log_p).sum())
    return total * (axis[1] - axis[0]) ** 2


def log_blurred_ring(distance: Array, radius: float | Array, std: float) -> Array:
    """Of a uniform ring plus a normal: exp(−(r² + R²)/2σ²) I₀(rR/σ²)/2πσ², with the Bessel function scaled."""
    from scipy import special

    inside = np.log(special.i0e(distance * radius / std**2))
    return np.asarray(-0.5 * (distance - radius) ** 2 / std**2 + inside - math.log(2 * math.pi * std**2))


def _log_sum_exp(terms: Array) -> Array:
    """log Σ_k exp t_k ``[n]`` of terms ``[n, K]``."""
    from scipy import special

    return np.asarray(special.logsumexp(terms, axis=1))


def _log_isotropic_mixture(x: Array, centres: Array, std: float, log_weights: Array, rows: int = 200) -> Array:
    """log Σ_k w_k N(x; c_k, σ²I) ``[n]``, some rows at a time. O(n·K·D)."""
    features = x.shape[1]
    found = np.empty(len(x))
    offset = log_weights - 0.5 * (centres**2).sum(1) / std**2
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        each = part @ centres.T
        each /= std**2
        each += offset
        largest = each.max(1, keepdims=True)
        each -= largest
        total = np.log(np.exp(each, out=each).sum(1)) + largest[:, 0]
        found[start : start + rows] = total - 0.5 * (part**2).sum(1) / std**2
    return found - 0.5 * features * math.log(2 * math.pi * std**2)


def _generator(purpose: str) -> np.random.Generator:
    return np.random.default_rng(derived_seed(0, "toy", purpose))
