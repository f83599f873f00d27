"""Densities that are right, and densities that are wrong in one known way: what a check of exactness is tried on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch import distributions as D

from bridge import FlowVAE, from_distribution, from_log_prob
from density import Density, Gaussian, StandardNormal
from flows import Flow, glow, iaf, maf, neural_spline_flow, real_nvp
from lvm import PPCA, GaussianMixture
from tests.laws.transforms import randomise

Make = Callable[[Generator], Density]


def random(make: Callable[[], Density], size: float = 0.3) -> Make:
    return lambda generator: randomise(make(), generator, size)


def torch_density(make: Callable[[], D.Distribution], features: int) -> Make:
    return lambda _: from_distribution(make(), features)


def modes(shares: tuple[float, ...], centres: tuple[float, ...], features: int, std: float = 1.0) -> D.Distribution:
    """Spherical Gaussians along the diagonal."""
    loc = torch.tensor(centres, dtype=torch.float64)[:, None].expand(-1, features)
    part = D.Independent(D.Normal(loc, torch.full_like(loc, std)), 1)
    return D.MixtureSameFamily(D.Categorical(torch.tensor(shares, dtype=torch.float64)), part)


def ring(_: Generator) -> Density:
    """A radius of N(2, 0.2²), cut at 0, and a uniform angle."""

    def log_prob(x: Tensor) -> Tensor:
        radius = x.norm(dim=-1)
        return D.Normal(2.0, 0.2).log_prob(radius) - radius.log() - math.log(2 * math.pi)

    def sample(n: int) -> Tensor:
        radius, angle = 2 + 0.2 * torch.randn(n, dtype=torch.float64), 2 * math.pi * torch.rand(n, dtype=torch.float64)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)

    return from_log_prob(log_prob, 2, sample).double()


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stretched() -> D.Distribution:
    factor = torch.tensor([[1.0, 0, 0], [0.99, 0.02, 0], [5.0, -3.0, 0.1]], dtype=torch.float64)
    return D.MultivariateNormal(vector(1, 2, 3), scale_tril=factor)


RIGHT: dict[str, Make] = {
    "standard normal": random(lambda: StandardNormal(1)),
    "Gaussian": random(lambda: Gaussian(4)),
    "Gaussian of condition 1e4": torch_density(stretched, 3),
    "PPCA": random(lambda: PPCA(5, 2)),
    "mixture": random(lambda: GaussianMixture(2, 3), 1.0),
    "far modes": torch_density(lambda: modes((0.3, 0.7), (-5, 5), 4), 4),
    "narrow and wide modes": torch_density(lambda: modes((0.2, 0.8), (0, 6), 2, 0.3), 2),
    "coupling flow": random(lambda: real_nvp(2, 2, (8,))),
    "autoregressive flow": random(lambda: maf(3, 2, (8,))),
    "inverse autoregressive flow": random(lambda: iaf(3, 2, (8,))),
    "Glow": random(lambda: glow(4, 2, (8,))),
    "spline flow": random(lambda: neural_spline_flow(2, 2, (8,))),
    "flow as a VAE": random(lambda: FlowVAE(real_nvp(2, 2, (8,)))),
    "ring": ring,
    "Gamma": torch_density(lambda: D.Gamma(vector(2, 3), vector(1, 1)), 2),
    "Exponential": torch_density(lambda: D.Exponential(vector(1, 2, 0.5)), 3),
    "Uniform": torch_density(lambda: D.Uniform(vector(0, -1), vector(1, 1)), 2),
    "Beta": torch_density(lambda: D.Beta(vector(2), vector(5)), 1),
    "LogNormal": torch_density(lambda: D.LogNormal(vector(0, 1), vector(0.5, 0.5)), 2),
    "Laplace": torch_density(lambda: D.Laplace(vector(0, 1, 2), vector(1, 2, 3)), 3),
    "Cauchy": torch_density(lambda: D.Cauchy(vector(2), vector(1)), 1),
    "Student-t": torch_density(lambda: D.StudentT(vector(3, 3, 3, 3, 3)), 5),
}


class Wrong(Density):
    """A density whose log_prob or sampler is changed."""

    def __init__(
        self,
        right: Density,
        log_prob: Callable[[Density, Tensor], Tensor] | None = None,
        sample: Callable[[Density, Tensor, Generator | None], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.right, self.features = right, right.features
        self.change_log_prob, self.change_sample = log_prob, sample

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.right.log_prob(x) if self.change_log_prob is None else self.change_log_prob(self.right, x)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        x = self.right.sample(n, generator=generator)
        return x if self.change_sample is None else self.change_sample(self.right, x, generator)


def wrong_log_prob(right: str, change: Callable[[Density, Tensor], Tensor]) -> Make:
    return lambda generator: Wrong(RIGHT[right](generator), log_prob=change)


def wrong_sample(right: str, change: Callable[[Density, Tensor, Generator | None], Tensor]) -> Make:
    return lambda generator: Wrong(RIGHT[right](generator), sample=change)


def with_log_det(factor: float) -> Callable[[Density, Tensor], Tensor]:
    def log_prob(flow: Density, x: Tensor) -> Tensor:
        assert isinstance(flow, Flow)
        z, log_det = flow.transform(x)
        return flow.base.log_prob(z) + factor * log_det

    return log_prob


def plus(constant: float) -> Callable[[Density, Tensor], Tensor]:
    return lambda right, x: right.log_prob(x) + constant


def other_weights(features: int, shares: tuple[float, ...], centres: tuple[float, ...] = (-5, 5)) -> Make:
    def make(_: Generator) -> Density:
        right = from_distribution(modes((0.3, 0.7), (-5, 5), features), features)
        other = from_distribution(modes(shares, centres, features), features)
        return Wrong(right, sample=lambda _, x, generator: other.sample(len(x), generator=generator))

    return make


def shuffled(right: Density, x: Tensor, generator: Generator | None) -> Tensor:
    """The same marginals, and no dependence."""
    columns = [x[torch.randperm(len(x), generator=generator), j] for j in range(x.shape[-1])]
    return torch.stack(columns, -1)


def of_the_base(right: Density, x: Tensor, generator: Generator | None) -> Tensor:
    assert isinstance(right, Flow)
    return right.base.sample(len(x), generator=generator)


WRONG: dict[str, Make] = {
    "a constant of 0.3, 1-D": wrong_log_prob("standard normal", plus(0.3)),
    "a constant of -0.3, mixture": wrong_log_prob("mixture", plus(-0.3)),
    "a constant of 0.3, 4-D": wrong_log_prob("far modes", plus(0.3)),
    "a constant of 0.3, flow": wrong_log_prob("autoregressive flow", plus(0.3)),
    "a constant of -0.3, edges": wrong_log_prob("Exponential", plus(-0.3)),
    "no 2 pi": wrong_log_prob("Gaussian", plus(2 * math.log(2 * math.pi))),
    "no log-det, coupling": wrong_log_prob("coupling flow", with_log_det(0)),
    "no log-det, autoregressive": wrong_log_prob("autoregressive flow", with_log_det(0)),
    "no log-det, spline": wrong_log_prob("spline flow", with_log_det(0)),
    "log-det of the other sign, coupling": wrong_log_prob("coupling flow", with_log_det(-1)),
    "log-det of the other sign, Glow": wrong_log_prob("Glow", with_log_det(-1)),
    "log-det counted twice": wrong_log_prob("inverse autoregressive flow", with_log_det(2)),
    "log p times 1.1": wrong_log_prob("PPCA", lambda right, x: 1.1 * right.log_prob(x)),
    "in bits": wrong_log_prob("Laplace", lambda right, x: right.log_prob(x) / math.log(2)),
    "of standardised data": wrong_log_prob("Gaussian", lambda right, x: right.log_prob((x - 1) / 2)),
    "other weights, 1-D": other_weights(1, (0.4, 0.6)),
    "other weights, 4-D": other_weights(4, (0.35, 0.65)),
    "a mode that is never drawn": other_weights(2, (1.0,), (5,)),
    "samples too wide": wrong_sample("PPCA", lambda _, x, __: x.mean(0) + 1.1 * (x - x.mean(0))),
    "samples shifted": wrong_sample("Gaussian", lambda _, x, __: x + 0.1),
    "samples cut": wrong_sample("standard normal", lambda _, x, __: x.clamp(-1.8, 1.8)),
    "samples without dependence": wrong_sample("Gaussian of condition 1e4", shuffled),
    "samples of the base": wrong_sample("autoregressive flow", of_the_base),
}
