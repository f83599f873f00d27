"""AᵀA by BLAS's syrk and by strips."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from density.linalg.gram import gram


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("n", "features"), [(5, 1), (7, 255), (3, 256), (40, 257), (20, 402), (0, 300)])
def test_is_the_product_and_symmetric(
    n: int, features: int, threads: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    a = torch.randn(n, features, generator=generator, dtype=torch.float64)
    product = gram(a)
    # Sums of at most 40 products of order 1.
    torch.testing.assert_close(product, a.mT @ a, rtol=1e-13, atol=1e-13)
    assert torch.equal(product, product.mT)
    torch.testing.assert_close(gram(a.mT), a @ a.mT, rtol=1e-12, atol=1e-12)  # of a view
