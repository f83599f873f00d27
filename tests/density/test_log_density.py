"""Claims about log p(x): kinds, measures, errors and what may be subtracted from what."""

from __future__ import annotations

import math
import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import BitsPerDimension, Claim, Difference, Gaussian, Kind, LogDensity, Measure

E, L, U, S = Kind.EXACT, Kind.LOWER, Kind.UPPER, Kind.ESTIMATE

# The kind of a − b, by row a and column b; None where the difference means nothing.
SUBTRACTION: dict[tuple[Kind, Kind], Kind | None] = {
    (E, E): E, (E, L): U, (E, U): L, (E, S): S,
    (L, E): L, (L, L): None, (L, U): L, (L, S): S,
    (U, E): U, (U, L): U, (U, U): None, (U, S): S,
    (S, E): S, (S, L): S, (S, U): S, (S, S): S,
}  # fmt: skip


def claim(
    value: Tensor, kind: Kind = E, error: Tensor | None = None, measure: Measure = Measure.LEBESGUE
) -> LogDensity:
    return LogDensity(value, kind, f"some {kind.value}", error, measure=measure)


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("a", "b"), SUBTRACTION)
def test_the_kind_of_a_difference(a: Kind, b: Kind, generator: Generator) -> None:
    left, right = claim(normal(generator, 4), a), claim(normal(generator, 4), b)
    kind = SUBTRACTION[a, b]
    if kind is None:
        with pytest.raises(ValueError, match=f"the difference of two {a.value}s is neither"):
            left - right
        return
    difference = left - right
    assert type(difference) is Difference
    assert difference.kind is kind
    assert difference.value.equal(left.value - right.value)
    assert difference.method == f"{left.method} − {right.method}"


def test_the_table_is_interval_arithmetic() -> None:
    """A lower bound on a − b must hold for all true values that the kinds allow."""
    below, above = {L: True, E: False, U: False}, {L: False, E: False, U: True}  # may the number be below / above?
    for (a, b), kind in SUBTRACTION.items():
        if S in (a, b):
            continue
        too_low = below[a] or above[b]  # a − b may be below the true difference
        too_high = above[a] or below[b]
        expected = None if too_low and too_high else L if too_low else U if too_high else E
        assert kind is expected, (a, b)


def test_the_kind_of_a_negative() -> None:
    assert [k.flipped() for k in (E, L, U, S)] == [E, U, L, S]


def test_different_measures_are_different_units(generator: Generator) -> None:
    value = normal(generator, 4)
    flow, bernoulli = claim(value), claim(value, measure=Measure.COUNTING)
    with pytest.raises(ValueError, match=r"Lebesgue and counting measure are in different units"):
        flow - bernoulli
    with pytest.raises(ValueError, match=r"counting and Lebesgue"):
        bernoulli - flow
    assert (bernoulli - bernoulli).kind is E


def test_different_points_are_not_compared(generator: Generator) -> None:
    for other in (normal(generator, 5), normal(generator, 4, 1), normal(generator)):
        with pytest.raises(ValueError, match=r"compared point by point; got \[4\] and"):
            claim(normal(generator, 4)) - claim(other)


def test_claims_about_other_points_are_not_compared(generator: Generator) -> None:
    """Other rows, another order, other units: what was silently a difference of 16.5 nats, and called exact."""
    x, y = normal(generator, 4, 2), normal(generator, 4, 2)
    model = Gaussian(2).double()
    claim = model.log_density(x)
    for other in (y, x.flip(0), 2 * x, x + 1e-5):
        with pytest.raises(ValueError, match=r"about 4 rows of 2 features and one about other rows, or the same"):
            claim - model.log_density(other)
    wide = Gaussian(3).double().log_density(normal(generator, 4, 3))
    with pytest.raises(ValueError, match=r"4 rows of 2 features and one about 4 rows of 3 features\. Ask both models"):
        claim - wide
    with pytest.raises(ValueError, match="compared at the same points"):
        claim - replace(model.log_density(y), kind=Kind.LOWER)
    assert (claim - Gaussian(2).double().log_density(x.clone())).value.shape == (4,)
    single = Gaussian(2).log_density(x.float())
    assert (claim - single).value.abs().max() < 1e-5


def test_points_changed_afterwards_were_the_points(generator: Generator) -> None:
    model, x = Gaussian(2).double(), normal(generator, 4, 2)
    before, kept = model.log_density(x), x.clone()
    x.mul_(2)
    assert (before - model.log_density(kept)).value.abs().max() == 0
    with pytest.raises(ValueError, match="compared at the same points"):
        before - model.log_density(x)


def test_claims_made_by_hand_are_compared_by_their_number(generator: Generator) -> None:
    known = Gaussian(2).double().log_density(normal(generator, 4, 2))
    by_hand = claim(normal(generator, 4))
    assert by_hand.points is None
    for difference in (known - by_hand, by_hand - known):
        assert difference.value.shape == (4,)
    with pytest.raises(ValueError, match=r"compared point by point; got \[4\] and \[3\]"):
        known - claim(normal(generator, 3))
    with pytest.raises(ValueError, match="3 values cannot be a claim about 4 rows of 2 features; give the points of"):
        replace(known, value=known.value[:3])
    assert replace(known, value=known.value[:3], points=None).value.shape == (3,)


def test_points_of_claims_one_after_the_other(generator: Generator) -> None:
    model, x = Gaussian(2).double(), normal(generator, 7, 2)
    parts = [model.log_density(rows) for rows in x.split(3)]
    assert (LogDensity.concatenate(parts) - model.log_density(x)).value.abs().max() < 1e-12
    with pytest.raises(ValueError, match="compared at the same points"):
        LogDensity.concatenate(parts[::-1][1:] + parts[::-1][:1]) - model.log_density(x)
    assert LogDensity.concatenate([*parts, claim(normal(generator, 2))]).points is None


def test_copies_of_a_claim_know_its_points(generator: Generator) -> None:
    known = Gaussian(2).double().log_density(normal(generator, 4, 2))
    for copy in (deepcopy(known), pickle.loads(pickle.dumps(known))):
        assert copy.points == known.points
        assert (copy - known).value.abs().max() == 0
        assert repr(copy) == repr(known)


@pytest.mark.parametrize("other", [1.0, torch.zeros(4), None])
def test_a_number_is_not_a_claim(other: object, generator: Generator) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        claim(torch.zeros(4)) - other  # type: ignore[operator]


def test_a_difference_is_no_log_density(generator: Generator) -> None:
    a, b = claim(normal(generator, 4)), claim(normal(generator, 4))
    with pytest.raises(TypeError, match="unsupported operand"):
        (a - b) - a  # type: ignore[operator]


def test_mean_and_its_two_errors(generator: Generator) -> None:
    value, error = normal(generator, 3, 4), normal(generator, 3, 4).abs()
    both = claim(value, L, error)
    flat, errors = value.flatten().numpy(), error.flatten().numpy()
    assert both.mean == pytest.approx(flat.mean(), rel=1e-14)
    assert both.standard_error == pytest.approx(flat.std(ddof=1) / np.sqrt(12), rel=1e-14)
    assert both.mean_monte_carlo_error == pytest.approx(np.sqrt((errors**2).sum()) / 12, rel=1e-14)
    assert claim(value).mean_monte_carlo_error == 0.0


def test_errors_of_the_mean_are_what_repetition_shows(generator: Generator) -> None:
    """Over repetitions the mean scatters by its Monte Carlo error, the data held fixed."""
    truth, error = normal(generator, 20), 0.1 + normal(generator, 20).abs()
    means = [claim(truth + error * normal(generator, 20), S, error).mean for _ in range(2000)]
    # A standard deviation of 2,000 values is known to 1/√4000 = 1.6 %.
    assert np.std(means) == pytest.approx(claim(truth, S, error).mean_monte_carlo_error, rel=0.07)


def test_a_single_point_has_no_standard_error() -> None:
    for value in (torch.tensor(1.0), torch.tensor([1.0])):
        one = claim(value)
        assert math.isnan(one.standard_error)
        assert one.mean == 1.0
        assert "1 points" in repr(one)


def test_float32_means_are_taken_in_float64() -> None:
    value = torch.full((1_000_000,), 1e4) + torch.arange(1_000_000) % 2  # float32 partial sums would reach 1e10
    assert claim(value).mean == pytest.approx(10_000.5, rel=1e-12)


def test_paired_errors(generator: Generator) -> None:
    """The data's error of a difference is that of the differences, the sampler's are independent."""
    shared, noise = 10 * normal(generator, 50), 0.1 * normal(generator, 50)
    e, f = normal(generator, 50).abs(), normal(generator, 50).abs()
    a, b = claim(shared + noise, E, e), claim(shared, L, f)
    assert a.monte_carlo_error is not None
    difference = a - b
    assert difference.standard_error == pytest.approx(float(noise.std()) / math.sqrt(50), rel=1e-9)
    assert difference.standard_error < 0.1 * min(a.standard_error, b.standard_error)
    assert difference.monte_carlo_error is not None
    torch.testing.assert_close(difference.monte_carlo_error, (e.square() + f.square()).sqrt(), rtol=1e-14, atol=0)
    for left, right, expected in ((a, claim(shared), e), (claim(shared), b, f)):
        one_sided = (left - right).monte_carlo_error
        assert one_sided is not None
        assert one_sided.equal(expected)
    assert (claim(shared) - claim(shared)).monte_carlo_error is None


def test_errors_have_the_shape_of_values() -> None:
    with pytest.raises(ValueError, match=r"monte_carlo_error must have the shape of value, \[4\]; got \[1\]"):
        claim(torch.zeros(4), L, torch.zeros(1))


def test_claims_are_frozen() -> None:
    with pytest.raises(AttributeError):
        claim(torch.zeros(4)).kind = L  # type: ignore[misc]


def test_a_uniform_mass_over_256_levels_has_8_bits_per_dimension() -> None:
    pixels = claim(torch.full((5,), -12 * math.log(256)), measure=Measure.COUNTING)
    assert pixels.bits_per_dimension(12).mean == pytest.approx(8, rel=1e-6)
    unit_interval = claim(torch.zeros(5))  # the same, of pixels divided by 256
    assert unit_interval.bits_per_dimension(12, levels=256).mean == pytest.approx(8)
    unit_pixels = claim(torch.full((5,), -12 * math.log(256), dtype=torch.float64))
    assert unit_pixels.bits_per_dimension(12).mean == pytest.approx(8, rel=1e-12)


@pytest.mark.parametrize("kind", list(Kind))
def test_bits_per_dimension_turn_bounds_around(kind: Kind, generator: Generator) -> None:
    value, error = normal(generator, 6), normal(generator, 6).abs()
    bits = claim(value, kind, error).bits_per_dimension(3, levels=4)
    assert type(bits) is BitsPerDimension
    assert bits.kind is kind.flipped()
    torch.testing.assert_close(bits.value, 2 - value / (3 * math.log(2)), rtol=1e-14, atol=1e-14)
    assert bits.monte_carlo_error is not None
    torch.testing.assert_close(bits.monte_carlo_error, error / (3 * math.log(2)), rtol=1e-14, atol=0)
    assert claim(value).bits_per_dimension(3).monte_carlo_error is None


@pytest.mark.parametrize(("features", "levels"), [(0, 1), (-1, 1), (1, 0)])
def test_bits_per_dimension_need_dimensions_and_levels(features: int, levels: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        claim(torch.zeros(2)).bits_per_dimension(features, levels=levels)


def test_a_mass_has_no_levels() -> None:
    with pytest.raises(ValueError, match="levels must be 1 for discrete data"):
        claim(torch.zeros(2), measure=Measure.COUNTING).bits_per_dimension(3, levels=256)


def test_what_a_claim_prints() -> None:
    error = torch.tensor([0.3, 0.4])
    text = repr(claim(torch.tensor([-1.0, -3.0]), L, error, Measure.COUNTING))
    assert text == (
        "log p(x) = -2.0000 ± 1 (data) ± 0.25 (Monte Carlo) nats, lower bound (some lower bound), "
        "counting measure, 2 points"
    )
    assert isinstance(claim(torch.zeros(2)), Claim)


def bounded(kind: Kind, confidence: float | None) -> LogDensity:
    return LogDensity(torch.zeros(3), kind, "some", confidence=confidence)


def test_what_bounds_leave_to_chance_adds_up() -> None:
    """Bonferroni, whatever depends on what; an estimate has no confidence."""
    lower, upper = bounded(L, 0.95), bounded(U, 0.97)
    assert (lower - upper).confidence == pytest.approx(0.92)
    assert (lower - bounded(E, None)).confidence == pytest.approx(0.95)
    assert (lower - bounded(S, None)).confidence is None
    assert LogDensity.concatenate([lower, lower]).confidence == pytest.approx(0.9)
    assert LogDensity.concatenate([lower, bounded(L, None)]).confidence == pytest.approx(0.95)
    assert LogDensity.concatenate([lower, upper]).confidence is None  # bounds on opposite sides are an estimate
    assert lower.bits_per_dimension(2).kind_in_words == "upper bound at 95 %"
    with pytest.raises(ValueError, match="nothing is known of all at once"):
        LogDensity.concatenate([lower] * 20)
    with pytest.raises(ValueError, match="between 0 and 1; got 95"):
        bounded(U, 95)


def test_a_bound_prints_its_confidence() -> None:
    expected = "log p(x) = 0.0000 ± 0 (data) nats, upper bound at 97.5 % (some), Lebesgue measure, 3 points"
    assert repr(bounded(U, 0.975)) == expected
    assert "upper bound at 97.5 %" in repr(bounded(U, 0.975) - bounded(E, None))
