"""Maximum-likelihood Gaussians: the closed form against numpy, and what hostile data makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    Chunks,
    ConditionalGaussian,
    DiagonalGaussian,
    FixedScale,
    Gaussian,
    GlobalScale,
    NetworkScale,
    PerFeatureScale,
    StandardNormal,
)

Fitted = type[Gaussian] | type[DiagonalGaussian]
BOTH: list[Fitted] = [Gaussian, DiagonalGaussian]


def correlated(generator: Generator, n: int = 60, features: int = 4) -> Tensor:
    root = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(n, features, generator=generator, dtype=torch.float64) @ root.mT


def covariance(model: Gaussian | DiagonalGaussian) -> Tensor:
    return model.covariance if isinstance(model, Gaussian) else (2 * model.log_std).exp().diag()


def expected_covariance(kind: Fitted, x: Tensor) -> Tensor:
    full = torch.as_tensor(np.cov(x.double().numpy().T, ddof=0)).reshape(x.shape[1], x.shape[1])
    return full if kind is Gaussian else full.diagonal().diag()


@pytest.mark.parametrize("kind", BOTH)
def test_fit_is_mean_and_covariance(kind: Fitted, generator: Generator) -> None:
    x = correlated(generator)
    model = kind(4)
    history = model.fit(x)
    torch.testing.assert_close(model.mean.detach(), x.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(covariance(model).detach(), expected_covariance(kind, x), rtol=1e-12, atol=1e-12)
    assert history.objective == [pytest.approx(model.log_prob(x).mean().item(), rel=1e-12)]
    assert history.converged
    assert history.stopped == "closed form"
    assert history.seconds > 0


@pytest.mark.parametrize("kind", BOTH)
def test_no_other_parameters_are_likelier(kind: Fitted, generator: Generator) -> None:
    x = correlated(generator)
    model = kind(4)
    model.fit(x)
    gradients = torch.autograd.grad(model.log_prob(x).mean(), list(model.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-12


@pytest.mark.parametrize("offset", [1e8, -1e8])
@pytest.mark.parametrize("kind", BOTH)
def test_offset_costs_only_the_digits_of_the_data(kind: Fitted, offset: float, generator: Generator) -> None:
    x = correlated(generator)
    far, near = kind(4), kind(4)
    far.fit(x + offset)
    near.fit((x + offset) - offset)  # the same rounding of the data, at the origin
    torch.testing.assert_close(covariance(far).detach(), covariance(near).detach(), rtol=1e-12, atol=1e-12)
    # The mean has ulp 1.5e-8 at 1e8, and log p changes by its share of a standard deviation.
    difference = far.log_density(x + offset).value - near.log_density((x + offset) - offset).value
    assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("kind", BOTH)
def test_units_shift_log_density_by_their_logarithm(kind: Fitted, generator: Generator) -> None:
    x = correlated(generator)
    units = torch.tensor([1e-8, 1e8, 1.0, 1e-3], dtype=torch.float64)
    plain, scaled = kind(4), kind(4)
    plain.fit(x)
    scaled.fit(x * units)
    expected = plain.log_density(x).value - units.log().sum()
    torch.testing.assert_close(scaled.log_density(x * units).value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("kind", BOTH)
def test_float32_data_is_fitted_in_float64_statistics(kind: Fitted, scale: float, generator: Generator) -> None:
    x = ((correlated(generator) + 1000) * scale).float()
    model = kind(4)
    model.fit(x)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    # Only the parameters are rounded, at 6e-8; exp of the log-diagonal multiplies that by |log σ| < 20.
    relative = expected_covariance(kind, x)
    torch.testing.assert_close(
        covariance(model).double().detach() / scale**2, relative / scale**2, rtol=3e-6, atol=3e-5
    )
    assert model.log_density(x).value.isfinite().all()


CONSTANT = [0.0, 0.1, 1 / 3, 1e8 + 0.1, 7.7e-9, -12345.678]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 3, 1000, 20_001])
@pytest.mark.parametrize("value", CONSTANT)
@pytest.mark.parametrize("kind", BOTH)
def test_constant_columns_are_an_error_whatever_rounding_makes_of_them(
    kind: Fitted, value: float, n: int, dtype: torch.dtype, generator: Generator
) -> None:
    constant = torch.full((n, 1), value, dtype=dtype)
    beside = torch.cat([torch.randn(n, 1, generator=generator, dtype=dtype), constant], 1)
    for x in (constant, beside):
        model = kind(x.shape[1])
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(ValueError, match="the likelihood has no maximum"):
            model.fit(x)
        assert all(p.equal(b) for p, b in zip(model.parameters(), before, strict=True)), "a failed fit left traces"
    if kind is DiagonalGaussian and n > 1:
        with pytest.raises(ValueError, match="column 1 is constant"):
            kind(2).fit(beside)


@pytest.mark.parametrize("kind", BOTH)
def test_one_rounding_in_a_constant_column_is_no_spread(kind: Fitted, generator: Generator) -> None:
    """One row of a thousand is off by the last bit: less than data of this size can resolve."""
    x = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    x[:, 1] = 1 / 3
    x[0, 1] = np.nextafter(1 / 3, 1)
    with pytest.raises(ValueError, match="no maximum"):
        kind(2).fit(x)
    x[:500, 1] += 1e-12
    kind(2).fit(x)


@pytest.mark.parametrize("features", [1, 2, 10, 60])
def test_too_few_rows_are_an_error_whatever_rounding_makes_of_them(features: int, generator: Generator) -> None:
    """n ≤ D rows have a singular covariance, whose factor's last pivot rounding can make large."""
    for _ in range(20):
        x = correlated(generator, features, features)
        with pytest.raises(ValueError, match=r"singular.*more rows than features"):
            Gaussian(features).fit(x)
        with pytest.raises(ValueError, match="singular"):
            Gaussian(features).fit(x[: features // 2 + 1])
    Gaussian(features).fit(correlated(generator, features + 20, features))


@pytest.mark.parametrize("features", [2, 10, 40])
def test_dependent_columns_are_an_error(features: int, generator: Generator) -> None:
    for _ in range(10):
        x = correlated(generator, 200, features)
        weights = torch.randn(features, 1, generator=generator, dtype=torch.float64)
        with pytest.raises(ValueError, match="linearly dependent"):
            Gaussian(features + 1).fit(torch.cat([x, x @ weights], 1))
    nearly = torch.cat([x, x @ weights + 1e-3 * torch.randn(200, 1, generator=generator, dtype=torch.float64)], 1)
    Gaussian(features + 1).fit(nearly)


@pytest.mark.parametrize("kind", BOTH)
def test_two_equal_rows_are_an_error(kind: Fitted) -> None:
    with pytest.raises(ValueError, match="no maximum"):
        kind(3).fit(torch.tensor([[0.1, 0.2, 0.3]] * 50))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.int64), TypeError, r"floating point; got torch\.int64"),
        (torch.zeros(0, 3), ValueError, "at least one row of data; got none"),
        (torch.zeros(5, 2), ValueError, r"shape \[\*batch, 3\]; got \[5, 2\]"),
        (torch.zeros(3), ValueError, r"data of shape \[n, 3\]; got \[3\]"),
        (torch.zeros(2, 5, 3), ValueError, r"data of shape \[n, 3\]; got \[2, 5, 3\]"),
        (torch.tensor([[0.0, 1, 2], [3, math.nan, 4]]), ValueError, "row 1, column 1 is nan"),
        (torch.tensor([[0.0, 1, -math.inf], [3, math.inf, 4]]), ValueError, r"row 0, column 2 is -inf \(2 of 6"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_unusable_data_is_one_clear_error(kind: Fitted, data: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(3).fit(data)
    with pytest.raises(error, match=message):
        kind(3).log_density(data)


def test_a_full_covariance_reads_arrays_too_and_claims_are_about_tensors() -> None:
    data = np.random.default_rng(0).normal(size=(9, 2))
    for kind in BOTH:
        with pytest.raises(TypeError, match=r"torch\.Tensor; got ndarray. Convert with torch\.as_tensor"):
            kind(2).log_density(data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.Tensor; got ndarray"):
        DiagonalGaussian(2).fit(data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"DiagonalGaussian expects x to be a torch\.Tensor; got list"):
        DiagonalGaussian(2).fit([[0.0] * 2])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Gaussian expects data .* got numbers"):
        Gaussian(2).fit([[0.0] * 2])
    read, tensor = Gaussian(2), Gaussian(2)
    assert read.fit(data).objective == tensor.fit(torch.from_numpy(data)).objective


@pytest.mark.parametrize("kind", BOTH)
def test_claims_are_exact(kind: Fitted, generator: Generator) -> None:
    x = correlated(generator)
    model = kind(4)
    model.fit(x)
    claim = model.log_density(x, draws=3)
    assert claim.kind.value == "exact"
    assert claim.method == "closed form"
    assert claim.monte_carlo_error is None
    assert not claim.value.requires_grad
    assert claim.value.equal(model.log_prob(x))


def test_weights_are_repetitions_and_chunks_the_data(generator: Generator) -> None:
    x = torch.randn(60, 3, generator=generator).cumsum(1) + 5
    weights = torch.randint(0, 4, (60,), generator=generator).float()
    repeated, weighted, chunked = Gaussian(3), Gaussian(3), Gaussian(3)
    expected = repeated.fit(x.repeat_interleave(weights.long(), 0))
    found = weighted.fit(x, weights=weights)
    chunks = Chunks([(x[:7], weights[:7]), (x[7:], weights[7:])], weighted=True)
    assert chunked.fit(chunks).objective == pytest.approx(expected.objective, rel=1e-12)
    assert found.objective == pytest.approx(expected.objective, rel=1e-12)
    for model in (weighted, chunked):
        torch.testing.assert_close(model.covariance, repeated.covariance, rtol=1e-6, atol=0)
        torch.testing.assert_close(model.mean, repeated.mean, rtol=1e-6, atol=0)
    assert expected.objective[0] == pytest.approx(
        repeated.log_density(x.repeat_interleave(weights.long(), 0)).mean, rel=1e-6
    )
    with pytest.raises(ValueError, match="one weight for each row; got 59 weights for 60 rows"):
        Gaussian(3).fit(x, weights=weights[1:])


def test_from_moments(generator: Generator) -> None:
    x = correlated(generator)
    sigma = torch.as_tensor(np.cov(x.numpy().T))
    model = Gaussian.from_moments(x[0], sigma)
    torch.testing.assert_close(model.covariance.detach(), sigma, rtol=1e-12, atol=1e-12)
    assert model.mean.equal(x[0])
    for bad in (sigma * 0, -sigma, sigma * math.nan, torch.ones(4, 4, dtype=torch.float64), sigma * math.inf):
        with pytest.raises(ValueError, match="Gaussian: the covariance of the data is singular"):
            Gaussian.from_moments(x[0], bad)
    lopsided = sigma.index_put((torch.tensor(0), torch.tensor(1)), sigma[0, 1] + 1)
    with pytest.raises(ValueError, match="Gaussian expects a symmetric covariance"):
        Gaussian.from_moments(x[0], lopsided)
    with pytest.raises(ValueError, match="Gaussian expects a finite mean"):
        Gaussian.from_moments(x[0] * math.nan, sigma)
    for mean, covariance in ((x[0, :3], sigma), (x[:2], sigma), (x[0], sigma[0]), (x[0], sigma[None])):
        with pytest.raises(ValueError, match=r"Gaussian expects a mean \[D\] and a covariance \[D, D\]; got"):
            Gaussian.from_moments(mean, covariance)
    with pytest.raises(TypeError, match=r"floating point; got torch\.int64"):
        Gaussian.from_moments(x[0].long(), sigma)


@pytest.mark.parametrize("features", [0, -1, 2.0, "3"])
def test_feature_counts_are_positive_ints(features: int) -> None:
    for make in (StandardNormal, DiagonalGaussian, Gaussian, PerFeatureScale):
        with pytest.raises(ValueError, match="positive int"):
            make(features)
    with pytest.raises(ValueError, match="positive int"):
        ConditionalGaussian(nn.Linear(1, 2), features, 1)
    with pytest.raises(ValueError, match="positive int"):
        ConditionalGaussian(nn.Linear(1, 2), 1, features)


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_scales_are_positive_and_finite(std: float) -> None:
    for make in (FixedScale, GlobalScale, lambda s: PerFeatureScale(2, s), lambda s: NetworkScale(std=s)):
        with pytest.raises(ValueError, match="std must be positive and finite"):
            make(std)
    with pytest.raises(ValueError, match="NetworkScale expects bound to be positive and finite, or None"):
        NetworkScale(std)


def test_a_network_scale_stays_within_its_bound() -> None:
    raw = torch.tensor([-1e30, -1e3, -0.1, 0.0, 0.1, 1e3, 1e30], dtype=torch.float64)
    std = NetworkScale(3.0)(raw, raw)
    torch.testing.assert_close(NetworkScale(3.0, std=0.2)(raw, raw), 0.2 * std)
    assert (std >= math.exp(-3) * (1 - 1e-12)).all()
    assert (std <= math.exp(3) * (1 + 1e-12)).all()
    # b·tanh(r/b) = r − r³/3b² + …: near zero the bound is not felt.
    torch.testing.assert_close(std[2:5].log(), raw[2:5], rtol=1e-3, atol=0)


def test_a_scale_of_ones_own_is_asked_by_its_forward() -> None:
    """Also one that inherits log σ from a scale of ours: the log-density has the σ that draws have."""

    class Doubled(NetworkScale):
        def forward(self, raw: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(raw, mean)

    network, context = nn.Linear(3, 4).double(), torch.randn(5, 3, dtype=torch.float64)
    mean, scale = ConditionalGaussian(network, 2, 3, Doubled()).at(context)
    expected = 2 * ConditionalGaussian(network, 2, 3).at(context)[1].color(torch.ones_like(mean))
    torch.testing.assert_close(scale.color(torch.ones_like(mean)), expected)
    torch.testing.assert_close(scale.log_std(), expected.log())


def test_a_network_of_the_wrong_width_is_named() -> None:
    density = ConditionalGaussian(nn.Linear(3, 2), 2, 3, NetworkScale())
    with pytest.raises(
        ValueError,
        match=r"with NetworkScale expects its network to return \[n, 4\] for n points.*got \[7, 2\] for n = 7",
    ):
        density.sample(1, context=torch.zeros(7, 3))


def test_a_network_without_parameters_will_do() -> None:
    density = ConditionalGaussian(nn.Identity(), 2, 2, FixedScale(0.5)).double()
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    assert density.log_prob(x, x).item() == pytest.approx(-2 * math.log(0.5) - math.log(2 * math.pi))


def test_samples_have_the_standard_deviation_not_the_variance(generator: Generator) -> None:
    """pomegranate 1.1 passes variances as standard deviations here."""
    model = DiagonalGaussian(2).double()
    with torch.no_grad():
        model.log_std.copy_(torch.tensor([2.0, 3.0]).log())
    draws = model.sample(20_000, generator=generator).detach()
    # The standard error of a standard deviation is σ/√(2n): 0.5 %.
    torch.testing.assert_close(draws.std(0), torch.tensor([2.0, 3.0], dtype=torch.float64), rtol=0.025, atol=0)


def test_a_covariance_is_symmetric_in_every_unit() -> None:
    """Beside a variance of 10⁶ an entry of 0.9 that faces one of 0.1 is no rounding; 10⁻⁷ of a number is."""
    skew = torch.tensor([[1e6, 0, 0], [0, 1, 0.9], [0, 0.1, 1]])
    for units in (torch.ones(3), torch.tensor([1e-6, 1.0, 1e6])):
        with pytest.raises(ValueError, match="Gaussian expects a symmetric covariance; symmetrise it"):
            Gaussian.from_moments(torch.zeros(3), skew * units * units.unsqueeze(1))
    rounded = torch.tensor([[1e6, 300.0, 0], [300.0 * (1 + 1e-7), 1, 0.5], [0, 0.5, 1]])
    assert Gaussian.from_moments(torch.zeros(3), rounded).features == 3
