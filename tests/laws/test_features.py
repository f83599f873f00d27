"""Densities of independent features: what each feature adds to log p(x), and rows of which some are missing."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from density import ObservedEntries
from tests.cases.densities import ADAPTED, DENSITIES
from tests.cases.likelihoods import LIKELIHOODS
from tests.laws.densities import EXACT

CASES = DENSITIES | LIKELIHOODS | ADAPTED


@pytest.mark.parametrize("name", CASES)
def test_features_add_up(name: str, generator: Generator) -> None:
    """Shares of independent features sum to log p(x), each knows its feature alone, and those of missing ones are 0."""
    case = CASES[name]
    density = case.make(generator)
    x, context = case.points(density, generator, 2, 4), case.context(density, generator, 4)
    if not density.factorises:
        with pytest.raises(TypeError, match=rf"{type(density).__name__} does not say"):
            ObservedEntries(density)
        return
    each = density._log_prob_by_feature(x, context)
    assert each.shape == x.shape
    torch.testing.assert_close(each.sum(-1), density.log_prob(x, context), rtol=EXACT, atol=EXACT)
    others = torch.where(torch.arange(density.features, device=x.device) == 0, x, x.flip(0))
    alone = density._log_prob_by_feature(others, context)[..., 0]
    torch.testing.assert_close(alone, each[..., 0], rtol=EXACT, atol=EXACT)

    observed, missing = ObservedEntries(density), torch.zeros_like(x, dtype=torch.bool)
    missing[:, 1], missing[:, 2, 0] = True, True
    holes = torch.where(missing, torch.nan, x)
    observed.check_support(holes)
    value = observed.log_prob(holes, context)
    torch.testing.assert_close(value, each.masked_fill(missing, 0.0).sum(-1), rtol=1e-13, atol=1e-13)
    assert (value[:, 1] == 0).all()
    density.zero_grad()
    if value.requires_grad:
        value.sum().backward()
    assert not any(p.grad.isnan().any() for p in density.parameters() if p.grad is not None)
