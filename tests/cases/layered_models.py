"""The table of layered models that the laws are tried on, with log p(x) by other means: a new layer is one new line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations

import torch
from scipy import stats
from torch import Generator, Tensor, nn

from bridge.flow_vae import DeltaLink
from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain
from bridge.survae.dequantisation import UniformDequantisation, VariationalDequantisation
from bridge.survae.layered import layered
from bridge.survae.permutations import Sort, StochasticPermutation
from bridge.survae.ranges import HalfNormal, InverseSoftplus, Log, Spacings
from bridge.survae.surjections import Abs, Max, Slice
from density import (
    Bernoulli,
    ConditionalBernoulli,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    Gaussian,
    GlobalScale,
    NetworkScale,
    StandardNormal,
    mlp,
)
from flows import Chain, Flow, LULinear, Permutation, real_nvp
from lvm import LayeredModel, Link, StochasticLink
from tests.laws.bounds import BoundCase
from tests.laws.transforms import randomise


@dataclass(frozen=True)
class LayeredCase(BoundCase):
    """A prior and a link.

    Attributes:
        domain: takes normal draws to where the model has density.
        discrete: whether points are integers.
        atoms: whether features may be exactly 0.
    """

    domain: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    discrete: bool = False
    atoms: bool = False

    def points(self, model: LayeredModel, generator: Generator, *batch: int) -> Tensor:
        x = torch.randn(*batch, model.features, generator=generator, device=generator.device, dtype=torch.float64)
        return self.domain(x)


def model_of(make: Callable[[], tuple[Density, Link]], scale: float = 0.3) -> Callable[[Generator], LayeredModel]:
    return lambda generator: randomise(layered(*make()), generator, scale)


class OrderStatistics(Density):
    """The increasing order of D draws from a standard normal."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        log_p = normal_log_prob(x).sum(-1) + math.lgamma(self.features + 1)
        return log_p.masked_fill((x.diff() < 0).any(-1), -math.inf)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        noise = torch.randn(n, self.features, generator=generator, dtype=self.zero.dtype, device=self.zero.device)
        return noise.sort(-1).values


def normal_log_prob(x: Tensor) -> Tensor:
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


def links(model: LayeredModel) -> list[Link]:
    return model.link.links if isinstance(model.link, LinkChain) else [model.link]


# ---------------------------------------------------------------------------------------------------------------------
# log p(x) by other means
# ---------------------------------------------------------------------------------------------------------------------


def folded(model: LayeredModel, x: Tensor) -> Tensor:
    """Half-normals of scipy at |x|, and the signs' log-odds."""
    (link,) = links(model)
    assert isinstance(link, Abs)
    assert isinstance(model.prior, HalfNormal)
    size = x.clone()
    size[:, link.columns] = x[:, link.columns].abs()
    scale = model.prior.log_scale.detach().exp().numpy()
    total = torch.as_tensor(stats.halfnorm.logpdf(size.numpy(), scale=scale)).sum(-1)
    signs = link.signs
    if signs is None:
        return total + len(link.columns) * math.log(0.5)
    assert isinstance(signs, Bernoulli | ConditionalBernoulli)
    odds = (signs.logits_at(size) if isinstance(signs, ConditionalBernoulli) else signs.logits_at(None)).detach()
    chance = odds.sigmoid()
    return total + torch.where(x[:, link.columns] >= 0, chance, 1 - chance).log().sum(-1)


def standard_normal(model: LayeredModel, x: Tensor) -> Tensor:
    return torch.as_tensor(stats.norm.logpdf(x.numpy())).sum(-1)


def maximum(model: LayeredModel, x: Tensor) -> Tensor:
    """Point by point, feature by feature."""
    (link,) = links(model)
    assert isinstance(link, Max)
    assert isinstance(link.deficits, HalfNormal)
    assert isinstance(model.prior, DiagonalGaussian)
    values = []
    for row in x:
        total, position = 0.0, 0
        tops = torch.stack([row[g * link.size : (g + 1) * link.size].max() for g in range(link.groups)])
        scales = link.deficits.log_scale_at(tops if link.deficits.context_features else None).detach().exp()
        for g in range(link.groups):
            group = row[g * link.size : (g + 1) * link.size].tolist()
            best = max(range(link.size), key=group.__getitem__)
            total += float(link.index_logits[g].detach().softmax(-1)[best].log())
            mean, std = model.prior.mean[g].item(), math.exp(model.prior.log_std[g].item())
            total += stats.norm.logpdf(group[best], mean, std)
            for j in range(link.size):
                if j != best:
                    total += stats.halfnorm.logpdf(group[best] - group[j], scale=float(scales[position]))
                    position += 1
        values.append(total)
    return torch.tensor(values, dtype=x.dtype)


def factorised(model: LayeredModel, x: Tensor) -> Tensor:
    """A linear conditional on a Gaussian: one Gaussian, put together from its blocks."""
    (link,) = links(model)
    assert isinstance(link, Slice)
    assert isinstance(link.rest, ConditionalGaussian)
    assert isinstance(link.rest.network, nn.Linear)
    weight, bias = link.rest.network.weight.detach(), link.rest.network.bias.detach()
    assert isinstance(link.rest.scale, GlobalScale)
    variance = (2 * link.rest.scale.log_std.detach()).exp()
    assert isinstance(model.prior, Gaussian)
    mean, covariance = model.prior.mean.detach(), model.prior.covariance.detach()
    cross = weight @ covariance
    rest = cross @ weight.mT + variance * torch.eye(len(bias)).to(weight)
    joint = torch.cat([torch.cat([covariance, cross.mT], 1), torch.cat([cross, rest], 1)], 0)
    density = stats.multivariate_normal(torch.cat([mean, weight @ mean + bias]).numpy(), joint.numpy())
    order = torch.cat([link.kept, link.dropped])
    return torch.as_tensor(density.logpdf(x[:, order].numpy())).reshape(len(x))


def cells(model: LayeredModel, x: Tensor) -> Tensor:
    """Differences of Φ."""
    assert isinstance(model.prior, DiagonalGaussian)
    mean, std = model.prior.mean.detach().numpy(), model.prior.log_std.detach().exp().numpy()
    low, high = stats.norm.cdf(x.numpy(), mean, std), stats.norm.cdf(x.numpy() + 1, mean, std)
    return torch.as_tensor(high - low).log().sum(-1)


def marginal(model: LayeredModel, x: Tensor) -> Tensor:
    (link,) = links(model)
    assert isinstance(model.prior, Gaussian)
    mean, covariance = model.prior.mean.detach(), model.prior.covariance.detach()
    kept = link.features
    density = stats.multivariate_normal(mean[:kept].numpy(), covariance[:kept, :kept].numpy())
    return torch.as_tensor(density.logpdf(x.numpy()))


def symmetrised(model: LayeredModel, x: Tensor) -> Tensor:
    """The mean over all permutations."""
    assert isinstance(model.prior, Gaussian)
    density = stats.multivariate_normal(model.prior.mean.detach().numpy(), model.prior.covariance.detach().numpy())
    orders = list(permutations(range(x.shape[-1])))
    total = torch.stack([torch.as_tensor(density.logpdf(x[:, list(order)].numpy())) for order in orders])
    return total.logsumexp(0) - math.log(len(orders))


def censored(model: LayeredModel, x: Tensor) -> Tensor:
    """The tobit likelihood."""
    assert isinstance(model.prior, DiagonalGaussian)
    mean, std = model.prior.mean.detach().numpy(), model.prior.log_std.detach().exp().numpy()
    inside, below = stats.norm.logpdf(x.numpy(), mean, std), stats.norm.logcdf(0 * x.numpy(), mean, std)
    return torch.where(x > 0, torch.as_tensor(inside), torch.as_tensor(below)).sum(-1)


def linear_on_linear(model: LayeredModel, x: Tensor) -> Tensor:
    """A linear-Gaussian VAE seen through an invertible matrix."""
    delta, top = links(model)
    assert isinstance(delta, DeltaLink)
    assert isinstance(delta.transform, LULinear)
    assert isinstance(top, StochasticLink)
    assert isinstance(top.decoder, ConditionalGaussian)
    assert isinstance(top.decoder.network, nn.Linear)
    assert isinstance(top.decoder.scale, GlobalScale)
    weight, bias = top.decoder.network.weight.detach(), top.decoder.network.bias.detach()
    covariance = weight @ weight.mT + (2 * top.decoder.scale.log_std.detach()).exp() * torch.eye(len(bias)).to(weight)
    matrix = delta.transform.matrix().detach()
    assert delta.transform.bias is not None
    y = x @ matrix.mT + delta.transform.bias.detach()
    density = stats.multivariate_normal(bias.numpy(), covariance.numpy())
    return torch.as_tensor(density.logpdf(y.numpy())) + torch.linalg.slogdet(matrix).logabsdet


def folded_cells(model: LayeredModel, x: Tensor) -> Tensor:
    """Rounding of a half-normal of each sign: a cell's mass is half that of the sizes in it."""
    prior = model.prior
    assert isinstance(prior, HalfNormal)
    scale = prior.log_scale.detach().exp().numpy()
    size = torch.where(x >= 0, x, -x - 1).numpy()
    mass = stats.halfnorm.cdf(size + 1, scale=scale) - stats.halfnorm.cdf(size, scale=scale)
    return (0.5 * torch.as_tensor(mass)).log().sum(-1)


def by_autograd(model: LayeredModel, x: Tensor) -> Tensor:
    """A deterministic chain to a normal: the Jacobian of x → z, once for every fold."""
    folds = {Abs: lambda link: 2.0 ** -len(link.columns), Sort: lambda link: 1 / math.factorial(link.features)}
    total = math.log(math.prod(folds[type(link)](link) for link in links(model) if type(link) in folds))
    values = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda r: model.link.infer(r)[0][0], row)
        z = model.link.infer(row)[0][0].detach()
        base = float(model.prior.log_prob(z).detach())
        values.append(base + float(torch.linalg.slogdet(jacobian).logabsdet) + total)
    return torch.tensor(values, dtype=x.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------


def linear_gaussian(features: int, context: int, std: float = 1.0) -> ConditionalGaussian:
    return ConditionalGaussian(nn.Linear(context, features), features, context, GlobalScale(std))


def broad(features: int, context: int, std: float = 1.5) -> ConditionalGaussian:
    """Close to N(0, std²) whatever the context, so that weights have a small variance."""
    network = nn.Linear(context, 2 * features)
    with torch.no_grad():
        network.weight.mul_(0.1)
        network.bias.copy_(torch.cat([torch.zeros(features), torch.full((features,), math.log(std))]))
    return ConditionalGaussian(network, features, context, NetworkScale())


def logistic_like(features: int) -> Flow:
    """Broader than a cell's density needs: near the noise of a uniform u."""
    return Flow(broad(features, features, 1.7), LULinear(features))


def integers(x: Tensor) -> Tensor:
    return (2 * x).floor()


def rectified(x: Tensor) -> Tensor:
    """Every point has a feature at 0: without one there would be nothing to draw."""
    return torch.cat([0 * x[..., :1], x[..., 1:].clamp_min(0)], -1)


TIGHT: dict[str, LayeredCase] = {
    "abs": LayeredCase(model_of(lambda: (HalfNormal(2), Abs(2))), folded, exact=True),
    "abs, signs given z": LayeredCase(
        model_of(lambda: (HalfNormal(2), Abs(2, signs=ConditionalBernoulli(mlp(2, 2, (6,)), 2, 2)))), folded, exact=True
    ),
    "abs of one column": LayeredCase(
        model_of(lambda: (HalfNormal(2), Abs(2, [1], Bernoulli(1)))),
        folded,
        exact=True,
        domain=lambda x: torch.stack([x[..., 0].abs(), x[..., 1]], -1),
    ),
    "abs on a flow": LayeredCase(
        model_of(lambda: (real_nvp(2, 2, (6,)), LinkChain(Abs(2), DeltaLink(InverseSoftplus(), 2)))),
        by_autograd,
        exact=True,
    ),
    "sort": LayeredCase(model_of(lambda: (OrderStatistics(3), Sort(3))), standard_normal, exact=True),
    "sort on a flow": LayeredCase(
        model_of(
            lambda: (
                real_nvp(2, 2, (6,), base=StandardNormal),
                LinkChain(Sort(2), DeltaLink(Chain(Spacings(2), LULinear(2)), 2)),
            )
        ),
        by_autograd,
        exact=True,
    ),
    "max": LayeredCase(model_of(lambda: (DiagonalGaussian(1), Max(1, 2))), maximum, exact=True),
    "max of groups, given z": LayeredCase(
        model_of(lambda: (DiagonalGaussian(2), Max(2, 2, HalfNormal(2, 2)))), maximum, exact=True
    ),
    "slice": LayeredCase(
        model_of(lambda: (Gaussian(2), Slice(3, [2, 0], linear_gaussian(1, 2)))), factorised, exact=True
    ),
    "abs, sort, log": LayeredCase(
        model_of(
            lambda: (
                Gaussian(2),
                LinkChain(Abs(2), Sort(2), DeltaLink(Chain(Log(), Spacings(2), Permutation([1, 0])))),
            )
        ),
        by_autograd,
        exact=True,
    ),
}

LOOSE: dict[str, LayeredCase] = {
    "uniform dequantisation": LayeredCase(
        model_of(lambda: (DiagonalGaussian(2), UniformDequantisation(2))), cells, domain=integers, discrete=True
    ),
    "variational dequantisation": LayeredCase(
        model_of(lambda: (DiagonalGaussian(2), VariationalDequantisation(logistic_like(2))), 0.1),
        cells,
        domain=integers,
        discrete=True,
    ),
    "variational dequantisation of levels": LayeredCase(
        model_of(lambda: (DiagonalGaussian(2), VariationalDequantisation(broad(2, 2, 1.7), levels=2)), 0.1),
        cells,
        domain=lambda x: (x > 0).double(),
        discrete=True,
    ),
    "abs of rounded": LayeredCase(
        model_of(lambda: (HalfNormal(2), LinkChain(UniformDequantisation(2), Abs(2)))),
        folded_cells,
        domain=integers,
        discrete=True,
    ),
    "augmentation": LayeredCase(
        model_of(lambda: (Gaussian(3), Augmentation(2, broad(1, 2))), 0.2), marginal, gradient_free=()
    ),
    "augmentation, unconditional": LayeredCase(
        model_of(lambda: (Gaussian(3), Augmentation(1, DiagonalGaussian(2))), 0.1), marginal
    ),
    "stochastic permutation": LayeredCase(model_of(lambda: (Gaussian(3), StochasticPermutation(3))), symmetrised),
    "ReLU": LayeredCase(model_of(lambda: (DiagonalGaussian(2), ReLU(2)), 0.2), censored, domain=rectified, atoms=True),
    "ReLU, given x": LayeredCase(
        model_of(lambda: (DiagonalGaussian(2), ReLU(2, HalfNormal(2, 2))), 0.2), censored, domain=rectified, atoms=True
    ),
    "VAE on a flow": LayeredCase(
        model_of(
            lambda: (
                StandardNormal(2),
                LinkChain(DeltaLink(LULinear(3)), StochasticLink(broad(2, 3), linear_gaussian(3, 2))),
            ),
            0.1,
        ),
        linear_on_linear,
    ),
}
