"""Flows in nflows: couplings, splines, reflections, autoregressive layers and multi-scale flows of images."""

from __future__ import annotations

from functools import partial

import nflows.transforms
import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow as NflowsFlow
from torch import Tensor, nn

from benchmarks.contestants import Contestant
from benchmarks.couplings import BOUND, network, steps_of
from density.images.shape import ImageShape
from flows import Flow, convolutional_network


class NoContext(nn.Module):
    """A network with the signature that nflows calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.net(x)


class AffineCoupling(nflows.transforms.AffineCouplingTransform):
    """Theirs, with our scale, exp(−5 tanh(raw/5)), and our shift; of vectors and, by channels, of images."""

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = transform_params.chunk(2, 1)
        scale = torch.exp(-BOUND * torch.tanh(raw / BOUND))
        return scale, -mean * scale


def coupling(flow: Flow, hidden: int) -> Contestant:
    """Our coupling flow, with its weights."""
    features, parts = flow.features, []
    for linear, ours in steps_of(flow):
        theirs = nflows.transforms.LULinear(features)
        with torch.no_grad():
            factors = linear.factors
            theirs.lower_entries.copy_(factors[theirs.lower_indices])
            theirs.upper_entries.copy_(factors[theirs.upper_indices])
            theirs.unconstrained_upper_diag.copy_(torch.log(torch.expm1(factors.diagonal().exp() - theirs.eps)))
            theirs.bias.copy_(linear.bias)
        moved = AffineCoupling((~ours.mask).int(), lambda i, o: NoContext(network(i, o, hidden)))
        moved.transform_net.net.load_state_dict(ours.conditioner.state_dict())
        parts += [theirs, moved]
    return _contestant(parts, features)


def spline(features: int, hidden: int) -> Contestant:
    """Four steps of LU and rational-quadratic coupling, eight bins, bound 5."""
    mask, parts = torch.arange(features) >= features // 2, []
    for _ in range(4):
        parts += [
            nflows.transforms.LULinear(features),
            nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask.int(),
                lambda i, o: NoContext(network(i, o, hidden)),
                num_bins=8,
                tails="linear",
                tail_bound=BOUND,
            ),
        ]
    return _contestant(parts, features)


def reflections(features: int) -> nn.Module:
    """A QR-linear layer with as many reflections as features."""
    return nflows.transforms.QRLinear(features, features)


def autoregressive(features: int, hidden: int) -> nn.Module:
    """A masked affine layer of two hidden layers."""
    return nflows.transforms.MaskedAffineAutoregressiveTransform(
        features, hidden, num_blocks=1, use_residual_blocks=False, activation=torch.tanh
    )


def multi_scale(shape: ImageShape, levels: int, steps: int, hidden: int) -> Contestant:
    """A multi-scale Glow of as many weights as ours, which lets the other half of the channels go on."""
    module, now = nflows.transforms.MultiscaleCompositeTransform(levels), shape
    for _ in range(levels):
        inner = now.squeezed
        parts = [nflows.transforms.SqueezeTransform()]
        for _ in range(steps):
            moved = torch.arange(inner.channels) >= inner.channels // 2
            convolutions = partial(convolutional_network, hidden=(hidden, hidden), activation=nn.ReLU)
            parts += [
                nflows.transforms.ActNorm(inner.channels),
                nflows.transforms.OneByOneConvolution(inner.channels),
                AffineCoupling(moved.int(), lambda i, o, net=convolutions: NoContext(net(i, o))),
            ]
        going_on = module.add_transform(nflows.transforms.CompositeTransform(parts), tuple(inner))
        now = inner if going_on is None else ImageShape(*going_on)
    flow = NflowsFlow(module, StandardNormal([shape.features]))
    flow.log_prob(torch.randn(16, *shape))  # their activation norm starts from the first batch
    return Contestant(flow, lambda x: flow.log_prob(x.reshape(-1, *shape)), flow.sample, "other weights")


def _contestant(parts: list[nn.Module], features: int) -> Contestant:
    module = NflowsFlow(nflows.transforms.CompositeTransform(parts), StandardNormal([features]))
    return Contestant(module, module.log_prob, module.sample)
