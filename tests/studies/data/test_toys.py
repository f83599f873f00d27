"""Toy densities are what they say: normalised, the density of their samples, of the entropy that they state."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from studies.data.load import load
from studies.data.toys import TOYS, log_blurred_ring

SIGMAS = 4.5  # of a comparison of two means; the seeds are fixed


@pytest.mark.parametrize("name", TOYS)
def test_samples_have_the_density_and_the_entropy(name: str) -> None:
    toy = TOYS[name]()
    generator = np.random.default_rng(1)
    x = toy.sample(4000, generator)
    log_p = toy.log_density(x)
    assert np.isfinite(log_p).all()
    error = np.hypot(log_p.std() / np.sqrt(len(x)), toy.entropy_error)
    assert abs(-log_p.mean() - toy.entropy) < SIGMAS * error + 1e-12
    # Importance sampling from a wide t distribution: the density integrates to 1, and to the share of samples in a set.
    wide = stats.multivariate_t(x.mean(0), 2 * np.cov(x.T), df=3, seed=2)
    y = wide.rvs(20_000)
    weight = np.exp(toy.log_density(y) - wide.logpdf(y))
    for member in (lambda x: x[:, 0] < np.inf, lambda x: x[:, 0] > x[:, 1], lambda x: (x**2).sum(1) < 4):
        ours, theirs = member(x).astype(float), member(y) * weight
        error = np.hypot(ours.std() / np.sqrt(len(ours)), theirs.std() / np.sqrt(len(theirs)))
        assert abs(ours.mean() - theirs.mean()) < SIGMAS * error
    assert theirs.std() > 0


def test_a_blurred_ring_is_its_integral_over_the_angle() -> None:
    angle = np.linspace(0, 2 * np.pi, 2001)[:-1]
    ring = 1.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    for distance in (0.0, 0.7, 1.5, 2.5):
        by_sum = stats.multivariate_normal([distance, 0.0], 0.2**2).pdf(ring).mean()
        # A periodic smooth integrand: the sum is exact to rounding.
        assert np.exp(log_blurred_ring(np.array(distance), 1.5, 0.2)) == pytest.approx(by_sum, rel=1e-10)


def test_the_inverse_of_the_random_flow_undoes_it() -> None:
    """log p(x) = log N(z) − log|det ∂x/∂z| with the Jacobian by finite differences of the sampler."""
    toy = TOYS["random-flow"]()

    class Fixed(np.random.Generator):
        z: np.ndarray

        def standard_normal(self, *args: object, **kwargs: object) -> np.ndarray:  # type: ignore[override]
            return self.z

    fixed = Fixed(np.random.PCG64(0))
    z = np.random.default_rng(3).standard_normal((5, 4))
    for row in z:
        step = 1e-5
        fixed.z = np.concatenate([row[None], row + step * np.eye(4), row - step * np.eye(4)])
        x = toy.sample(9, fixed)
        jacobian = (x[1:5] - x[5:]) / (2 * step)
        expected = stats.norm.logpdf(row).sum() - np.linalg.slogdet(jacobian)[1]
        assert toy.log_density(x[:1])[0] == pytest.approx(expected, abs=1e-6)  # central differences: step² = 1e-10


def test_data_states_its_best_value_in_the_units_of_the_data() -> None:
    data = load("gaussian", seed=0)
    known = TOYS["gaussian"]()
    assert data.best == -known.entropy
    assert data.best_error == 0
    x = data.test * data.preprocessing.scale + data.preprocessing.shift  # back in the units of the toy
    in_x = known.log_density(x)
    fitted = stats.multivariate_normal(data.train.mean(0), np.cov(data.train.T)).logpdf(data.test) + data.log_scale
    # A Gaussian fitted to 8,000 rows is off by about 14 parameters / (2 · 8000) = 9e-4 nats.
    assert fitted.mean() == pytest.approx(in_x.mean(), abs=5e-3)
