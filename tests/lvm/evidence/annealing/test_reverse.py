"""Reverse annealing from approximate posterior draws: where it is right, where it is not, and that it says so."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Generator

from density import Kind
from lvm import PPCA, VAE
from lvm.evidence import FromEncoder, annealed, reverse_annealed
from lvm.evidence.annealing.chains import Annealing, Budget, _systematic
from lvm.evidence.annealing.pilot import Pilot
from lvm.evidence.annealing.schedules import Linear
from tests.laws.transforms import randomise
from tests.lvm.evidence.annealing import calibration
from tests.lvm.evidence.annealing.calibration import CASES, HEADER, PAGE, folded, linear

QUICK = Pilot(chains=4, transitions=2, temperatures=12)


def test_from_the_posterior_itself_it_is_log_p(generator: Generator) -> None:
    """PPCA's encoder is the posterior: every weight is 1/p(x), whatever the schedule and the transitions."""
    model = randomise(PPCA(5, 2).double(), generator, 0.7)
    x = model.sample(7, generator=generator).detach()
    claim = reverse_annealed(model, x, steps=3, transitions=2, chains=4, pilot=QUICK, generator=generator)
    assert (claim.value - model.log_prob(x).detach()).abs().max() < 1e-10
    assert claim.kind is Kind.ESTIMATE
    assert claim.method.startswith(
        "reverse annealing of approximate posterior draws, from above only if they were exact: annealed, resampled, "
        "2 transitions on, encoder start"
    )
    assert (claim - annealed(model, x, steps=3, chains=4, generator=generator)).kind is Kind.ESTIMATE


def test_draws_are_nearly_those_of_the_posterior(generator: Generator) -> None:
    model, x, _ = linear(generator)
    budget = Budget(20, 400, FromEncoder(), Linear(), 3, QUICK)
    run = Annealing(model, x[:3], budget, generator=generator)
    z = run.posterior(30, generator)
    decoder = model.decoder
    precision = torch.eye(8, dtype=torch.float64) + decoder.weight.mT @ (decoder.weight / (2 * decoder.log_std).exp())
    covariance = precision.inverse().detach()
    mean = (x[:3] - decoder.mean) / (2 * decoder.log_std).exp() @ decoder.weight @ covariance
    std = covariance.diagonal().sqrt()
    assert ((z.mean(0) - mean).abs() < 5 * std / math.sqrt(400)).all()
    for row in range(3):
        assert ((z[:, row].mT.cov() - covariance).abs() < 5 * std * std[:, None] * math.sqrt(2 / 400)).all()


def test_long_chains_are_above_in_the_mean_and_near(generator: Generator) -> None:
    model, x, truth = linear(generator)
    claim = reverse_annealed(model, x, steps=30, transitions=10, chains=8, pilot=QUICK, generator=generator)
    off = claim.value - truth
    assert claim.monte_carlo_error is not None
    assert off.mean() > -3 * off.std() / math.sqrt(len(x))
    assert off.mean() < 0.2
    assert (off > -5 * claim.monte_carlo_error - 0.05).all()


def test_a_mode_that_nothing_has_seen_is_missing(generator: Generator) -> None:
    """Half of p(x) and no sign of it: why this is no upper bound."""
    model, x, truth = folded(generator)
    claim = reverse_annealed(model, x, steps=20, transitions=5, pilot=QUICK, generator=generator)
    off = claim.value - truth
    assert abs(off.mean() + math.log(2)) < 0.1
    assert (off < 0).double().mean() > 0.9
    assert claim.kind is Kind.ESTIMATE


def test_systematic_resampling_keeps_shares(generator: Generator) -> None:
    shares = torch.rand(8, 50, generator=generator, dtype=torch.float64).square().softmax(0)
    shares[:, 0] = torch.eye(8, dtype=torch.float64)[3]
    index = _systematic(shares, generator)
    counts = torch.stack([(index == place).sum(0) for place in range(8)])
    assert (counts - 8 * shares).abs().max() < 1
    assert (counts[:, 0] == 8 * shares[:, 0]).all()


def test_bad_settings() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="transitions"):
        reverse_annealed(VAE.gaussian(3, 1, hidden=(4,)), x, transitions=-1)


def test_the_page_has_every_row() -> None:
    table = PAGE.read_text().split("\n".join(HEADER))[1].split("\n\n")[0].strip().splitlines()
    assert [re.findall(r"[^|]+", line)[0].strip() for line in table] == [
        case for case in CASES for _ in calibration.LENGTHS
    ]


@pytest.mark.slow
def test_the_page_says_what_is_measured() -> None:
    """Other draws of other processors and versions may differ by what a share of 40 points and chains scatter."""
    table = PAGE.read_text().split("\n".join(HEADER))[1].split("\n\n")[0].strip().splitlines()
    written = {(case, int(steps), int(more)): float(mean) for case, steps, more, _, _, mean, *_ in map(_cells, table)}
    for case in CASES:
        for row in calibration.rows(case, ((100, 100),), seed=1):
            assert abs(row.mean - written[case, row.steps, row.transitions]) < 0.1
            assert row.below < 0.9 or case == "one of two modes known"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
