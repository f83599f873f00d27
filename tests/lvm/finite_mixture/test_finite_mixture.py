"""Finite mixtures of any families: against Gaussian mixtures, against EM written down, and on tables of all kinds."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

import lvm.finite_mixture.fit as fitting
from density import (
    BernoulliLikelihood,
    CategoricalLevels,
    Category,
    Checkpoint,
    CheckpointMismatch,
    Chunks,
    Columns,
    FixedScale,
    GaussianLikelihood,
    Poisson,
    Training,
    load,
    save,
)
from density.data.rows import Rows
from lvm import EM, CollapsedComponent, Diagonal, FiniteMixture, GaussianMixture, Given, Present, StochasticEM
from tests.laws.transforms import randomise

QUIET = EM(progress=False)
TABLE = Columns([GaussianLikelihood(), Category(4), BernoulliLikelihood(), GaussianLikelihood()])


def table(generator: Generator, n: int = 300) -> Tensor:
    """Two kinds of rows: numbers in two units, a category of four of which the last has no row, and a bit."""
    kind = torch.randint(2, (n, 1), generator=generator).double()
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    code = torch.randint(2, (n, 1), generator=generator) + kind
    bit = (torch.rand(n, 1, generator=generator) < 0.2 + 0.6 * kind).double()
    return torch.cat([noise[:, :1] + 3 * kind, code, bit, 1e4 + 300 * kind + 10 * noise[:, 1:]], 1)


def alike(features: int, components: int, generator: Generator) -> tuple[FiniteMixture, GaussianMixture]:
    """The same mixture of Gaussians, as one and as the other."""
    ours = FiniteMixture(features, components, GaussianLikelihood()).double()
    theirs = GaussianMixture(features, components, Diagonal()).double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        ours.prior.logits.copy_(theirs.prior.logits)
        ours.decoder.numbers.copy_(torch.cat([theirs.decoder.means, theirs.decoder.factor], -1))
    return ours, theirs


@pytest.mark.parametrize("regularisation", [EM().regularisation, 0.0, 0.1], ids=repr)
def test_of_numbers_it_is_the_diagonal_gaussian_mixture(regularisation: float, generator: Generator) -> None:
    """Values, and EM's path with its errors of rounding, with weights and without; also far from the origin."""
    ours, theirs = alike(3, 3, generator)
    x = torch.cat([torch.randn(80, 3, generator=generator), 4 + 0.1 * torch.randn(60, 3, generator=generator)]).double()
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-12, atol=1e-12)
    em = replace(QUIET, start=Present(), max_iterations=40, tolerance=0.0, regularisation=regularisation)
    weights = torch.rand(len(x), generator=generator).double()
    for moved, given in ((0.0, weights), (1e3, None)):
        for model in (ours.decoder.numbers, theirs.decoder.means):
            model.data[:, :3] += moved
        mine = ours.fit(x + moved, em=em, weights=given)
        his = theirs.fit(x + moved, em=em, weights=given)
        assert len(mine.objective) == len(his.objective) == 41
        np.testing.assert_allclose(mine.objective, his.objective, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours.log_prob(x + moved), theirs.log_prob(x + moved), rtol=1e-9, atol=1e-9)
        assert ours.parameter_count == theirs.parameter_count
        assert ours.bic(x + moved) == pytest.approx(theirs.bic(x + moved))


def test_em_of_bits_is_the_one_written_down(generator: Generator) -> None:
    x = (torch.rand(90, 5, generator=generator) < torch.rand(90, 1, generator=generator)).double()
    model = FiniteMixture(5, 3, BernoulliLikelihood()).double()
    pi, p = np.full(3, 1 / 3), model.decoder.numbers.sigmoid().detach().numpy()
    expected, rows = [], x.numpy()
    for _ in range(11):
        joint = pi * (p ** rows[:, None] * (1 - p) ** (1 - rows[:, None])).prod(-1)
        expected.append(np.log(joint.sum(1)).mean())
        r = joint / joint.sum(1, keepdims=True)
        pi, p = r.mean(0), (r.T @ rows) / r.sum(0)[:, None]
    history = model.fit(x, em=replace(QUIET, start=Present(), max_iterations=10, tolerance=0.0), smoothing=0.0)
    np.testing.assert_allclose(history.objective, expected, rtol=1e-10)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 5)
    assert abs(model.log_prob(every).exp().sum().item() - 1) < 1e-13


def test_em_climbs_to_where_the_likelihood_is_stationary(generator: Generator) -> None:
    """Of a table of all kinds, without smoothing, every M-step being a maximum."""
    x = table(generator)
    x = torch.cat([x, (x[:, 1:2] + torch.randint(2, (300, 1), generator=generator)) % 3], 1)
    number, _, bit, _ = TABLE.likelihoods
    model = FiniteMixture(5, 2, Columns([number, Category(3), bit, number, Category(3)])).double()
    history = model.fit(x, em=replace(QUIET, regularisation=0.0, tolerance=1e-13), smoothing=0.0, generator=generator)
    assert history.converged
    assert min(np.diff(history.objective)) > -1e-12
    (slope,) = torch.autograd.grad(model.log_prob(x).mean(), [model.decoder.numbers])
    assert (slope * torch.tensor([1.0, 100.0]).double().repeat(6)[: slope.shape[1]]).abs().max() < 1e-3
    assert model.log_density(x).mean == pytest.approx(history.objective[-1], rel=1e-12)


def test_rates_of_counts_are_their_means_however_large(generator: Generator) -> None:
    x = torch.poisson(torch.tensor([0.2, 3.0, 1e5]).double().expand(50, 3), generator=generator)
    model = FiniteMixture(3, 1, Poisson()).double()
    model.fit(x, em=QUIET, smoothing=0.0, generator=generator)
    torch.testing.assert_close(model.expectation(), x.mean(0))
    expected = stats.poisson.logpmf(x.numpy(), x.mean(0).numpy()).sum(1)
    torch.testing.assert_close(model.log_prob(x), torch.as_tensor(expected), rtol=1e-10, atol=1e-10)


def test_smoothing_is_rows_of_the_whole_table_beside(generator: Generator) -> None:
    """One component: the mean of the bits and of as many rows as said of the pooled mean, with one row that is half."""
    x = (torch.rand(40, 2, generator=generator) < 0.2).double()
    for smoothing in (0.0, 1.0, 7.0):
        model = FiniteMixture(2, 1, BernoulliLikelihood()).double()
        model.fit(x, em=QUIET, smoothing=smoothing, generator=generator)
        pooled = (x.sum(0) + 0.5) / 41
        expected = (x.sum(0) + smoothing * pooled) / (40 + smoothing)
        torch.testing.assert_close(model.decoder.numbers[0].sigmoid(), expected)


def test_a_row_of_weight_three_is_three_rows_and_chunks_are_the_data(generator: Generator) -> None:
    x = table(generator, 120)
    weights = torch.randint(0, 4, (120,), generator=generator).double()
    fits = []
    for data, given in (
        (x, weights),
        (x.repeat_interleave(weights.long(), 0), None),
        (Chunks([*zip(x.split(50), weights.split(50), strict=True)], weighted=True), None),
    ):
        model = FiniteMixture(4, 2, TABLE).double()
        with torch.no_grad():
            model.decoder.numbers.copy_(torch.linspace(-1, 1, 2 * 9).reshape(2, 9))
            model.decoder.numbers[:, :4] = torch.tensor([[0.0, 1e4, 1, 3], [3.0, 10300, 1, 3]])
        model.fit(data, em=replace(QUIET, start=Present(), max_iterations=5, regularisation=0.1), weights=given)
        fits.append(model.decoder.numbers.detach())
    for other in fits[1:]:
        torch.testing.assert_close(other, fits[0], rtol=1e-9, atol=1e-9)


def test_a_fit_that_is_cut_goes_on_with_the_same_bits(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = table(generator, 100)
    em = replace(QUIET, restarts=2, max_iterations=6, tolerance=0.0)

    def fit(em: EM, smoothing: float = 1.0) -> tuple[Tensor, list[float]]:
        model = FiniteMixture(4, 2, TABLE).double()
        history = model.fit(x, em=em, smoothing=smoothing, generator=Generator().manual_seed(3))
        return model.decoder.numbers.detach(), history.objective

    whole, left = fit(em), 0
    step = fitting.maximised

    def until_cut(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    kept = replace(em, checkpoint=Checkpoint(tmp_path / "fit", steps=1))
    monkeypatch.setattr(fitting, "maximised", until_cut)
    for _ in range(20):
        left = 3
        try:
            numbers, objective = fit(kept)
            break
        except KeyboardInterrupt:
            continue
    assert numbers.equal(whole[0])
    assert objective == whole[1]
    with pytest.raises(CheckpointMismatch, match=r"smoothing is 1\.0 there and 2\.0 here"):
        fit(kept, 2.0)


@pytest.mark.parametrize("name", ["logits", "numbers"])
def test_frozen_parameters_stay(name: str, generator: Generator) -> None:
    model = FiniteMixture(4, 2, TABLE).double()
    x = table(generator)
    model.fit(x, em=QUIET, generator=generator)
    frozen, free = model.prior.logits, model.decoder.numbers
    if name == "numbers":
        frozen, free = free, frozen
    with torch.no_grad():
        free.add_(0.3 * torch.randn(free.shape, generator=generator))
    frozen.requires_grad_(False)
    before = frozen.clone(), free.clone()
    model.fit(x, em=replace(QUIET, start=Present()))
    assert frozen.equal(before[0])
    assert not free.equal(before[1])
    free.requires_grad_(False)
    with pytest.raises(ValueError, match="FiniteMixture has no parameters to fit"):
        model.fit(x, em=QUIET)


def test_components_that_coincide_are_left(generator: Generator) -> None:
    x = table(generator)
    model = FiniteMixture(4, 2, TABLE).double()
    model.fit(x, em=QUIET, generator=generator)
    best = model.log_density(x).mean
    one = FiniteMixture(4, 1, TABLE).double()
    one.fit(x, em=QUIET, generator=generator)
    with torch.no_grad():
        model.prior.logits.zero_()
        model.decoder.numbers.copy_(one.decoder.numbers.expand(2, -1))
    history = model.fit(x, em=replace(QUIET, start=Present()))
    assert "after leaving 1 saddle point" in history.stopped
    assert model.log_density(x).mean == pytest.approx(best, abs=1e-4)


def test_what_two_components_share_is_theirs(generator: Generator) -> None:
    """Where a pair that coincides parts, the weight of the third stays, and so do its numbers."""
    x = table(generator)
    model = FiniteMixture(4, 3, TABLE).double()
    model.fit(x, em=replace(QUIET, max_iterations=3), generator=generator)
    problem = fitting.Problem.of(model.decoder, Rows(x, 4, ""), model.parameters_on(x.device), QUIET, 1.0, generator)
    at = problem.present
    at.numbers[2] = at.numbers[1]
    at.logits[2] = at.logits[1]
    way, *_ = problem.ways_up(at)
    assert way.numbers[0].equal(at.numbers[0])
    assert not way.numbers[1:].isclose(at.numbers[1:]).all(1).any()
    torch.testing.assert_close(way.logits.softmax(0)[0], at.logits.softmax(0)[0])


def test_nothing_climbs(generator: Generator) -> None:
    """An atom, a category without a row, bits and counts that a component never sees: rows held out are as probable."""
    train, test = table(generator, 400), table(generator, 400)
    test[0, 1] = 3.0  # no row of the training part has it
    for x in (train, test):
        x[torch.rand(len(x), generator=generator) < 0.9, 0] = 7.0
    model = FiniteMixture(4, 6, TABLE).double()
    model.fit(train, em=QUIET, generator=generator)
    inside, outside = model.log_density(train), model.log_density(test)
    assert outside.value.isfinite().all()
    assert abs(inside.mean - outside.mean) < 6 * math.hypot(inside.standard_error, outside.standard_error)
    assert model.decoder.numbers[:, 2:4].min() > -10  # σ of the atom: a share 1e-6 of the column's variance
    assert model.decoder.numbers.isfinite().all()
    constant = train.clone()
    constant[:, 3] = 2.0
    with pytest.raises(ValueError, match=r"^FiniteMixture: column 3 is constant"):
        FiniteMixture(4, 2, TABLE).fit(constant, em=QUIET)
    with pytest.raises(CollapsedComponent, match=r"^FiniteMixture: component . collapsed"):
        FiniteMixture(4, 6, TABLE).fit(train, em=replace(QUIET, regularisation=0.0), generator=generator)


def test_what_the_claim_says(generator: Generator, tmp_path: Path) -> None:
    x = table(generator).float()
    model = FiniteMixture(4, 2, TABLE)
    model.fit(x, em=QUIET, generator=generator)
    claim = model.log_density(x)
    assert "exact (sum over components), with respect to Lebesgue (columns 0, 3) × counting (columns 1-2)" in repr(
        claim
    )
    torch.testing.assert_close(model.elbo(x), model.log_prob(x), rtol=1e-4, atol=1e-4)
    assert model.predict(x).unique().tolist() == [0, 1]
    draws = model.sample(4000, generator=generator)
    model.check_support(draws)
    assert ((draws.mean(0) - model.expectation()).abs() < 5 * draws.std(0) / math.sqrt(4000)).all()
    torch.testing.assert_close(model.expectation(), x.mean(0), rtol=0.02, atol=0.02)
    save(model, tmp_path / "table.pt")
    assert load(tmp_path / "table.pt").log_prob(x).equal(model.log_prob(x))


def test_families_without_a_closed_form_are_fitted_by_gradient(generator: Generator) -> None:
    x = torch.randint(3, (200, 2), generator=generator).double()
    x[:, 1] = (x[:, 0] == 1).double()
    model = FiniteMixture(2, 2, Columns([CategoricalLevels(3), BernoulliLikelihood()]))
    model.fit(x, training=Training(steps=150, learning_rate=0.1, progress=False), generator=generator)
    assert model.log_density(x).mean > -1.2  # log 3 if the bit follows from the level; 1.7 if independent


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"em": StochasticEM()}, TypeError, r"expects lvm\.EM\(\) as em; got StochasticEM"),
        ({"em": EM(start=Given(torch.zeros(2, 4)))}, TypeError, "no means to be given"),
        ({"smoothing": -1.0}, ValueError, "smoothing to be finite and at least 0; got -1"),
    ],
)
def test_unusable_settings(settings: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        FiniteMixture(4, 2, TABLE).fit(torch.zeros(5, 4), **settings)  # type: ignore[arg-type]


def test_unusable_data(generator: Generator) -> None:
    model, x = FiniteMixture(4, 2, TABLE), table(generator, 20)
    for column, value, words in (
        (1, 4.0, "column 1: Category expects"),
        (2, 2.0, "column 2: ConditionalBernoulli"),
    ):
        with pytest.raises(ValueError, match=words):
            model.fit(x.index_fill(1, torch.tensor([column]), value), em=QUIET)
    with pytest.raises(ValueError, match="FiniteMixture of 2 components needs at least as many rows; got 1"):
        model.fit(x[:1], em=QUIET)
    with pytest.raises(ValueError, match="row 0, column 0 is nan"):
        model.fit(x * torch.nan, em=QUIET)
    with pytest.raises(TypeError, match=r"takes a Likelihood, such as BernoulliLikelihood\(\) or Columns"):
        FiniteMixture(2, 2, "bernoulli")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a σ that is a parameter by itself is not bounded; leave out scale="):
        FiniteMixture(2, 2, GaussianLikelihood(FixedScale()))
    with pytest.raises(ValueError, match="Columns has 4 likelihoods, and the table 3 columns"):
        FiniteMixture(3, 2, TABLE)
    with pytest.raises(TypeError, match=r"Columns expects a likelihood for each column, such as .* for column 1"):
        Columns([GaussianLikelihood(), Category])  # type: ignore[list-item]


@pytest.mark.parametrize("columns", [[1], [3, 2], [2, 0, 3]])
def test_a_mass_is_the_marginal_times_the_conditional(columns: list[int], generator: Generator) -> None:
    """Of a table of all kinds of columns; and the marginal is the sum over the others where they are few."""
    model, x = FiniteMixture(4, 3, TABLE).double(), table(generator, 20)
    with torch.no_grad():
        model.prior.logits.copy_(torch.randn(3, generator=generator))
        model.decoder.numbers.copy_(torch.randn(model.decoder.numbers.shape, generator=generator))
        x[:, 3] = x[:, 3] - 1e4
    others = [column for column in range(4) if column not in columns]
    for row in x:
        product = model.marginal(columns).log_prob(row[columns]) + model.conditional(columns, row[columns]).log_prob(
            row[others]
        )
        torch.testing.assert_close(product, model.log_prob(row), rtol=1e-12, atol=1e-12)
    rows = x[:1].repeat(2, 1)
    rows[:, 2] = torch.tensor([0.0, 1.0])
    total = model.log_prob(rows).logsumexp(0)
    torch.testing.assert_close(model.marginal([3, 0, 1]).log_prob(rows[0, [3, 0, 1]]), total, rtol=1e-12, atol=1e-12)


def test_columns_that_cannot_be_taken_alone_are_refused() -> None:
    with pytest.raises(TypeError, match="marginal needs families with a closed form; got CategoricalLevels in "):
        FiniteMixture(2, 2, CategoricalLevels(4)).marginal([0])
    model = FiniteMixture(3, 2, BernoulliLikelihood())
    with pytest.raises(ValueError, match="some columns and not all 3"):
        model.conditional([0, 1, 2], torch.zeros(3))
    with pytest.raises(ValueError, match="distribution over"):
        model.conditional([1], torch.full((1,), 0.5))


def test_the_history_tells_where_the_ridge_is_the_variance(generator: Generator) -> None:
    amounts = torch.randn(300, generator=generator).exp()
    amounts[:100] = 0.0
    counts, numbers = torch.poisson(amounts + 3, generator=generator), torch.randn(300, generator=generator)
    x = torch.stack([counts, numbers, amounts], 1)
    model = FiniteMixture(3, 6, Columns([Poisson(), GaussianLikelihood(), GaussianLikelihood()]))
    stopped = model.fit(x, generator=generator).stopped
    assert "regularisation is 100% of the variance of column 2 in component" in stopped
    model = FiniteMixture(2, 1, Columns([Poisson(), GaussianLikelihood()]))
    assert "regularisation" not in model.fit(x[:, :2], generator=generator).stopped


def test_a_copy_has_marginals_too(generator: Generator) -> None:
    model = randomise(FiniteMixture(2, 2, GaussianLikelihood()), generator)
    x = torch.randn(5, 1, generator=generator, dtype=torch.float64)
    assert deepcopy(model).marginal([0]).log_prob(x).equal(model.marginal([0]).log_prob(x))
