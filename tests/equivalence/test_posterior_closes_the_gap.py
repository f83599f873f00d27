"""The log-weight is constant and log p(x) exactly when q is the posterior; otherwise KL(q‖posterior) is lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor

from density import CategoricalFamily, ConditionalGaussian, Density, GaussianFamily, NetworkScale, kl
from density.families.scale import Scale, TriangularScale
from density.linalg.cholesky import unpack_triangular
from lvm import PPCA, VAE, Diagonal, Full, GaussianMixture, Spherical, Tied
from lvm.mixture.covariance import Covariance
from tests.equivalence.examples import randomise

Record = Callable[[str, float, float], None]
STRUCTURES = [Full, Tied, Diagonal, Spherical]


def random_ppca(generator: Generator, d: int = 5, q: int = 2) -> PPCA:
    ppca = PPCA(d, q).double()
    randomise(ppca, generator, 0.7)
    return ppca


def random_mixture(generator: Generator, structure: type[Covariance], d: int = 3, k: int = 4) -> GaussianMixture:
    mixture = GaussianMixture(d, k, structure()).double()
    randomise(mixture, generator, 0.7)
    return mixture


def draw(generator: Generator, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_ppca_log_weights_are_its_log_likelihood(generator: Generator, record_measurement: Record) -> None:
    ppca = random_ppca(generator)
    x = draw(generator, 40, 5)
    weight, mean, std = (
        p.detach().numpy() for p in (ppca.decoder.weight, ppca.decoder.mean, ppca.decoder.log_std.exp())
    )
    oracle = torch.tensor(multivariate_normal(mean, weight @ weight.T + std**2 * np.eye(5)).logpdf(x.numpy()))
    log_weights = ppca.log_weights(x, 20, generator=generator).detach()
    z = ppca.encoder.sample(20, context=x, generator=generator)
    assert z.std(0).min() > 0.1  # the draws differ; their log-weights do not
    error = ((log_weights - oracle).abs() / oracle.abs().clamp_min(1)).max()
    record_measurement("7  PPCA: every log-weight = log p", float(error), 1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mixture_log_weights_are_its_log_likelihood(
    structure: type[Covariance], generator: Generator, record_measurement: Record
) -> None:
    mixture = random_mixture(generator, structure)
    x = draw(generator, 40, 3)
    terms = [
        math.log(weight) + torch.tensor(multivariate_normal(mean, covariance).logpdf(x.numpy()))
        for weight, mean, covariance in zip(
            mixture.weights.tolist(), mixture.means.detach().numpy(), dense_covariances(mixture), strict=True
        )
    ]
    oracle = torch.stack(terms).logsumexp(0)
    log_weights = mixture.log_weights(x, 50, generator=generator).detach()
    drawn = mixture.encoder.sample(50, context=x, generator=generator)
    assert (drawn.mean(0).amax(-1) < 0.99).any()  # more than one component is drawn at some points
    error = ((log_weights - oracle).abs() / oracle.abs().clamp_min(1)).max()
    record_measurement("7b mixture: every log-weight = log p", float(error), 1e-12)


def dense_covariances(mixture: GaussianMixture) -> np.ndarray:
    """``[K, D, D]`` from the structure's own shape."""
    covariances, k, d = mixture.covariances.detach(), mixture.components, mixture.features
    if isinstance(mixture.covariance, Full):  # Tied is a Full with one matrix
        return covariances.expand(k, d, d).numpy()
    return torch.diag_embed(covariances.reshape(k, -1).expand(k, d)).numpy()


class HardAssignment(CategoricalFamily):
    """All mass on the most responsible component: k-means' posterior."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.features = mixture.prior.features
        self.context_features = mixture.features

    def logits_at(self, context: Tensor | None) -> Tensor:
        soft = self.mixture.encoder.logits_at(context)
        best = torch.nn.functional.one_hot(soft.argmax(-1), self.features).to(soft.dtype)
        return best.log()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_hard_assignment_is_constant_below(
    structure: type[Covariance], generator: Generator, record_measurement: Record
) -> None:
    """A q that misses support: no spread, and yet a gap, −log of the best responsibility."""
    mixture = random_mixture(generator, structure)
    x = draw(generator, 40, 3)
    hard = VAE(mixture.prior, HardAssignment(mixture), mixture.decoder)
    log_weights = hard.log_weights(x, 20, generator=generator).detach()
    assert (log_weights - log_weights[0]).abs().max() == 0
    log_p = mixture.log_prob(x).detach()
    below = log_p - log_weights[0]
    # Where one component has all the responsibility, to rounding, nothing is lost.
    assert (below >= 0).all()
    assert below.median() > 1e-3
    expected = -mixture.encoder.logits_at(x).log_softmax(-1).amax(-1).detach()
    record_measurement("7c hard assignment: constant, below by −log r", float((below - expected).abs().max()), 1e-12)


class FullEncoder(GaussianFamily):
    """N(A x, L Lᵀ) with an arbitrary L."""

    def __init__(self, matrix: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.features, self.context_features = matrix.shape
        self.matrix = torch.nn.Parameter(matrix)
        self.factor = torch.nn.Parameter(factor)

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None
        return context @ self.matrix.mT, TriangularScale(unpack_triangular(self.factor))


def encoders(generator: Generator) -> dict[str, Density]:
    diagonal = ConditionalGaussian(torch.nn.Linear(5, 4), 2, 5, NetworkScale()).double()
    randomise(diagonal, generator, 0.2)
    return {"diagonal": diagonal, "full": FullEncoder(draw(generator, 2, 5) / 5, draw(generator, 2, 2) / 5)}


@pytest.mark.parametrize("name", ["diagonal", "full"])
def test_log_p_is_elbo_plus_divergence(name: str, generator: Generator, record_measurement: Record) -> None:
    """log p(x) = ELBO + KL(q ‖ posterior). The log-weight is quadratic in z: 3 Gauss-Hermite nodes are exact."""
    ppca = random_ppca(generator)
    q = encoders(generator)[name]
    x = draw(generator, 40, 5)
    mean, scale = q.at(x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    noise = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 1, 2))
    share = torch.tensor(np.outer(weights, weights).reshape(-1, 1) / weights.sum() ** 2)
    z = mean + scale.color(noise.expand(9, 40, 2))
    elbo = (share * (ppca.log_joint(x, z) - q.log_prob(z, x))).sum(0)
    divergence = kl(q, ppca.encoder, x)
    assert divergence is not None
    assert divergence.min() > 0.1
    log_p = ppca.log_prob(x)
    error = ((elbo + divergence - log_p).abs() / log_p.abs().clamp_min(1) / divergence.clamp_min(1)).detach().max()
    record_measurement("8  log p = ELBO + KL(q ‖ posterior)", float(error), 1e-12)

    # The shipped ELBO, closed-form KL to the prior and sampled reconstruction, agrees within its sampling error.
    vae = VAE(ppca.prior, q, ppca.decoder)
    draws = torch.stack([vae.elbo(x, generator=generator).detach() for _ in range(400)])
    z_score = (draws.mean(0) - elbo.detach()) / (draws.std(0) / 20)
    assert z_score.abs().max() < 5  # 40 points: P(some |t| > 5) ≈ 4e-5
