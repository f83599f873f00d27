"""Masses of grey levels: that they are masses, their digits far out, and what data they refuse."""

from __future__ import annotations

import re
from itertools import pairwise, product

import mpmath
import pytest
import torch
from torch import Tensor

from density import CategoricalLevels, DiscretisedLogistic, Independent

LOCATIONS = (0.0, -1.0, 0.37, 1.0, 3.0, -50.0, 1e4)
LOG_SCALES = (-60.0, -7.0, -1.0, 0.0, 3.0, 60.0)


def set_to(density: Independent, location: float, log_scale: float) -> None:
    """Every component's location moved, and raw log-scale set; components differ a little."""
    assert isinstance(density.likelihood, DiscretisedLogistic)
    count = density.likelihood.mixtures
    with torch.no_grad():
        density.raw.copy_(0.1 * torch.randn_like(density.raw))
        density.raw[-2 * count : -count] += location
        density.raw[-count:] += log_scale


def values(levels: int, dtype: torch.dtype) -> Tensor:
    return torch.arange(levels, dtype=dtype).unsqueeze(-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize(("levels", "mixtures"), [(2, 1), (17, 1), (17, 3), (256, 1), (256, 5)])
def test_masses_of_all_levels_are_one(levels: int, mixtures: int, dtype: torch.dtype, tolerance: float) -> None:
    """In the middle, beyond either end and at either bound of the scale; with all values and gradients finite.

    In float32 an edge in units of the least scale for which two levels share mass, 1/256, rounds at 2e-5, where the
    density is at most ¼.
    """
    density = Independent(1, DiscretisedLogistic(levels, mixtures)).to(dtype)
    for location, log_scale in product(LOCATIONS, LOG_SCALES):
        set_to(density, location, log_scale)
        log_mass = density.log_prob(values(levels, dtype))
        assert abs(log_mass.logsumexp(0).expm1().item()) < tolerance
        (gradient,) = torch.autograd.grad(log_mass.sum(), density.raw)
        assert log_mass.isfinite().all()
        assert gradient.isfinite().all()


def log_of_cell(low: mpmath.mpf, high: mpmath.mpf) -> float:
    """log(σ(high) − σ(low)), on the side where both are small."""
    if low > 0:
        low, high = -high, -low
    return float(mpmath.log(1 / (1 + mpmath.exp(-high)) - 1 / (1 + mpmath.exp(-low))))


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-13), (torch.float32, 1e-4)], ids=str)
def test_a_mass_keeps_its_digits_far_out(dtype: torch.dtype, digits: float) -> None:
    """Against 60 digits, where differences of two sigmoids have none left: relative to the log-mass itself.

    What is left is the rounding of the distance to an edge, relative to the distance of two.
    """
    density = Independent(1, DiscretisedLogistic(levels=16)).to(dtype)
    for location, log_scale in product((0.0, -0.9, 7.0, -40.0), (-5.0, -2.0, 1.0)):
        with torch.no_grad():
            density.raw[:, 0] = torch.tensor([location, log_scale])
        ours = density.log_prob(values(16, dtype)).double()
        with mpmath.workdps(60):
            mean, raw = (mpmath.mpf(value) for value in density.raw[:, 0].tolist())
            scale = mpmath.exp(7 * mpmath.tanh(raw / 7))
            edges = [((2 * x - mpmath.mpf(16)) / 15 - mean) / scale for x in range(17)]
            edges[0], edges[-1] = -mpmath.inf, mpmath.inf
            truth = [log_of_cell(low, high) for low, high in pairwise(edges)]
        torch.testing.assert_close(ours, torch.tensor(truth, dtype=torch.float64), rtol=digits, atol=digits)


def test_a_mixture_of_one_kind_is_the_kind() -> None:
    """Components with their spread taken back: K equal logistics are one."""
    one, three = Independent(1, DiscretisedLogistic(9)).double(), Independent(1, DiscretisedLogistic(9, 3)).double()
    with torch.no_grad():
        one.raw[:, 0] = torch.tensor([0.3, -0.5])
        three.raw[:3, 0] = torch.tensor([0.4, -2.0, 1.0])
        three.raw[3:6, 0] = 0.3 - torch.tensor([-2 / 3, 0.0, 2 / 3], dtype=torch.float64)
        three.raw[6:, 0] = -0.5
    x = values(9, torch.float64)
    # the bound of the scale is felt in the sixth digit, by both alike
    torch.testing.assert_close(one.log_prob(x), three.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.expectation(), three.expectation(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("likelihood", [DiscretisedLogistic(256), CategoricalLevels(256)], ids=lambda one: repr(one))
@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, 3.0001])
def test_refuses_what_is_no_level(likelihood: DiscretisedLogistic | CategoricalLevels, value: float) -> None:
    name = type(likelihood).__name__
    text = f"{name} expects the levels 0 ... 255, as these numbers; the value at [0, 1] is {value:.6g} (1 of 2 are "
    with pytest.raises(ValueError, match=re.escape(text) + r"outside\)\. Bring grey values in \[0, 1\] to levels, "):
        Independent(2, likelihood).check_support(torch.tensor([[255.0, value]]))


@pytest.mark.parametrize("make", [DiscretisedLogistic, CategoricalLevels])
def test_refuses_no_number_of_levels(make: type[DiscretisedLogistic | CategoricalLevels]) -> None:
    for levels in (1, 0, 2.5, True):
        with pytest.raises(ValueError, match=f"{make.__name__}: levels must be an int, 2 or more; got {levels}"):
            make(levels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DiscretisedLogistic: mixtures must be a positive int; got 0"):
        DiscretisedLogistic(4, 0)
