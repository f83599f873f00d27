"""The table of densities that the laws are tried on: a new density is one new line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Generator, Tensor, nn
from torch import distributions as D

from bridge import Featured, FlowVAE, from_distribution, from_log_prob
from density import (
    Bernoulli,
    BernoulliLikelihood,
    Categorical,
    Category,
    Columns,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    FixedScale,
    Gaussian,
    GaussianLikelihood,
    GlobalScale,
    Measure,
    NetworkScale,
    ObservedEntries,
    PerFeatureScale,
    Product,
    Rescaled,
    ScaleModel,
    StandardNormal,
    StudentT,
    mlp,
)
from flows import Flow, LULinear, glow, linear_flow, maf, real_nvp
from lvm import PPCA, Diagonal, FiniteMixture, Full, GaussianMixture, LinearVAE, Spherical, Tied
from lvm.linear_gaussian import LinearGaussian, LinearGaussianPosterior
from tests.laws.density_case import DensityCase
from tests.laws.transforms import randomise

CONTEXT = 3
CODES = Columns([Category(3), BernoulliLikelihood()])


def bits(features: int) -> Tensor:
    """All 2^D vectors of bits."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * features).reshape(-1, features)


def one_hot(features: int) -> Tensor:
    return torch.eye(features, dtype=torch.float64)


def random(make: Callable[[], Density]) -> Callable[[Generator], Density]:
    """The density in float64 with every parameter moved at random."""
    return lambda generator: randomise(make(), generator, 0.4)


def conditional(scale: Callable[[], ScaleModel], features: int = 2) -> Callable[[Generator], Density]:
    def make() -> Density:
        model = scale()
        network = mlp(CONTEXT, features * model.outputs, (6,), nn.Tanh)
        return ConditionalGaussian(network, features, CONTEXT, model)

    return random(make)


class Foreign(nn.Module):
    """A module that makes one of torch's distributions of a context, or of nothing."""

    def __init__(self, features: int, context_features: int = 0, discrete: bool = False) -> None:
        super().__init__()
        self.numbers = 1 if discrete else 2
        self.net = mlp(context_features, self.numbers * features, (6,), nn.Tanh) if context_features else None
        self.free = None if context_features else nn.Parameter(torch.zeros(self.numbers * features))

    def forward(self, context: Tensor | None = None) -> D.Distribution:
        made = self.free if self.net is None else self.net(context)
        if self.numbers == 1:
            return D.Bernoulli(logits=made)
        mean, raw = made.chunk(2, -1)
        return D.Independent(D.Normal(mean, raw.exp()), 1)

    def log_prob(self, x: Tensor) -> Tensor:
        return self().log_prob(x)

    def sample(self, n: int) -> Tensor:
        return self().rsample(torch.Size([n]))


def from_methods() -> Density:
    made = Foreign(2)
    return from_log_prob(made.log_prob, 2, made.sample)


def rescaled(density: Callable[[Generator], Density]) -> Callable[[Generator], Density]:
    def make(generator: Generator) -> Density:
        model = Rescaled(density(generator)).to(device=generator.device, dtype=torch.float64)
        data = torch.randn(50, model.features, generator=generator, device=generator.device, dtype=torch.float64)
        model.standardise.match(0.3 + data * torch.arange(1, model.features + 1, device=data.device))
        return model

    return make


def _normal(mean: Tensor, covariance: Tensor, x: Tensor) -> float:
    return float(stats.multivariate_normal(mean.cpu().numpy(), covariance.cpu().numpy()).logpdf(x.cpu().numpy()))


def standard(density: Density, x: Tensor, context: Tensor | None) -> float:
    return float(stats.norm.logpdf(x.cpu().numpy()).sum())


def student(density: Density, x: Tensor, context: Tensor | None) -> float:
    assert isinstance(density, StudentT)
    return float(stats.t.logpdf(x.cpu().numpy(), np.exp(density.log_degrees.detach().cpu().numpy())).sum())


def diagonal(density: Density, x: Tensor, context: Tensor | None) -> float:
    assert isinstance(density, DiagonalGaussian)
    std = np.exp(density.log_std.detach().cpu().numpy())
    return float(stats.norm.logpdf(x.cpu().numpy(), density.mean.detach().cpu().numpy(), std).sum())


def full(density: Density, x: Tensor, context: Tensor | None) -> float:
    """L from its definition: strict lower part, and log-diagonal."""
    assert isinstance(density, Gaussian)
    factor = np.tril(density.factor.detach().cpu().numpy(), -1) + np.diag(
        np.exp(np.diag(density.factor.detach().cpu().numpy()))
    )
    return _normal(density.mean, torch.as_tensor(factor @ factor.T), x)


def given_context(density: Density, x: Tensor, context: Tensor | None) -> float:
    """Mean and σ as the docstrings define them."""
    assert isinstance(density, ConditionalGaussian)
    output = density.network(context)
    mean, raw = output[: density.features], output[density.features :]
    scale = density.scale
    if isinstance(scale, NetworkScale):
        std = torch.exp(scale.bound * torch.tanh(raw / scale.bound))
    else:
        learned = isinstance(scale, GlobalScale | PerFeatureScale)
        std = (scale.log_std.exp() if learned else scale.std) * torch.ones_like(mean)  # type: ignore[operator]
    return float(stats.norm.logpdf(x.cpu().numpy(), mean.cpu().numpy(), std.cpu().numpy()).sum())


def shifted_and_scaled(density: Density, x: Tensor, context: Tensor | None) -> float:
    """y = (x − shift) / scale is a diagonal Gaussian; so is x."""
    assert isinstance(density, Rescaled)
    inner = density.density
    assert isinstance(inner, DiagonalGaussian)
    shift, scale = density.standardise.shift, density.standardise.scale
    mean, std = shift + scale * inner.mean, scale * inner.log_std.exp()
    return _normal(mean, std.square().diag(), x)


def coins(density: Density, x: Tensor, context: Tensor | None) -> float:
    assert isinstance(density, Bernoulli | ConditionalBernoulli)
    p = 1 / (1 + np.exp(-density.logits_at(context).detach().cpu().numpy()))
    return float(stats.bernoulli.logpmf(x.cpu().numpy(), p).sum())


def die(density: Density, x: Tensor, context: Tensor | None) -> float:
    assert isinstance(density, Categorical | ConditionalCategorical)
    odds = np.exp(density.logits_at(context).detach().cpu().numpy())
    return float(stats.multinomial(1, odds / odds.sum()).logpmf(x.cpu().numpy()))


def linear_marginal(density: Density, x: Tensor, context: Tensor | None) -> float:
    assert isinstance(density, PPCA | LinearVAE)
    decoder = density.decoder
    covariance = decoder.weight @ decoder.weight.mT + (2 * decoder.log_std).exp() * torch.eye(density.features).to(x)
    return _normal(decoder.mean, covariance, x)


DENSITIES: dict[str, DensityCase] = {
    "StandardNormal, 1-D": DensityCase(lambda g: StandardNormal(1).to(g.device, torch.float64), oracle=standard),
    "StandardNormal": DensityCase(lambda g: StandardNormal(2).to(g.device, torch.float64), oracle=standard),
    "StudentT": DensityCase(random(lambda: StudentT(2, 60.0)), oracle=student),
    "DiagonalGaussian": DensityCase(random(lambda: DiagonalGaussian(2)), oracle=diagonal),
    # The strict upper triangle of the packed factor is padding: its gradient is zero, the parameter's is not.
    "Gaussian": DensityCase(random(lambda: Gaussian(2)), oracle=full),
    "ConditionalGaussian, fixed σ": DensityCase(conditional(lambda: FixedScale(0.3)), oracle=given_context),
    "ConditionalGaussian, global σ": DensityCase(conditional(GlobalScale), oracle=given_context),
    "ConditionalGaussian, σ per feature": DensityCase(conditional(lambda: PerFeatureScale(2)), oracle=given_context),
    "ConditionalGaussian, network σ": DensityCase(conditional(NetworkScale), oracle=given_context),
    "ConditionalGaussian, tight bound": DensityCase(conditional(lambda: NetworkScale(0.5), 1), oracle=given_context),
    "Rescaled": DensityCase(rescaled(random(lambda: DiagonalGaussian(2))), oracle=shifted_and_scaled),
    "Rescaled, conditional": DensityCase(rescaled(conditional(NetworkScale))),
    "Bernoulli": DensityCase(random(lambda: Bernoulli(3)), values=bits(3), oracle=coins, pathwise=False),
    "ConditionalBernoulli": DensityCase(
        random(lambda: ConditionalBernoulli(mlp(CONTEXT, 3, (6,), nn.Tanh), 3, CONTEXT)),
        values=bits(3),
        oracle=coins,
        pathwise=False,
    ),
    "Categorical": DensityCase(random(lambda: Categorical(4)), values=one_hot(4), oracle=die, pathwise=False),
    "ConditionalCategorical": DensityCase(
        random(lambda: ConditionalCategorical(mlp(CONTEXT, 4, (6,), nn.Tanh), 4, CONTEXT)),
        values=one_hot(4),
        oracle=die,
        pathwise=False,
    ),
    "Product": DensityCase(
        random(lambda: Product([ConditionalGaussian(nn.Linear(2, 2), 1, 2), StudentT(1, 60.0)], [[1], [0]]))
    ),
    "Columns, observed entries": DensityCase(
        random(lambda: ObservedEntries(CODES.conditional(nn.Linear(CONTEXT, CODES.width(2)), 2, CONTEXT))),
        values=torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0)).double(),
        pathwise=False,
    ),
    "LinearGaussian": DensityCase(random(lambda: LinearGaussian(2, CONTEXT))),
    "LinearGaussianPosterior": DensityCase(random(lambda: LinearGaussianPosterior(LinearGaussian(CONTEXT, 2)))),
    "Featured": DensityCase(
        lambda g: randomise(Featured(nn.Linear(4, CONTEXT), conditional(NetworkScale)(g), 4), g, 0.3)
    ),
    "PPCA": DensityCase(random(lambda: PPCA(2, 1)), oracle=linear_marginal),
    "LinearVAE": DensityCase(random(lambda: LinearVAE(2, 1)), oracle=linear_marginal, dead=("encoder.",)),
    "GaussianMixture, full": DensityCase(random(lambda: GaussianMixture(2, 3, Full()))),
    "GaussianMixture, tied": DensityCase(random(lambda: GaussianMixture(2, 3, Tied()))),
    "GaussianMixture, diagonal": DensityCase(random(lambda: GaussianMixture(2, 3, Diagonal()))),
    "FiniteMixture": DensityCase(random(lambda: FiniteMixture(2, 3, GaussianLikelihood()))),
    "GaussianMixture, spherical": DensityCase(random(lambda: GaussianMixture(1, 3, Spherical()))),
    "Flow, linear": DensityCase(random(lambda: linear_flow(2)), expected=False),
    "Flow, coupling": DensityCase(
        random(lambda: real_nvp(2, layers=2, hidden=(6,), base=StandardNormal)), expected=False
    ),
    "Flow, LU and coupling, conditional": DensityCase(
        random(lambda: glow(2, layers=2, hidden=(6,), context_features=CONTEXT, base=StandardNormal)),
        expected=False,
    ),
    "Flow, Student-t base": DensityCase(
        random(lambda: real_nvp(2, 2, (6,), base=lambda features: StudentT(features, 60.0))), expected=False
    ),
    "Flow, conditional base": DensityCase(
        lambda g: Flow(conditional(NetworkScale)(g), randomise(LULinear(2), g)),
        expected=False,
    ),
    "Flow, a flow on a mixture": DensityCase(random(lambda: Flow(GaussianMixture(2, 2), LULinear(2))), expected=False),
    "FlowVAE": DensityCase(random(lambda: FlowVAE(maf(2, layers=2, hidden=(6,)))), expected=False),
}

# Densities whose code is somebody else's: laws hold, but nothing says that it can be compiled, or mapped by vmap.
ADAPTED: dict[str, DensityCase] = {
    "FromDistribution": DensityCase(random(lambda: from_distribution(Foreign(2), 2))),
    "FromDistribution, conditional": DensityCase(random(lambda: from_distribution(Foreign(2, CONTEXT), 2, CONTEXT))),
    "FromDistribution, masses": DensityCase(
        random(lambda: from_distribution(Foreign(3, CONTEXT, True), 3, CONTEXT, Measure.COUNTING)),
        values=bits(3),
        countable=False,
        pathwise=False,
    ),
    "FromLogProb": DensityCase(random(from_methods), expected=False),
}
