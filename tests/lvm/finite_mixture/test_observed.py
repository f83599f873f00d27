"""Finite mixtures of rows with missing entries: against marginals, sums over what is missing, and EM of one number."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from density import BernoulliLikelihood, CategoricalLevels, Category, Columns, GaussianLikelihood, Poisson
from lvm import EM, Diagonal, FiniteMixture, GaussianMixture, Present
from tests.lvm.missing.incomplete import awkward, holes

QUIET = EM(progress=False)
TABLE = Columns([Category(3), GaussianLikelihood(), BernoulliLikelihood(), Poisson(), GaussianLikelihood()])


def mixture(generator: Generator) -> tuple[FiniteMixture, Tensor]:
    model = FiniteMixture(5, 3, TABLE).double()
    with torch.no_grad():
        model.prior.logits.copy_(torch.randn(3, generator=generator))
        model.decoder.numbers.copy_(torch.randn(model.decoder.numbers.shape, generator=generator))
    return model, model.sample(200, generator=generator)


def test_every_pattern_is_the_marginal(generator: Generator) -> None:
    model, x = mixture(generator)
    some = awkward(x, generator)[:10]
    value = model.observed.log_prob(some)
    torch.testing.assert_close(model.observed.log_prob(x), model.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.observed.posterior(x), model.posterior(x), rtol=1e-12, atol=1e-12)
    for row, own in zip(some, value, strict=True):
        columns = (~row.isnan()).nonzero().flatten().tolist()
        expected = model.marginal(columns).log_prob(row[columns]) if columns else torch.zeros(())
        torch.testing.assert_close(own.detach(), expected.detach().to(own), rtol=1e-12, atol=1e-12)
    value.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    claim = model.observed.log_density(some)
    assert (claim.kind.value, claim.measure) == ("exact", model.measure)
    with pytest.raises(ValueError, match="codes of categories"):
        model.observed.log_density(torch.where(torch.arange(5) == 0, 7.0, some))


def test_imputation_is_bayes_rule(generator: Generator) -> None:
    """Mean and variance of the missing entries of a row by the sum over all values of codes, bits and counts."""
    model, x = mixture(generator)
    row = x[:1].clone()
    row[0, [0, 2, 3]] = torch.nan
    every = row.repeat(3 * 2 * 60, 1)
    every[:, [0, 2, 3]] = torch.tensor(list(product(range(3), range(2), range(60)))).double()
    share = model.log_prob(every).softmax(0).unsqueeze(-1).detach()
    mean = (share * every).sum(0)
    variance = (share * (every - mean).square()).sum(0)
    found = model.observed.impute(row)
    torch.testing.assert_close(found.mean[0].detach(), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance[0].detach(), variance, rtol=1e-8, atol=1e-9)
    drawn = model.observed.draw(row, 4000, generator=generator)[:, 0]
    assert drawn[:, [1, 4]].equal(row[:, [1, 4]].expand(4000, -1))
    assert ((drawn.mean(0) - mean).abs() <= 5 * (variance / 4000).sqrt() + 1e-12).all()


def test_em_climbs_and_ends_where_the_gaussian_mixture_does(generator: Generator) -> None:
    """Its M-step needs no completion of what is missing, as the other's does; where they rest is the same."""
    kind = torch.randint(2, (150, 1), generator=generator)
    x = holes(torch.randn(150, 3, generator=generator).double() + 5 * kind, 0.3, generator)
    weights = torch.rand(150, generator=generator).double()
    ours, theirs = FiniteMixture(3, 2, GaussianLikelihood()).double(), GaussianMixture(3, 2, Diagonal()).double()
    with torch.no_grad():
        theirs.decoder.means.copy_(torch.tensor([[0.0], [4.0]]).expand(2, 3))
        ours.decoder.numbers.copy_(torch.cat([theirs.decoder.means, theirs.decoder.factor], -1))
    em = replace(QUIET, start=Present(), tolerance=1e-13, max_iterations=300, regularisation=0.0)
    first = ours.observed.fit(x, em, smoothing=0.0, weights=weights)
    second = theirs.observed.fit(x, em, weights=weights)
    steps = torch.tensor(first.objective).diff()
    assert (steps > -1e-12).all()
    assert first.objective[-1] == pytest.approx(second.objective[-1], abs=1e-9)
    torch.testing.assert_close(ours.decoder.numbers[:, :3], theirs.decoder.means, rtol=1e-4, atol=1e-4)


def test_of_complete_rows_it_is_the_fit(generator: Generator) -> None:
    model, x = mixture(generator)
    em = replace(QUIET, max_iterations=8, start=Present())
    histories = []
    for view in (False, True):
        own = FiniteMixture(5, 3, TABLE).double()
        own.load_state_dict(model.state_dict())
        histories.append((own.observed.fit if view else own.fit)(x, em).objective)
    torch.testing.assert_close(torch.tensor(histories[1]), torch.tensor(histories[0]), rtol=1e-11, atol=1e-11)


def test_one_m_step_written_down(generator: Generator) -> None:
    """From given parameters: shares of codes and bits, and moments of numbers, over the rows that have them."""
    model, x = mixture(generator)
    some = awkward(x, generator)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    there = ~some.isnan().all(-1)
    r = model.observed.posterior(some).detach() * there.unsqueeze(-1)
    em = replace(QUIET, max_iterations=1, tolerance=0.0, start=Present(), regularisation=0.0)
    model.observed.fit(some, em, smoothing=0.0)
    after = model.state_dict()
    assert not after["decoder.numbers"].equal(before["decoder.numbers"])
    torch.testing.assert_close(model.weights.detach(), r.sum(0) / r.sum(), rtol=1e-10, atol=1e-12)
    for column in range(5):
        own = ~some[:, column].isnan()
        share = r[own] / r[own].sum(0)
        mean = share.mT @ some[own, column]
        torch.testing.assert_close(
            model.decoder._expectation(model.prior.enumerate())[:, column].detach(), mean, rtol=1e-9, atol=1e-9
        )


def test_misuse(generator: Generator) -> None:
    model, x = mixture(generator)
    with pytest.raises(ValueError, match="column 2 has no entry in any row"):
        model.observed.fit(torch.where(torch.arange(5) == 2, torch.nan, x), QUIET)
    with pytest.raises(ValueError, match=r"model\.observed\.fit"):
        model.fit(holes(x, 0.2, generator), QUIET)
    with pytest.raises(TypeError, match="needs families whose maximum has a closed form; got CategoricalLevels"):
        FiniteMixture(2, 2, CategoricalLevels(3)).observed.fit(x[:, :2], QUIET)
    with pytest.raises(TypeError, match=r"FiniteMixture\.observed\.fit expects lvm\.EM\(\) as em"):
        model.observed.fit(x, None)  # type: ignore[arg-type]
