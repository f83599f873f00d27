"""The importance-weighted bound and the gap: formulas, errors, blocks of memory, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import density.data.blocks
import density.importance.weights
from density import Bound, ExactModel, Gaussian, History, Kind, LogDensity, Measure, StandardNormal
from flows import linear_flow
from lvm import VAE, LinearVAE
from lvm.evidence import gap, importance
from tests.laws.transforms import randomise

POINTS, DRAWS = 7, 60


class Table(Bound):
    """Log-weights from a table ``[draws, points]``, read on from draw to draw; x ``[n, 1]`` numbers the points."""

    features = 1
    measure = Measure.COUNTING

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.read = [0] * table.shape[1]
        self.sizes: list[int] = []

    @property
    def x(self) -> Tensor:
        return torch.arange(self.table.shape[1], dtype=torch.float64).unsqueeze(1)

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        assert not torch.is_grad_enabled()
        points = x[:, 0].long()
        start = self.read[int(points[0])]
        for point in points.tolist():
            assert self.read[point] == start
            self.read[point] += draws
        self.sizes.append(draws * len(points))
        return self.table[start : start + draws, points]

    def fit(self, x: Tensor) -> History:
        raise NotImplementedError

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        raise NotImplementedError

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        return importance(self, x, draws=draws)


class ExactTable(Table, ExactModel):
    """The same, of a model that knows log p(x)."""

    method = "by decree"

    def __init__(self, table: Tensor, log_p: Tensor) -> None:
        super().__init__(table)
        self.log_p = log_p

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        return LogDensity(self.log_p, Kind.EXACT, self.method, measure=self.measure)

    def sample(self, n: int, *, context: object = None, generator: Generator | None = None) -> Tensor:
        raise NotImplementedError

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def table(generator: Generator) -> Tensor:
    """Levels from −1500 to 900: exponentials of some of these are 0 or infinite in float64."""
    level = torch.linspace(-1500, 900, POINTS, dtype=torch.float64)
    return level + torch.randn(DRAWS, POINTS, generator=generator, dtype=torch.float64)


BLOCKS = [(2**16, 2**22), (20, 2**22), (7, 2**22), (3, 2**22), (1, 1), (2**16, DRAWS * 3), (5, DRAWS * 2)]


@pytest.fixture(params=BLOCKS, ids=lambda b: f"rows {b[0]}, scalars {b[1]}")
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of every shape: points split, draws split, both, one by one."""
    rows, scalars = request.param
    monkeypatch.setattr(density.data.blocks, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(density.importance.weights, "SCALARS_AT_ONCE", scalars)
    return int(rows)


def test_importance_is_log_mean_exp_whatever_the_blocks(table: Tensor, rows_at_once: int) -> None:
    model = Table(table)
    claim = importance(model, model.x, draws=DRAWS)
    assert model.read == [DRAWS] * POINTS
    assert max(model.sizes) <= max(rows_at_once, 1)
    level = table.numpy().max(0)
    w = np.exp(table.numpy() - level)
    np.testing.assert_allclose(claim.value, level + np.log(w.mean(0)), rtol=1e-14)
    normalised = w / w.sum(0)
    assert claim.monte_carlo_error is not None
    # √((Σ w̃² − 1/K) K/(K−1)) is sd(w) / (mean(w) √K), the variance unbiased.
    np.testing.assert_allclose(claim.monte_carlo_error, w.std(0, ddof=1) / w.mean(0) / math.sqrt(DRAWS), rtol=1e-10)
    assert claim.weights is not None
    np.testing.assert_allclose(claim.weights.effective_sample_size, 1 / (normalised**2).sum(0), rtol=1e-12)
    np.testing.assert_allclose(claim.weights.bias, -0.5 * claim.monte_carlo_error**2, rtol=1e-12)
    assert claim.weights.dominance is not None
    np.testing.assert_allclose(claim.weights.dominance, normalised.max(0) - 1 / DRAWS, rtol=1e-10)
    assert claim.kind is Kind.LOWER
    assert claim.measure is Measure.COUNTING
    assert claim.method == f"importance-weighted bound, {DRAWS} draws"
    assert claim.value.dtype == torch.float64


def test_gap_is_log_mean_exp_minus_mean_whatever_the_blocks(table: Tensor, rows_at_once: int) -> None:
    model = Table(table)
    report = gap(model, model.x, draws=DRAWS)
    log_w = table.numpy()
    level = log_w.max(0)
    w = np.exp(log_w - level)
    log_p = level + np.log(w.mean(0))
    np.testing.assert_allclose(report.log_density.value, log_p, rtol=1e-13)
    np.testing.assert_allclose(report.elbo.value, log_w.mean(0), rtol=1e-13)
    # rtol leaves the digits that a level of 1500 costs differences of size 1.
    np.testing.assert_allclose(report.difference.value, log_p - log_w.mean(0), rtol=1e-10)
    assert report.elbo.monte_carlo_error is not None
    np.testing.assert_allclose(report.elbo.monte_carlo_error, log_w.std(0, ddof=1) / math.sqrt(DRAWS), rtol=1e-10)
    assert report.difference.monte_carlo_error is not None
    influence = w / w.mean(0) - log_w
    np.testing.assert_allclose(
        report.difference.monte_carlo_error, influence.std(0, ddof=1) / math.sqrt(DRAWS), rtol=1e-9
    )
    assert report.log_density.kind is report.elbo.kind is report.difference.kind is Kind.LOWER
    assert report.log_density.measure is report.elbo.measure is Measure.COUNTING
    same = importance(Table(table), model.x, draws=DRAWS)
    torch.testing.assert_close(report.log_density.value, same.value, rtol=1e-14, atol=0)
    assert same.monte_carlo_error is not None
    assert report.log_density.monte_carlo_error is not None
    torch.testing.assert_close(report.log_density.monte_carlo_error, same.monte_carlo_error, rtol=1e-14, atol=0)
    assert report.log_density.weights is not None
    assert same.weights is not None
    assert report.log_density.weights.reliable.equal(same.weights.reliable)


def test_gap_below_an_exact_value(table: Tensor, rows_at_once: int) -> None:
    log_p = table.mean(0) + torch.linspace(0.5, 2, POINTS)
    model = ExactTable(table, log_p)
    report = gap(model, model.x, draws=DRAWS)
    np.testing.assert_allclose(report.difference.value, (log_p - table.mean(0)).numpy(), rtol=1e-10)
    assert report.difference.monte_carlo_error is not None
    expected = table.std(0) / math.sqrt(DRAWS)
    torch.testing.assert_close(report.difference.monte_carlo_error, expected, rtol=1e-10, atol=0)
    assert report.log_density.value is log_p
    assert report.difference.kind is Kind.EXACT
    assert report.log_density.method == "by decree"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_log_weight_is_located(value: float, table: Tensor, rows_at_once: int) -> None:
    table[41, 3] = value
    for use in (importance, gap):
        model = Table(table)
        with pytest.raises(
            ValueError, match=rf"the log-weight of point 3, draw 41 is {value} \(1 of \d+ in its block\)"
        ):
            use(model, model.x, draws=DRAWS)  # type: ignore[operator]


def test_a_weight_of_zero_is_a_weight(table: Tensor) -> None:
    table[:30, 3] = -math.inf
    claim = importance(Table(table), Table(table).x, draws=DRAWS)
    expected = table[30:, 3].logsumexp(0) - math.log(DRAWS)
    assert claim.value[3].item() == pytest.approx(expected.item(), rel=1e-14)
    assert claim.weights is not None
    assert claim.weights.effective_sample_size[3] <= 30


def test_weights_that_all_vanish_have_no_error_and_no_size(table: Tensor) -> None:
    table[:, 3] = -math.inf
    claim = importance(Table(table), Table(table).x, draws=DRAWS)
    assert claim.value[3] == -math.inf
    assert claim.weights is not None
    assert claim.weights.effective_sample_size[3] == 0
    assert not claim.weights.reliable[3]
    assert claim.monte_carlo_error is not None
    assert claim.monte_carlo_error.isnan().tolist() == [i == 3 for i in range(POINTS)]
    assert claim.value[:3].isfinite().all()


def test_one_draw_has_no_error(table: Tensor) -> None:
    claim = importance(Table(table), Table(table).x, draws=1)
    assert claim.value.equal(table[0])
    assert claim.monte_carlo_error is not None
    assert claim.monte_carlo_error.isnan().all()
    with pytest.raises(ValueError, match="gap needs at least 2 draws"):
        gap(Table(table), Table(table).x, draws=1)


def test_equal_weights_have_no_spread() -> None:
    table = torch.full((DRAWS, POINTS), -700.0, dtype=torch.float64)
    claim = importance(Table(table), Table(table).x, draws=DRAWS)
    assert claim.monte_carlo_error is not None
    assert claim.monte_carlo_error.max() < 1e-7  # √ε
    assert claim.weights is not None
    torch.testing.assert_close(
        claim.weights.effective_sample_size, torch.full_like(claim.value, DRAWS), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(claim.value, table[0], rtol=1e-14, atol=0)


@pytest.mark.parametrize("model", [linear_flow(3), Gaussian(3), StandardNormal(3), nn.Linear(3, 3), None])
def test_gap_needs_log_weights(model: Bound) -> None:
    with pytest.raises(TypeError, match=r"gap needs a model with log-weights; \w+ has none. A flow has them as"):
        gap(model, torch.zeros(2, 3))


# -------------------------------------------------------------------------------------------------------------------
# Errors against repetition, on a model whose log p(x) and ELBO are known in closed form
# -------------------------------------------------------------------------------------------------------------------

REPEATS = 600


@pytest.fixture
def linear(generator: Generator) -> LinearVAE:
    """A linear VAE near its best encoder, so that weights have a small variance."""
    model = randomise(LinearVAE(4, 2), generator, 0.4)
    model.set_optimal_encoder()
    with torch.no_grad():
        model.encoder.log_std.add_(0.2)
        model.encoder.bias.add_(0.1)
    return model


def unknowing(model: LinearVAE) -> VAE:
    """The same densities, without the knowledge of log p(x)."""
    return VAE(model.prior, model.encoder, model.decoder)


def standardised(deviation: Tensor) -> tuple[float, float]:
    return deviation.mean().item() * math.sqrt(len(deviation)), deviation.std().item()


@pytest.mark.parametrize("draws", [50, 500])
def test_the_stated_error_of_importance_is_right(draws: int, linear: LinearVAE, generator: Generator) -> None:
    """Rows are drawn independently: one point repeated gives as many estimates. Their z-scores are N(0, 1)."""
    x = torch.randn(1, 4, generator=generator, dtype=torch.float64).expand(REPEATS, 4)
    claim = importance(linear, x, draws=draws, generator=generator)
    assert claim.monte_carlo_error is not None
    assert claim.weights is not None
    z = (claim.value - claim.weights.bias - linear.log_prob(x).detach()) / claim.monte_carlo_error
    shift, spread = standardised(z)
    # With 50 draws the error itself is uncertain and correlated with the value: the mean may be off by 0.15.
    assert abs(shift) < 4 + (0.15 * math.sqrt(REPEATS) if draws < 100 else 0)
    assert spread == pytest.approx(1, abs=0.2)


def test_the_bound_is_below_in_expectation_and_rises_with_the_draws(linear: LinearVAE, generator: Generator) -> None:
    x = torch.randn(1, 4, generator=generator, dtype=torch.float64).expand(REPEATS, 4)
    log_p = linear.log_prob(x[0]).item()
    means = []
    for draws in (1, 4, 16, 64):
        value = importance(linear, x, draws=draws, generator=generator).value
        assert value.mean() < log_p + 4 * value.std() / math.sqrt(REPEATS)
        means.append(value.mean().item())
    assert means == sorted(means)
    assert means[0] < log_p - 0.03


@pytest.mark.parametrize("exact", [True, False])
def test_the_stated_error_of_the_gap_is_right(exact: bool, linear: LinearVAE, generator: Generator) -> None:
    x = torch.randn(1, 4, generator=generator, dtype=torch.float64).expand(REPEATS, 4)
    report = gap(linear if exact else unknowing(linear), x, draws=400, generator=generator)
    truth = (linear.log_prob(x) - linear.elbo_closed_form(x)).detach()
    assert truth[0] > 0.03
    error = report.difference.monte_carlo_error
    assert error is not None
    bias = 0.0 if exact else -0.5 * report.log_density.monte_carlo_error.square()  # type: ignore[union-attr]
    shift, spread = standardised((report.difference.value - bias - truth) / error)
    assert abs(shift) < 4
    assert spread == pytest.approx(1, abs=0.15)
    assert report.difference.kind is (Kind.EXACT if exact else Kind.LOWER)
    assert report.elbo.monte_carlo_error is not None
    shift, spread = standardised(
        (report.elbo.value - linear.elbo_closed_form(x).detach()) / report.elbo.monte_carlo_error
    )
    assert abs(shift) < 4
    assert spread == pytest.approx(1, abs=0.15)


def test_float32_models_have_float64_claims(generator: Generator) -> None:
    model = VAE.gaussian(3, 1, hidden=(4,))
    x = torch.randn(5, 3, generator=generator)
    claim = importance(model, x, draws=40, generator=Generator().manual_seed(0))
    again = importance(model.double(), x.double(), draws=40, generator=Generator().manual_seed(0))
    assert claim.value.dtype == torch.float64
    assert claim.value.shape == again.value.shape == (5,)


def test_many_draws_of_a_real_model_are_blocked(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder never sees more draws at once than the limit, and the estimate does not feel it."""
    model = VAE.gaussian(3, 1, hidden=(4,)).double()
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    sizes: list[int] = []
    original = model.decoder._log_prob

    def spying(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        sizes.append(context.shape[:-1].numel())
        return original(x, context)

    monkeypatch.setattr(model.decoder, "_log_prob", spying)
    whole = importance(model, x, draws=1000, generator=generator)
    monkeypatch.setattr(density.data.blocks, "ROWS_AT_ONCE", 500)
    sizes.clear()
    blocked = importance(model, x, draws=1000, generator=generator)
    assert max(sizes) <= 500
    assert sum(sizes) == 30_000
    assert whole.monte_carlo_error is not None
    assert blocked.monte_carlo_error is not None
    error = torch.hypot(whole.monte_carlo_error, blocked.monte_carlo_error)
    assert ((whole.value - blocked.value).abs() < 4.5 * error).all()


@pytest.mark.parametrize("model", [linear_flow(3), Gaussian(3), nn.Linear(3, 3), None])
def test_importance_needs_log_weights(model: Bound) -> None:
    with pytest.raises(TypeError, match=r"importance needs a model with log-weights; \w+ has none"):
        importance(model, torch.zeros(2, 3))
