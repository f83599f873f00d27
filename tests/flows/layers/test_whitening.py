"""Whitening: correlations against their closed form, what few points tell, and what builders make of it."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from density import Gaussian, Training
from flows import ActNorm, Chain, Whitening, real_nvp
from flows.layers.linear_maps.whitening import LEAST, correlations

D = 4


def correlated(n: int, generator: Generator, features: int = D) -> Tensor:
    """Standardised points with correlations."""
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64) @ mixing
    return (x - x.mean(0)) / x.std(0, correction=0)


@pytest.mark.parametrize("n", [15, 40, 4000])
def test_what_is_left_of_correlations_is_their_power(n: int, generator: Generator) -> None:
    """The covariance of C^{−α/2} x is C^{1−α}: by an eigendecomposition of its own, and the root by its square."""
    x = correlated(n, generator)
    layer = Whitening(D).double()
    z = layer.initialise(x)
    alpha = 1 - D * (D + 1) / 2 / n
    c = torch.as_tensor(x.T.numpy() @ x.numpy() / n)
    values, axes = torch.linalg.eigh(c)
    torch.testing.assert_close(z.T @ z / n, axes @ (values ** (1 - alpha)).diag() @ axes.T, rtol=0, atol=1e-12)
    w = layer.matrix()
    torch.testing.assert_close(w, w.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(w @ w, axes @ (values**-alpha).diag() @ axes.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.log_abs_det(), torch.linalg.slogdet(w)[1])
    assert torch.linalg.eigvalsh(w).min() > 0


def test_as_many_points_as_correlations_tell_nothing(generator: Generator) -> None:
    layer = Whitening(D).double()
    x = correlated(D * (D + 1) // 2, generator)
    assert torch.equal(layer.initialise(x), x)
    assert torch.equal(layer.matrix(), torch.eye(D, dtype=torch.float64))


def test_it_is_the_first_data_that_it_takes(generator: Generator) -> None:
    layer = Whitening(D).double()
    layer.initialise(correlated(100, generator))
    first = layer.matrix()
    layer.initialise(correlated(100, generator))
    assert torch.equal(layer.matrix(), first)


def test_order_of_the_features_does_not_matter(generator: Generator) -> None:
    x = correlated(200, generator)
    order = torch.tensor([2, 0, 3, 1])
    one, other = Whitening(D).double(), Whitening(D).double()
    torch.testing.assert_close(other.initialise(x[:, order]), one.initialise(x)[:, order], rtol=1e-10, atol=1e-10)


def test_constant_and_dependent_features_stay_finite(generator: Generator) -> None:
    x = correlated(500, generator)
    x[:, 1] = 3.0
    x[:, 3] = x[:, 2]
    norm, layer = ActNorm(D).double(), Whitening(D).double()
    z = Chain(norm, layer).initialise(x)
    assert z.isfinite().all()
    assert (z[:, 1] == 0).all()
    stretched = torch.linalg.eigvalsh(layer.matrix())
    assert stretched[-1] / stretched[0] <= LEAST**-0.5 * (1 + 1e-9)
    torch.testing.assert_close(correlations(x)[1], torch.eye(D, dtype=torch.float64)[1])


def test_a_flow_of_nearly_singular_data_starts_near_its_gaussian(generator: Generator) -> None:
    """Axes of which the shortest is a hundredth: whitened, a flow starts as the Student-t base's distance from the
    Gaussian; not whitened, far from it, and is still behind after a short fit."""
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    x = torch.randn(2000, 6, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, 6) @ rotation
    exact = Gaussian(6).double()
    exact.fit(x)
    best = exact.log_prob(x).mean()
    whitened, plain = (real_nvp(6, 2, (8,), whiten=whiten).double() for whiten in (True, False))
    whitened.initialise(x)
    assert best - 0.2 < whitened.log_prob(x).mean() < best
    plain.fit(x, Training(steps=200, progress=False), generator=generator)
    assert plain.log_prob(x).mean() < best - 0.5
