"""What measuring parts share: rows in other units with the density they have there, seeds that change nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from flows import MaskedLinear
from studies.kit.compute import (
    Standardised,
    adamw,
    gauss_hermite,
    parameter_count,
    place,
    save_arrays,
    seeded,
    seeded_start,
    standard_error,
)
from studies.kit.errors import InputError
from studies.kit.settings import CommonSettings

SETTINGS = CommonSettings(dtype="float64", threads=torch.get_num_threads())


def test_log_p_of_standardised_rows_and_their_scale_is_log_p_in_the_units_of_the_data() -> None:
    generator = np.random.default_rng(0)
    train, test = (generator.normal(3.0, [1.0, 50.0], (200, 2)) for _ in range(2))
    rows = Standardised.of(SETTINGS, train, test, log_scale=0.25)
    np.testing.assert_allclose(rows.train.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(rows.train.std(0, correction=0), 1, rtol=1e-12)
    np.testing.assert_allclose(rows.test * rows.std + rows.mean, test, rtol=1e-12)
    mean, std = train.mean(0), train.std(0)
    expected = multivariate_normal(mean, np.diag(std**2)).logpdf(test).mean() + 0.25
    ours = torch.distributions.Normal(torch.zeros(2).double(), 1.0).log_prob(rows.test).sum(1).mean()
    assert ours.item() + rows.log_scale == pytest.approx(expected, abs=1e-12)


def test_standardised_rows_are_where_the_settings_say_and_double_when_asked() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    single = Standardised.of(CommonSettings(threads=torch.get_num_threads()), rows, rows)
    assert single.train.dtype == torch.float32
    assert single.double().train.dtype == single.double().test.dtype == torch.float64
    assert single.double().log_scale == single.log_scale


def test_purposes_have_random_numbers_of_their_own_and_starts_leave_the_global_ones_alone() -> None:
    cpu = torch.device("cpu")
    one, again, other = (torch.rand(3, generator=seeded(cpu, 0, word)) for word in ("fit", "fit", "draws"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    before = torch.get_rng_state()
    with seeded_start(0, "start"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with seeded_start(0, "start"):
        assert torch.equal(torch.rand(3), first)


def test_the_error_of_a_mean_falls_as_the_root_of_their_number() -> None:
    assert standard_error(torch.tensor([1.0, 3.0])) == pytest.approx(1.0)
    assert standard_error(torch.tensor([1.0, 3.0] * 50)) == pytest.approx(0.1, rel=0.01)


def test_masked_weights_are_no_parameters() -> None:
    layer = MaskedLinear(torch.tensor([[True, False], [True, True], [False, False]]))
    assert parameter_count(nn.Sequential(layer, nn.Linear(3, 1))) == 3 + 3 + 4


def test_decay_is_of_the_weights_and_not_of_the_gradient() -> None:
    weight = nn.Parameter(torch.full((2,), 4.0))
    optimiser = adamw(0.5)([weight], 0.1)
    weight.grad = torch.tensor([0.0, 1.0])
    optimiser.step()  # by learning rate × decay × weight; where there is a gradient, by the learning rate beside
    torch.testing.assert_close(weight.detach(), torch.tensor([3.8, 3.7]))


def test_gauss_hermite_rules_integrate_polynomials() -> None:
    places, masses = gauss_hermite(3, 5, torch.zeros(1, dtype=torch.float64))
    assert places.shape == (125, 3)
    assert masses @ places[:, 0].pow(8) == pytest.approx(105, rel=1e-12)  # 7!!
    assert masses @ (places[:, 0] * places[:, 1]).square() == pytest.approx(1, rel=1e-12)
    assert gauss_hermite(1, 3, torch.zeros(1))[0].dtype == torch.float32


def test_arrays_are_read_back(tmp_path: Path) -> None:
    save_arrays(tmp_path / "new" / "a.npz", one=np.arange(3), two=[1.5])
    with np.load(tmp_path / "new" / "a.npz") as file:
        assert file["one"].tolist() == [0, 1, 2]
        assert file["two"].tolist() == [1.5]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="--device warp:3 cannot be used here"):
        place(CommonSettings(device="warp:3", threads=torch.get_num_threads()))
