"""Products of pairs: a quadratic form and a sum of outer products, against einsum."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from density.linalg.pairs import count_of_pairs, of_form, to_matrix, windows


@pytest.mark.parametrize("numbers", [2, 3, 4, 5, 12, 65])
def test_forms_and_sums_by_pairs(numbers: int, generator: Generator) -> None:
    z = torch.randn(numbers, 20, generator=generator, dtype=torch.float64)
    root = torch.randn(3, numbers, numbers, generator=generator, dtype=torch.float64)
    form = root + root.mT
    again = torch.cat([z, z[: numbers // 2]])
    products = (z.unsqueeze(1) * windows(again, numbers)).flatten(0, 1)
    assert products.shape == (count_of_pairs(numbers), 20)
    expected = torch.einsum("in,kij,jn->kn", z, form, z)
    torch.testing.assert_close(of_form(form, -0.5) @ products, -0.5 * expected, rtol=1e-12, atol=1e-11)
    weights = torch.rand(3, 20, generator=generator, dtype=torch.float64)
    found = to_matrix(weights @ products.mT, numbers)
    torch.testing.assert_close(found, torch.einsum("kn,in,jn->kij", weights, z, z), rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.mT)
