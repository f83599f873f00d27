"""The table of families of one number that the laws of densities are tried on: a new family is one new line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.special import expit, log_softmax, logit, softmax
from torch import Generator, Tensor, nn

from density import (
    Beta,
    CategoricalLevels,
    ConditionallyIndependent,
    ContinuousBernoulli,
    Density,
    DiscretisedLogistic,
    Independent,
    IndependentFamily,
    Laplace,
    LocationScaleT,
    LogitNormal,
    NegativeBinomial,
    Poisson,
    UnivariateLikelihood,
    ZeroInflated,
    mlp,
)
from tests.laws.density_case import DensityCase, grid
from tests.laws.transforms import randomise

CONTEXT = 3


@dataclass(frozen=True)
class UnitCase(DensityCase):
    """A density on the unit interval."""

    def points(self, density: Density, generator: Generator, *batch: int) -> Tensor:
        return super().points(density, generator, *batch).sigmoid()

    def masses(self, density: Density, context: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor]:
        """Nodes of the trapezoid rule in the logit, up to where 1 − x is no number any more."""
        edge = torch.full((density.features,), 36.0, dtype=torch.float64, device=generator.device)
        logits, cell = grid(-edge, edge, 2001)
        values = logits.sigmoid()
        with torch.no_grad():
            return values, (density.log_prob(values, context) + (values * (1 - values)).log().sum(-1)).exp() * cell


def learnable(family: UnivariateLikelihood, features: int = 1) -> Callable[[Generator], Density]:
    return lambda generator: randomise(Independent(features, family), generator, 0.4)


def conditional(family: UnivariateLikelihood, features: int = 1) -> Callable[[Generator], Density]:
    def make(generator: Generator) -> Density:
        network = mlp(CONTEXT, features * family.numbers, (6,), nn.Tanh)
        return randomise(ConditionallyIndependent(network, features, CONTEXT, family), generator, 0.4)

    return make


def levels(count: int, features: int) -> Tensor:
    """All vectors of that many levels."""
    return torch.cartesian_prod(*[torch.arange(count, dtype=torch.float64)] * features).reshape(-1, features)


def of_scipy(density: Density, x: Tensor, context: Tensor | None) -> float:
    """The family by its name in scipy, at parameters as the docstrings define them; means of counts start at 1."""
    assert isinstance(density, IndependentFamily)
    raw, points = density.raw_at(context).detach().cpu().numpy(), x.cpu().numpy()
    first, log = raw[0], 7 * np.tanh(raw / 7)
    match density.likelihood:
        case Laplace():
            values = stats.laplace.logpdf(points, first, 0.3 * np.exp(log[1]))
        case LocationScaleT():
            values = stats.t.logpdf(points, 1 + 9 * np.exp(log[2]), first, 0.3 * np.exp(log[1]))
        case Beta():
            values = stats.beta.logpdf(points, np.exp(log[0]), np.exp(log[1]))
        case LogitNormal():
            values = stats.norm.logpdf(logit(points), first, np.exp(log[1])) - np.log(points * (1 - points))
        case ContinuousBernoulli():
            odds = np.exp(7) * np.tanh(first / np.exp(7))
            values = odds * points - np.log(np.expm1(odds) / odds)
        case Poisson():
            values = stats.poisson.logpmf(points, np.exp(log[0]))
        case NegativeBinomial():
            mean, size = np.exp(log)
            values = stats.nbinom.logpmf(points, size, size / (size + mean))
        case ZeroInflated():
            mean, size = np.exp(log[1:])
            counted = stats.nbinom.pmf(points, size, size / (size + mean))
            values = np.log(expit(first) * (points == 0) + expit(-first) * counted)
        case CategoricalLevels():
            values = log_softmax(raw, 0)[points.astype(int), range(len(points))]
        case DiscretisedLogistic(count, mixtures):
            shares, scale = softmax(raw[:mixtures], 0), np.exp(log[2 * mixtures :])
            location = raw[mixtures : 2 * mixtures] + ((2 * np.arange(mixtures) + 1) / mixtures - 1)[:, None]
            low = np.where(points == 0, -np.inf, (2 * points - 1) / (count - 1) - 1)
            high = np.where(points == count - 1, np.inf, (2 * points + 1) / (count - 1) - 1)
            cells = stats.logistic.cdf(high, location, scale) - stats.logistic.cdf(low, location, scale)
            values = np.log((shares * cells).sum(0))
    return float(values.sum())


COUNTS = torch.arange(150, dtype=torch.float64).unsqueeze(-1)

LIKELIHOODS: dict[str, DensityCase] = {
    "DiscretisedLogistic": DensityCase(
        conditional(DiscretisedLogistic(4, 2), 2), values=levels(4, 2), oracle=of_scipy, pathwise=False
    ),
    "CategoricalLevels": DensityCase(
        learnable(CategoricalLevels(3), 2), values=levels(3, 2), oracle=of_scipy, pathwise=False
    ),
    "ContinuousBernoulli": UnitCase(conditional(ContinuousBernoulli()), oracle=of_scipy),
    "Beta": UnitCase(learnable(Beta()), oracle=of_scipy, pathwise=False),
    "LogitNormal": UnitCase(conditional(LogitNormal()), oracle=of_scipy, expected=False),
    "Laplace": DensityCase(conditional(Laplace()), oracle=of_scipy, reach=12.0),
    "LocationScaleT": DensityCase(conditional(LocationScaleT()), oracle=of_scipy, reach=60.0),
    "Poisson": DensityCase(learnable(Poisson()), values=COUNTS, countable=False, oracle=of_scipy, pathwise=False),
    "NegativeBinomial": DensityCase(
        learnable(NegativeBinomial()), values=COUNTS, countable=False, oracle=of_scipy, pathwise=False
    ),
    "ZeroInflated": DensityCase(
        conditional(ZeroInflated(NegativeBinomial())), values=COUNTS, countable=False, oracle=of_scipy, pathwise=False
    ),
}
