"""Networks as users write them, and all that takes one: a new network, or a new owner, is one new line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bridge import Featured, HalfNormal
from density import (
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    FixedScale,
    ImageDecoder,
    ImageEncoder,
    NetworkScale,
    ScaleModel,
    StandardNormal,
    mlp,
)
from flows import (
    ActNorm,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    LULinear,
    RationalQuadratic,
    SplineAutoregressive,
    SplineCoupling,
    Transform,
)
from tests.laws.networks import NetworkCase, OwnerCase


class ByHand(nn.Module):
    """Starts by writing into what it is given."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.last = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x.add_(0.5).mul_(2.0)
        y: Tensor = self.last(x.tanh_())
        return y


class Matrix(nn.Module):
    """A network that is written for points as rows, and for nothing else."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        n, _ = x.shape
        return torch.addmm(self.bias.expand(n, -1), x, self.weight.t())


class Pair(nn.Module):
    """Mean and log-variance, apart, as most implementations of VAEs have it; perhaps as images."""

    def __init__(self, inputs: int, outputs: int, shape: tuple[int, ...] = (-1,)) -> None:
        super().__init__()
        self.trunk, self.shape = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh()), shape
        self.mean, self.log_variance = nn.Linear(6, outputs // 2), nn.Linear(6, outputs // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.mean(h).unflatten(-1, self.shape), self.log_variance(h).unflatten(-1, self.shape)


class Named(nn.Sequential):
    """A Sequential that is somebody's own class."""


def convolutional(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 8), nn.Unflatten(-1, (2, 2, 2)), nn.ConvTranspose2d(2, 1, 2, 2), nn.Flatten(),
        nn.Linear(16, outputs),
    )  # fmt: skip


def sequence(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(-1, (1, inputs)), nn.Conv1d(1, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(2 * inputs, outputs)
    )


NETWORKS: dict[str, NetworkCase] = {
    "perceptron": NetworkCase(lambda i, o: mlp(i, o, (6,), nn.Tanh)),
    "convolutional": NetworkCase(convolutional),
    "convolutional from the first layer": NetworkCase(sequence),
    "of images": NetworkCase(
        lambda i, o: nn.Sequential(ImageEncoder((1, 1, i), 3, (2,)), ImageDecoder(3, (1, 1, o), channels=(2,)))
    ),
    "of events": NetworkCase(lambda i, o: nn.Sequential(nn.Linear(i, o), nn.Unflatten(-1, (1, o, 1)))),
    "folding": NetworkCase(lambda i, o: nn.Sequential(nn.Flatten(0, -2), nn.Linear(i, 6), nn.Tanh(), nn.Linear(6, o))),
    "BatchNorm": NetworkCase(
        lambda i, o: nn.Sequential(nn.Linear(i, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, o))
    ),
    "BatchNorm first": NetworkCase(lambda i, o: nn.Sequential(nn.BatchNorm1d(i), nn.Linear(i, o))),
    "LayerNorm and Dropout": NetworkCase(
        lambda i, o: nn.Sequential(nn.Linear(i, 6), nn.LayerNorm(6), nn.GELU(), nn.Dropout(), nn.Linear(6, o))
    ),
    "in place": NetworkCase(lambda i, o: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(i, o)), writes=True),
    "in place after views": NetworkCase(
        lambda i, o: nn.Sequential(nn.Identity(), nn.Dropout(), nn.Flatten(), nn.SiLU(inplace=True), nn.Linear(i, o)),
        writes=True,
    ),
    "in place, nested": NetworkCase(
        lambda i, o: nn.Sequential(
            nn.Sequential(nn.Identity()), nn.Sequential(nn.LeakyReLU(0.1, inplace=True), nn.Linear(i, o))
        ),
        writes=True,
    ),
    "in place later": NetworkCase(
        lambda i, o: nn.Sequential(nn.Linear(i, 6), nn.ReLU(inplace=True), nn.Linear(6, o), nn.ELU(inplace=True))
    ),
    "in place by hand": NetworkCase(ByHand, writes=True),
    "for rows alone": NetworkCase(Matrix),
    "of a class of its own": NetworkCase(
        lambda i, o: Named(nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Linear(i, o)), writes=True
    ),
    "pair": NetworkCase(Pair, pair=True),
    "pair of images": NetworkCase(lambda i, o: Pair(i, o, (1, -1, 1)), pair=True),
}

CONTEXT = 3
SPLINE = RationalQuadratic(3, 4.0)


def log_prob(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    assert isinstance(model, Density)
    return model.log_prob(x, context)


def of_bits(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    return log_prob(model, (x > 0).to(x), context)


def of_one_hot(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    return log_prob(model, (x == x.amax(-1, keepdim=True)).to(x), context)


def forward(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    assert isinstance(model, Transform)
    z, log_det = model.forward(x, context)
    return torch.cat([z, log_det.unsqueeze(-1)], -1)


def inverse(model: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    assert isinstance(model, Transform)
    return model.inverse(x, context)


def expectation(model: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    assert isinstance(model, Density)
    return (model.expectation(context),)


def draws(model: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    assert isinstance(model, Density)
    return model.sample(2, context=context), *model.sample_with_log_prob(2, context=context)


def gaussian(network: nn.Module, scale: ScaleModel | None = None) -> Density:
    return ConditionalGaussian(network, 4, CONTEXT, scale).double()


def featured(network: nn.Module) -> Density:
    torch.manual_seed(0)
    inner = Flow(ConditionalGaussian(nn.Linear(5, 4), 2, 5), LULinear(2))
    return Featured(network, inner, CONTEXT).double()


def chained(network: nn.Module) -> Density:
    torch.manual_seed(0)
    coupling = AffineCoupling([True, True, False, False], (), CONTEXT, conditioner=network)
    return Flow(StandardNormal(4), Chain(ActNorm(4), LULinear(4), coupling, LULinear(4))).double()


OWNERS: dict[str, OwnerCase] = {
    "ConditionalGaussian": OwnerCase(gaussian, 4, CONTEXT, CONTEXT, 8, log_prob, draws, pair=True),
    "ConditionalGaussian, no bound": OwnerCase(
        lambda net: gaussian(net, NetworkScale(bound=None)), 4, CONTEXT, CONTEXT, 8, log_prob, expectation, pair=True
    ),
    "ConditionalGaussian, fixed σ": OwnerCase(
        lambda net: gaussian(net, FixedScale(0.5)), 4, CONTEXT, CONTEXT, 4, log_prob, draws
    ),
    "ConditionalBernoulli": OwnerCase(
        lambda net: ConditionalBernoulli(net, 4, CONTEXT).double(), 4, CONTEXT, CONTEXT, 4, of_bits, expectation
    ),
    "ConditionalCategorical": OwnerCase(
        lambda net: ConditionalCategorical(net, 4, CONTEXT).double(), 4, CONTEXT, CONTEXT, 4, of_one_hot, expectation
    ),
    "HalfNormal": OwnerCase(
        lambda net: HalfNormal(4, CONTEXT, net).double(), 4, CONTEXT, CONTEXT, 4, log_prob, draws, positive=True
    ),
    "HalfNormal, no bound": OwnerCase(
        lambda net: HalfNormal(4, CONTEXT, net, None).double(), 4, CONTEXT, CONTEXT, 4, log_prob, expectation,
        positive=True,
    ),
    "Featured": OwnerCase(featured, 2, CONTEXT, CONTEXT, 5, log_prob, draws),
    "AffineCoupling": OwnerCase(
        lambda net: AffineCoupling([True, True, False, False], conditioner=net).double(), 4, 0, 2, 4, forward, inverse
    ),
    "AffineCoupling, stripes": OwnerCase(
        lambda net: AffineCoupling([True, False, True, False], conditioner=net).double(), 4, 0, 2, 4, forward, inverse
    ),
    "AffineCoupling, no bound": OwnerCase(
        lambda net: AffineCoupling([True, False, False, True], (), 0, None, net).double(), 4, 0, 2, 4, forward, inverse
    ),
    "AffineCoupling, context alone": OwnerCase(
        lambda net: AffineCoupling([False] * 2, (), CONTEXT, conditioner=net).double(), 2, CONTEXT, CONTEXT, 4,
        forward, inverse,
    ),
    "SplineCoupling": OwnerCase(
        lambda net: SplineCoupling([True, False, True], (), CONTEXT, SPLINE, net).double(), 3, CONTEXT, 2 + CONTEXT, 8,
        forward, inverse,
    ),
    "GaussianAutoregressive": OwnerCase(
        lambda net: GaussianAutoregressive(3, conditioner=net).double(), 3, 0, 3, 6, forward, inverse
    ),
    "SplineAutoregressive": OwnerCase(
        lambda net: SplineAutoregressive(2, (), None, CONTEXT, SPLINE, net).double(), 2, CONTEXT, 2 + CONTEXT, 16,
        forward, inverse,
    ),
    "a flow of a chain": OwnerCase(chained, 4, CONTEXT, 2 + CONTEXT, 4, log_prob, draws),
}  # fmt: skip
