"""The largest eigenvalue outside a subspace, against a full decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from density.linalg.lanczos import largest_outside


@pytest.mark.parametrize("inside", [0, 1, 4, 11])
def test_it_is_that_of_the_projected_matrix(inside: int, generator: Generator) -> None:
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = root + root.mT  # with eigenvalues of either sign
    axes = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    value, vector = largest_outside(lambda v: matrix @ v, axes[:, :inside], steps=12)
    outside = axes[:, inside:]
    values, vectors = torch.linalg.eigh(outside.mT @ matrix @ outside)
    assert value.item() == pytest.approx(values[-1].item(), abs=1e-12)
    assert abs((outside @ vectors[:, -1] @ vector).item()) == pytest.approx(1, abs=1e-10)
    assert (axes[:, :inside].mT @ vector).abs().sum() < 1e-12


def test_few_steps_find_what_stands_out_and_never_too_much(generator: Generator) -> None:
    axes = torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=torch.float64)).Q
    values = torch.cat([torch.tensor([1e8, 3.0]), 1 + 0.1 * torch.rand(298, generator=generator)]).double()
    value, vector = largest_outside(lambda v: axes @ (values * (axes.mT @ v)), axes[:, :1], steps=24)
    assert 3 - 1e-6 < value.item() < 3 + 1e-6  # rounding of the axis left out: 1e8 ε
    assert abs((axes[:, 1] @ vector).item()) > 1 - 1e-6


def test_a_subspace_that_products_do_not_leave_ends_it(generator: Generator) -> None:
    value, _ = largest_outside(lambda v: 2 * v, torch.eye(5, dtype=torch.float64)[:, :2], steps=3)
    assert value.item() == pytest.approx(2)
