"""Flows in normflows: couplings, autoregressive layers and multi-scale flows of images."""

from __future__ import annotations

import normflows
import torch
from torch import nn

from benchmarks.contestants import Contestant
from benchmarks.couplings import network, steps_of
from density.images.shape import ImageShape
from flows import Chain, Flow, ImageConditioner, OnFeatures

RAW = "log σ is raw, without bound"
Level = tuple[ImageShape, list[tuple[Chain, ImageConditioner]]]


def coupling(flow: Flow, hidden: int) -> Contestant:
    """Our coupling flow, with its weights."""
    features, parts = flow.features, []
    for linear, ours in steps_of(flow):
        lu = normflows.flows.LULinearPermute(features)
        lu.permutation._permutation = torch.arange(features)
        theirs = lu.linear
        with torch.no_grad():
            factors = linear.factors
            theirs.lower_entries.copy_(factors[theirs.lower_indices])
            theirs.upper_entries.copy_(factors[theirs.upper_indices])
            theirs.unconstrained_upper_diag.copy_(torch.log(torch.expm1(factors.diagonal().exp() - theirs.eps)))
            theirs.bias.copy_(linear.bias)
        count = len(ours.moved)
        net = network(len(ours.passed), 2 * count, hidden)
        net.load_state_dict(ours.conditioner.state_dict())
        interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
        with torch.no_grad():
            net[-1].weight.copy_(net[-1].weight[interleave].clone())
            net[-1].bias.copy_(net[-1].bias[interleave].clone())
        parts += [normflows.flows.AffineCouplingBlock(net), lu]
    # Their list runs from noise to data; within a step, noise → coupling⁻¹ → LU⁻¹ → data.
    ordered = []
    for block, lu in reversed(list(zip(parts[::2], parts[1::2], strict=True))):
        ordered += [block, lu]
    module = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features, trainable=False), ordered)
    return Contestant(module, module.log_prob, module.sample, RAW)


def autoregressive(features: int, hidden: int) -> nn.Module:
    """A masked affine layer of two hidden layers."""
    layer = normflows.flows.MaskedAffineAutoregressive(
        features, hidden, num_blocks=1, use_residual_blocks=False, activation=torch.tanh
    )
    # Theirs has no activation after the first layer; with it the network is everybody's.
    made = layer.autoregressive_net
    made.initial_layer = nn.Sequential(made.initial_layer, nn.Tanh())
    return layer


def multi_scale(flow: Flow, shape: ImageShape, hidden: int) -> Contestant:
    """Our multi-scale Glow, with its weights."""
    levels = levels_of(flow, shape)
    blocks, merges, bases = [], [], []
    for number, (inner, steps) in enumerate(levels):
        of_level = []
        for affine, conditioner in steps:
            block = normflows.flows.GlowBlock(inner.channels, hidden, scale_map="exp", init_zeros=False)
            coupling, mixing, norm = block.flows
            count = inner.channels // 2
            interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
            theirs = [layer for layer in coupling.flows[1].param_map.net if isinstance(layer, nn.Conv2d)]
            mine = [layer for layer in conditioner.network if isinstance(layer, nn.Conv2d)]
            with torch.no_grad():
                for to, of in zip(theirs, mine, strict=True):
                    rows = interleave if of is mine[-1] else slice(None)
                    to.weight.copy_(of.weight[rows])
                    to.bias.copy_(of.bias[rows])
                act, lu = affine.parts
                norm.s.copy_(act.log_scale.reshape(norm.s.shape))
                norm.t.copy_(act.shift.reshape(norm.t.shape))
                norm.data_dep_init_done.fill_(1.0)
                mixing.P.copy_(torch.eye(inner.channels)[lu.permutation])
                mixing.L.copy_(lu.factors)
                mixing.U.copy_(lu.factors)
                mixing.sign_S.copy_(lu.sign)
                mixing.log_S.copy_(lu.factors.diagonal())
            of_level.append(block)
        blocks.append([*reversed(of_level), normflows.flows.Squeeze()])
        last = number == len(levels) - 1
        leaving = inner if last else inner._replace(channels=inner.channels - inner.channels // 2)
        bases.append(normflows.distributions.DiagGaussian(tuple(leaving), trainable=False))
        if not last:
            merges.append(normflows.flows.Merge())
    module = normflows.MultiscaleFlow(bases[::-1], blocks[::-1], merges, class_cond=False)
    return Contestant(module, lambda x: module.log_prob(x.reshape(-1, *shape), None), module.sample, RAW)


def levels_of(flow: Flow, shape: ImageShape) -> list[Level]:
    """Of every level, the shape of its squeezed images, and its pairs of affine map and conditioner."""
    found, chain, inner = [], flow.transform, shape
    while True:
        inner = inner.squeezed
        parts = list(chain.parts)
        last = parts.pop() if isinstance(parts[-1], OnFeatures) else None
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        found.append((inner, [(affine.transform, coupling.conditioner) for affine, coupling in pairs]))
        if last is None:
            return found
        chain, inner = last.transform, inner._replace(channels=inner.channels // 2)
