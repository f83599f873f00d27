"""A coupling flow in FrEIA, which has no LU layer."""

from __future__ import annotations

import math

import FrEIA.framework
import FrEIA.modules
import torch
from torch import Tensor

from benchmarks.contestants import Contestant
from benchmarks.couplings import BOUND, network, steps_of
from flows import Flow


def coupling(flow: Flow, hidden: int) -> Contestant:
    """As many couplings of the same networks as ours, with weights of their own."""
    features = flow.features
    inn = FrEIA.framework.SequenceINN(features)
    for _ in range(len(steps_of(flow))):
        inn.append(
            FrEIA.modules.AllInOneBlock,
            subnet_constructor=lambda i, o: network(i, o, hidden),
            affine_clamping=BOUND,
            permute_soft=True,
        )
    inn.to(torch.get_default_dtype())  # their rotations are float32

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = inn(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * features * math.log(2 * math.pi)

    def sample(n: int) -> Tensor:
        return inn(torch.randn(n, features, device=next(inn.parameters()).device), rev=True)[0]

    return Contestant(inn, log_prob, sample, "a fixed rotation and an activation norm instead of LU")
