"""Modes between nodes: sixty of them, ever narrower, of which none may be passed over."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from density import ConditionalGaussian, FixedScale, Kind, StandardNormal
from lvm import VAE
from lvm.evidence.quadrature import quadrature

STD = 0.02
STEP = 5e-5  # a sixth of the narrowest mode's standard deviation, where the trapezoidal rule is exact beyond rounding


class Folds(nn.Module):
    """sin(15 z²)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(15 * z.square())


def test_second_differences_that_vanish_by_chance_hide_no_mode(generator: Generator) -> None:
    encoder = ConditionalGaussian(nn.Linear(1, 2), 1, 1)
    model = VAE(StandardNormal(1), encoder, ConditionalGaussian(Folds(), 1, 1, FixedScale(STD))).double()
    x = torch.linspace(-0.3, 0.3, 41, dtype=torch.float64).unsqueeze(1)
    z = torch.arange(-6, 6, STEP, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        parts = [model.log_joint(x.unsqueeze(1), some).logsumexp(1) for some in z.split(20_000)]
    expected = torch.stack(parts).logsumexp(0) + math.log(STEP)
    claim = quadrature(model, x, generator=generator)
    assert claim.kind is Kind.EXACT
    assert claim.numerical_error is not None
    assert ((claim.value - expected).abs() <= claim.numerical_error + 1e-8).all()
