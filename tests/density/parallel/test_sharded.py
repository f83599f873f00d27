"""Claims in parts: the values of one call, in the order of the rows, with everything that belongs to them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from density import Gaussian, Kind, LogDensity, Measure, WeightDiagnostics, sharded
from density.importance.bound import importance
from lvm import VAE


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(23, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("parts", [1, 2, 5, 23, 40])
def test_an_exact_claim_in_parts_is_the_whole(parts: int, x: Tensor) -> None:
    model = Gaussian(2).double()
    claim = sharded(lambda rows, generator: model.log_density(rows), x, parts=parts)
    whole = model.log_density(x)
    torch.testing.assert_close(claim.value, whole.value, rtol=1e-14, atol=1e-14)  # one matrix product or several
    assert (claim.kind, claim.measure, claim.method) == (whole.kind, whole.measure, whole.method)
    assert claim.points == whole.points
    assert claim.weights is None
    assert claim.monte_carlo_error is None


def test_a_sampled_claim_in_parts(x: Tensor) -> None:
    """Every row is drawn for once, by streams that differ, and its errors and diagnostics come with it."""
    model = VAE.gaussian(2, 1, hidden=(8,)).double()

    def claim(rows: Tensor, generator: Generator | None) -> LogDensity:
        return importance(model, rows, draws=400, generator=generator)

    same = x[:1].expand(6, 2)
    first, again = (sharded(claim, same, parts=3, generator=Generator().manual_seed(1)) for _ in range(2))
    assert first.value.equal(again.value)
    assert len(first.value.unique()) == 6
    assert first.weights is not None
    assert first.weights.pareto_k.shape == first.weights.bias.shape == first.value.shape
    whole = claim(same, Generator().manual_seed(2))
    assert whole.monte_carlo_error is not None
    assert first.monte_carlo_error is not None
    error = torch.hypot(whole.monte_carlo_error, first.monte_carlo_error)
    assert ((first.value - whole.value).abs() < 6 * error).all()
    generator = Generator().manual_seed(1)
    two = [sharded(claim, same, parts=3, generator=generator).value for _ in range(2)]
    assert not two[0].equal(two[1]), "a second claim by the same generator repeats the first one's draws"


def test_too_few_parts(x: Tensor) -> None:
    with pytest.raises(ValueError, match="parts must be a positive int"):
        sharded(lambda rows, generator: Gaussian(2).double().log_density(rows), x, parts=0)


def one(kind: Kind, value: float = 0.0, **extra: object) -> LogDensity:
    return LogDensity(torch.full((2,), value), kind, kind.value, **extra)  # type: ignore[arg-type]


def test_concatenation_of_kinds() -> None:
    kinds = {
        (Kind.EXACT, Kind.EXACT): Kind.EXACT,
        (Kind.EXACT, Kind.LOWER): Kind.LOWER,
        (Kind.UPPER, Kind.EXACT): Kind.UPPER,
        (Kind.LOWER, Kind.UPPER): Kind.ESTIMATE,
        (Kind.EXACT, Kind.ESTIMATE): Kind.ESTIMATE,
        (Kind.LOWER, Kind.ESTIMATE): Kind.ESTIMATE,
    }
    for (a, b), joint in kinds.items():
        claim = LogDensity.concatenate([one(a, 1.0), one(b, 2.0)])
        assert claim.kind is joint
        assert claim.value.tolist() == [1, 1, 2, 2]
        assert claim.method == (a.value if a is b else f"{a.value} / {b.value}")


def test_concatenation_of_errors_and_weights() -> None:
    errors = LogDensity.concatenate([one(Kind.EXACT), one(Kind.LOWER, monte_carlo_error=torch.ones(2))])
    assert errors.monte_carlo_error is not None
    assert errors.monte_carlo_error.tolist() == [0, 0, 1, 1]
    assert errors.numerical_error is None

    def weights(value: float) -> WeightDiagnostics:
        return WeightDiagnostics(torch.full((2,), value), torch.full((2,), value), value, torch.full((2,), value))

    joint = LogDensity.concatenate([one(Kind.LOWER, weights=weights(0.5)), one(Kind.LOWER, weights=weights(0.7))])
    assert joint.weights is not None
    assert joint.weights.threshold.tolist() == pytest.approx([0.5, 0.5, 0.7, 0.7])  # type: ignore[union-attr]
    for tensor in (joint.weights.effective_sample_size, joint.weights.pareto_k, joint.weights.bias):
        torch.testing.assert_close(tensor, torch.tensor([0.5, 0.5, 0.7, 0.7]))
    assert joint.unreliable == 0
    assert joint.weights.dominance is None
    one_dominates = replace(weights(0.5), dominance=torch.tensor([0.01, 0.03]))
    joint = LogDensity.concatenate([one(Kind.LOWER, weights=one_dominates)] * 2)
    assert joint.unreliable == 2
    chains = [replace(weights(5.0), threshold=math.inf, least_size=size) for size in (4.0, 8.0)]
    assert LogDensity.concatenate([one(Kind.LOWER, weights=chain) for chain in chains]).unreliable == 2
    assert LogDensity.concatenate([one(Kind.LOWER, weights=chains[0])] * 2).weights.least_size == 4.0  # type: ignore[union-attr]
    mixed = LogDensity.concatenate([one(Kind.LOWER, weights=one_dominates), one(Kind.LOWER, weights=chains[0])])
    assert mixed.weights is not None
    assert mixed.weights.reliable.tolist() == [True, False, True, True]
    twice = LogDensity.concatenate([mixed, mixed])
    assert twice.weights is not None
    assert twice.weights.reliable.tolist() == 2 * [True, False, True, True]


def test_claims_that_cannot_be_concatenated() -> None:
    with pytest.raises(ValueError, match="at least one claim"):
        LogDensity.concatenate([])
    with pytest.raises(ValueError, match="Lebesgue and counting measure are in different units"):
        LogDensity.concatenate([one(Kind.EXACT), one(Kind.EXACT, measure=Measure.COUNTING)])
    weights = WeightDiagnostics(torch.ones(2), torch.ones(2), 0.7, torch.ones(2))
    with pytest.raises(ValueError, match="keep them apart"):
        LogDensity.concatenate([one(Kind.LOWER), one(Kind.LOWER, weights=weights)])
