"""Affine functions of one number: what they know of themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from flows.monotone.affine import ConditionalAffine
from flows.monotone.monotone import Monotone
from tests.flows.monotone.splines import draws


@pytest.mark.parametrize("bound", [None, 1.5])
def test_derivatives_of_the_inverse_are_those_of_autograd(bound: float | None, generator: Generator) -> None:
    affine = ConditionalAffine(bound)
    z, theta = draws(generator, 3, 20), draws(generator, 2, 3, 20)
    expected = Monotone.inverse_derivatives(affine, z, theta)
    torch.testing.assert_close(affine.inverse_derivatives(z, theta), expected, rtol=1e-14, atol=1e-14)


def test_derivatives_of_a_shift_whose_scale_is_none(generator: Generator) -> None:
    class Shift(Monotone):
        parameters, names = 1, "shifts"

        def forward(self, x: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + theta[0], torch.zeros_like(x)

        def inverse(self, z: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return z - theta[0], torch.zeros_like(z)

    z = draws(generator, 4)
    one, zero = torch.ones_like(z), torch.zeros_like(z)
    found = Shift().inverse_derivatives(z, z[None])
    torch.testing.assert_close(found, (one, -one[None], zero, zero[None]), rtol=0, atol=0)
