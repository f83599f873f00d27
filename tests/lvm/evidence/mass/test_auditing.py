"""Sums of claims over whole spaces: 1 for what is exact or unbiased, what enumeration says for the others."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

from density import Gaussian, Kind, LogDensity
from lvm import PPCA, VAE, GaussianMixture
from lvm.evidence import Bits, Box, annealed, audit, evidence, importance, prior_average, prior_importance, quadrature
from tests.laws.transforms import randomise
from tests.lvm.evidence.mass.models import FIVE, continuous, one_hot

ROUNDING = 1e-12  # of sums of 2⁸ numbers of size 1 in float64, with room


def test_bits_are_all_states_once() -> None:
    points = Bits(5).points(torch.empty(0, dtype=torch.float64))
    assert points.shape == (32, 5)
    assert points.dtype is torch.float64
    assert len(points.unique(dim=0)) == 32
    assert points.unique().tolist() == [0.0, 1.0]


def test_what_is_exact_sums_to_one(generator: Generator) -> None:
    mixture = one_hot(8, 3, generator)
    for found in (audit(mixture, Bits(8)), audit(mixture, Bits(8), method=quadrature)):
        assert abs(found.total - 1) < ROUNDING
        assert found.error == 0
        assert found.departure == 0
        assert found.claims == len(found.mass)
    by_quadrature = audit(continuous(5, 1, generator), Bits(5))
    assert abs(by_quadrature.total - 1) < by_quadrature.slack < 1e-4
    assert by_quadrature.departure == 0


@pytest.mark.parametrize("name", FIVE)
def test_unbiased_estimators_sum_to_one(name: str, generator: Generator) -> None:
    """The mean departure of 12 audits is 0 within four of its errors, and the departures have standard deviation 1.

    That of 12 normal numbers is below 1.8 but for a chance of 10⁻⁴; more is left for stated errors.
    """
    model = FIVE[name](generator)
    for method in (importance, prior_importance):
        asked = partial(method, draws=30)
        found = [audit(model, Bits(model.features), method=asked, generator=generator) for _ in range(12)]
        departures = torch.tensor([each.departure for each in found])
        assert departures.mean().abs() < 4 / math.sqrt(12), method.__name__
        assert 0.3 < departures.std() < 2, method.__name__


def test_annealing_sums_to_one(generator: Generator) -> None:
    model = continuous(5, 1, generator)
    asked = partial(annealed, steps=5, chains=8, leapfrog=1)
    found = audit(model, Bits(5), method=asked, passes=12, generator=generator)
    assert abs(found.departure) < 4
    assert found.error < 0.02


def test_a_loose_bound_sums_to_what_enumeration_says(generator: Generator) -> None:
    """With two draws of a one-hot latent, E exp mean log w is a sum over pairs of latents."""
    model = one_hot(5, 3, generator)
    x = Bits(5).points(torch.empty(0, dtype=torch.float64))
    with torch.no_grad():
        prior = model.prior.logits.softmax(-1)
        likelihood = model.decoder.log_prob(x.unsqueeze(1), torch.eye(3, dtype=torch.float64))  # [N, 3]
        pairs = (likelihood.unsqueeze(1) + likelihood.unsqueeze(2)).div(2).exp().sum(0)
        expected = (prior @ pairs @ prior).item()
    asked = partial(prior_average, draws=2)
    totals = torch.tensor(
        [audit(model, Bits(5), method=asked, passes=1, generator=generator).total for _ in range(100)]
    )
    assert expected < 0.97
    assert abs(totals.mean().item() - expected) < 4 * totals.std().item() / math.sqrt(100)


def broken(model: VAE, x: Tensor, *, draws: int, generator: Generator) -> LogDensity:
    """Importance weighting with the factor of a sample variance."""
    claim = importance(model, x, draws=draws, generator=generator)
    return replace(claim, value=claim.value + math.log(draws / (draws - 1)))


@pytest.mark.parametrize("draws", [10, 100])
def test_a_wrong_factor_is_seen(draws: int, generator: Generator) -> None:
    found = audit(
        continuous(8, 2, generator), Bits(8), method=partial(broken, draws=draws), passes=10, generator=generator
    )
    assert found.departure > 3
    assert abs(found.total - draws / (draws - 1)) < 4 * found.error


def test_smoothing_is_seen(generator: Generator) -> None:
    """Pareto-smoothed averages are biased; over all states of a heavy-tailed encoder, visibly so."""
    model = continuous(8, 1, generator, encoder_std=0.4)
    smooth = audit(model, Bits(8), method=partial(importance, draws=50, smooth=True), passes=20, generator=generator)
    plain = audit(model, Bits(8), method=partial(importance, draws=50), passes=20, generator=generator)
    assert smooth.kind is Kind.ESTIMATE
    assert abs(plain.departure) < 4
    assert abs(smooth.departure) > 4


def test_an_error_that_is_too_small_is_not_reliable(generator: Generator) -> None:
    """Of a narrow encoder the weights have no variance; sums lie below 1 by more than their errors, and are told."""
    narrow, broad = continuous(8, 1, generator, encoder_std=0.3), continuous(8, 1, generator)
    asked = partial(importance, draws=20)
    found = [audit(narrow, Bits(8), method=asked, generator=generator) for _ in range(10)]
    assert sum(not each.reliable for each in found) >= 9
    assert "the error uncertain" in repr(max(found, key=lambda each: each.k))
    assert sum(each.departure for each in found) < -10
    assert sum(audit(broad, Bits(8), method=asked, generator=generator).reliable for _ in range(10)) >= 9
    assert audit(one_hot(4, 2, generator), Bits(4)).reliable


def test_the_second_pass_goes_where_the_sum_varies(generator: Generator) -> None:
    model = continuous(8, 2, generator)
    once = audit(model, Bits(8), method=partial(importance, draws=20), passes=1, generator=generator)
    many = audit(model, Bits(8), method=partial(importance, draws=20), passes=10, generator=generator)
    assert once.claims == 256
    assert 9 * 256 < many.claims <= 10 * 256
    assert many.error < once.error / 4  # with as many claims everywhere it would be a third
    errors = torch.stack(
        [
            torch.tensor([each.total - 1, each.error])
            for each in (
                audit(model, Bits(8), method=partial(importance, draws=20), passes=4, generator=generator)
                for _ in range(24)
            )
        ]
    )
    assert 0.6 < errors[:, 0].square().mean().sqrt() / errors[:, 1].square().mean().sqrt() < 1.6


def test_the_total_of_some_states_is_their_mass(generator: Generator) -> None:
    model = one_hot(6, 2, generator)
    some = Bits(6).points(torch.empty(0, dtype=torch.float64))[::3]
    found = audit(model, some)
    assert abs(found.total - evidence(model, some).value.exp().sum().item()) < ROUNDING
    assert found.departure == -math.inf


def test_one_distribution_of_many_sums_to_one(generator: Generator) -> None:
    model = randomise(VAE.bernoulli(4, 1, hidden=(4,), context_features=2), generator)
    context = torch.randn(1, 2, dtype=torch.float64, generator=generator)
    found = audit(model, Bits(4), context=context)
    assert abs(found.total - 1) < found.slack < 1e-3
    with pytest.raises(ValueError, match="a context for each of the 16 rows of data, or one for all"):
        audit(model, Bits(4), context=context.expand(3, 2))


def test_densities_are_integrated_over_boxes(generator: Generator) -> None:
    """The trapezoidal rule sees a normal density to rounding with nodes half a standard deviation apart."""
    line, plane = randomise(Gaussian(1), generator), randomise(Gaussian(2), generator)
    for model, box in ((line, Box((-12.0,), (12.0,), 101)), (plane, Box((-12.0, -12.0), (12.0, 12.0), 201))):
        found = audit(model, box)
        assert abs(found.total - 1) < 1e-9
        assert found.departure == 0
    assert audit(line, Box((-12.0,), (0.0,), 101)).departure == -math.inf
    ppca = randomise(PPCA(2, 1), generator)
    drawn = audit(
        ppca, Box((-9.0, -9.0), (9.0, 9.0), 61), method=partial(prior_importance, draws=20), generator=generator
    )
    assert 1e-4 < drawn.error < 0.01
    assert abs(drawn.departure) < 4


def test_both_rules_of_a_box_add_up_to_its_volume() -> None:
    """The trapezoidal rule is exact for linear functions, at either spacing."""
    box, like = Box((-1.0, 2.0), (3.0, 2.5), 9), torch.empty(0, dtype=torch.float64)
    linear = 1 + box.points(like) @ torch.tensor([0.5, -2.0], dtype=torch.float64)
    assert box.volumes(like).sum().item() == pytest.approx(2.0)
    assert (box.volumes(like) @ linear).item() == pytest.approx(2.0 * (1 + 0.5 - 4.5))
    assert abs((box.doubt(like) @ linear).item()) < 1e-12


def test_a_coarse_box_is_told(generator: Generator) -> None:
    """Nodes three standard deviations apart miss the mass by some percent, and the slack says so."""
    model = GaussianMixture.from_parameters(
        torch.ones(1, dtype=torch.float64),
        torch.full((1, 1), 0.7, dtype=torch.float64),
        torch.ones(1, 1, 1, dtype=torch.float64),
    )
    found = audit(model, Box((-15.0,), (15.0,), 11))
    assert abs(found.total - 1) > 1e-3
    assert found.slack > abs(found.total - 1)


def test_a_method_without_error_is_not_judged(generator: Generator) -> None:
    def elbo(model: VAE, x: Tensor, *, generator: Generator) -> LogDensity:
        return LogDensity(model.elbo(x, generator=generator).detach(), Kind.LOWER, "ELBO", measure=model.measure)

    found = audit(continuous(4, 1, generator), Bits(4), method=elbo, generator=generator)
    assert math.isnan(found.departure)
    single = audit(continuous(4, 1, generator), Bits(4), method=partial(importance, draws=1), generator=generator)
    assert math.isnan(single.departure)


def test_it_prints_what_it_found(generator: Generator) -> None:
    found = replace(audit(one_hot(2, 2, generator), Bits(2)), seconds=0.0)
    assert repr(found) == (
        "total = 1, 1 in expectation if unbiased: +0.0 errors off (exact, exact sum over 2 latent values, 4 points, "
        "4 claims, 0.0 s)"
    )


def test_what_cannot_be_added_up_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="Lebesgue measure, over a tensor of points; use a Box"):
        audit(Gaussian(2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"counting measure, over Box.*sum over states"):
        audit(one_hot(1, 2, generator), Box((0.0,), (1.0,)))
    with pytest.raises(TypeError, match="expects a space"):
        audit(one_hot(1, 2, generator), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd number of nodes"):
        Box((0.0,), (1.0,), 10)
    with pytest.raises(ValueError, match="one or two features"):
        Box((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="lower below upper"):
        Box((1.0,), (0.0,))
    with pytest.raises(ValueError, match="at most 24"):
        Bits(25)
