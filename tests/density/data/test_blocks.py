"""Rows in blocks: what a function says of rows, whatever the blocks, and the memory that it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Generator, Tensor

from density import DiagonalGaussian, Gaussian
from density.data import blocks
from density.data.blocks import in_blocks, rows_at_once
from flows import maf, neural_spline_flow, real_nvp
from lvm import PPCA, GaussianMixture


@pytest.mark.parametrize("rows", [1, 3, 10, 11])
@pytest.mark.parametrize(("n", "contexts"), [(10, 10), (10, 1), (1, 10), (10, None), (1, None)])
def test_a_function_of_rows_in_blocks(
    n: int, contexts: int | None, rows: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    x = torch.randn(n, 3, generator=generator)
    context = None if contexts is None else torch.randn(contexts, 2, generator=generator)
    sizes: list[int] = []

    def function(x: Tensor, context: Tensor | None) -> Tensor:
        total = x.sum(-1) if context is None else x.sum(-1) + context.prod(-1)
        sizes.append(len(total))
        return total

    whole = function(x, context)
    sizes.clear()
    assert in_blocks(function, x, context).equal(whole)
    assert max(sizes) == min(rows, len(whole))


def test_rows_are_as_many_as_a_cache_holds() -> None:
    assert rows_at_once(torch.empty(1, 16)) == 2**12
    assert rows_at_once(torch.empty(1, 2**14)) == 2**6
    assert rows_at_once(torch.empty(1, 2**21)) == 1
    assert rows_at_once(torch.empty(1, 16, device="meta")) == 2**16


@pytest.mark.parametrize(
    "model",
    [
        lambda: DiagonalGaussian(3),
        lambda: Gaussian(3),
        lambda: PPCA(3, 1),
        lambda: GaussianMixture(3, 2),
        lambda: real_nvp(3, 2, (8,)),
        lambda: maf(3, 2, (8,)),
        lambda: maf(3, 2, (8,), 2),
        lambda: neural_spline_flow(3, 2, (8,)),
    ],
)
def test_claims_do_not_depend_on_blocks(model: object, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model().double()  # type: ignore[operator]
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    context = torch.randn(200, 2, generator=generator, dtype=torch.float64) if model.context_features else None
    whole = model.log_density(x, context=context)
    assert whole.value.equal(model.log_prob(x, context).detach())  # one block
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 70)
    parts = model.log_density(x, context=context)
    # Products of blocks are rounded otherwise: 2e-16 times some hundred operations on numbers of size 10.
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=1e-12)
    assert parts.points == whole.points


def test_one_point_at_many_contexts_is_many_points(generator: Generator) -> None:
    model = maf(3, 2, (8,), 2)
    x, contexts = torch.randn(1, 3, generator=generator), torch.randn(5, 2, generator=generator)
    claim = model.log_density(x, context=contexts)
    assert claim.value.equal(model.log_prob(x, contexts).detach())
    assert (claim - model.log_density(x.expand(5, -1), context=contexts)).value.abs().max() == 0


MEASURE = """
import resource, sys, torch
from flows import neural_spline_flow
torch.set_num_threads(1)
x = torch.randn(200_000, 16)
flow = neural_spline_flow(16)
flow.log_density(x[:10_000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
flow.log_density(x)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_a_claim_about_many_rows_takes_the_memory_of_a_block() -> None:
    """Without blocks 732 MiB. The blocks' own activations are counted before; values, digest and checks are left."""
    shown = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    assert float(shown) < 50
