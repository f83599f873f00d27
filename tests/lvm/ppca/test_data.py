"""PPCA on hostile data: the right answer or one clear error."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import lvm
from lvm import Present
from lvm.ppca import PPCA, ClosedForm, EMSolver, MissingEM, Solver
from tests.lvm.vae.linear_examples import data


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
@pytest.mark.parametrize("n", [100, 8])
def test_float32_fits_by_float64_statistics(solver: Solver, n: int, generator: Generator) -> None:
    x = data(n, 10, 2, generator).float()
    single, double = PPCA(10, 2).double(), PPCA(10, 2)
    single.fit(x, solver=solver)
    double.fit(x.double(), solver=solver)
    assert all(p.dtype == torch.float32 for p in single.parameters())
    assert single.log_prob(x).dtype == torch.float32
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.float())
    # Parameters rounded to ε = 1.2e-7, and sums of 10 terms of order 10.
    torch.testing.assert_close(single.log_prob(x).double(), double.log_prob(x.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
@pytest.mark.parametrize("n", [100, 8])
@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1.0), (-1e8, 1e3), (0.0, 1e-8), (0.0, 1e8), (1.0, 1e-8)])
def test_offsets_and_scales(shift: float, scale: float, n: int, solver: Solver, generator: Generator) -> None:
    x = data(n, 10, 2, generator)
    plain, moved = PPCA(10, 2), PPCA(10, 2)
    plain.fit(x, solver=solver)
    far = scale * x + shift
    moved.fit(far, solver=solver)
    # x rounds to ε |shift| / scale of its own size, and the noise has a σ of 0.5.
    rounding = torch.finfo(torch.float64).eps * abs(shift) / scale
    expected = plain.log_density(x).mean - 10 * math.log(scale)
    assert moved.log_density(far).mean == pytest.approx(expected, rel=1e-10, abs=100 * rounding)
    assert moved.noise_variance.item() == pytest.approx(
        plain.noise_variance.item() * scale**2, rel=1e-7 + 100 * rounding
    )


def test_float32_far_from_the_origin(generator: Generator) -> None:
    x = (1e4 * data(200, 6, 2, generator, noise=1.0) + 1e8).float()
    model, reference = PPCA(6, 2), PPCA(6, 2)
    model.fit(x)
    reference.fit(x.double())
    # μ rounds to 4 in units of σ ~ 1e4.
    assert model.log_density(x).mean == pytest.approx(reference.log_density(x.double()).mean, abs=1e-3)


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
@pytest.mark.parametrize("n", [100, 6])
def test_constant_columns_are_fine(n: int, solver: Solver, generator: Generator) -> None:
    x = data(n, 8, 2, generator)
    x[:, 3], x[:, 5] = 0.1, 1e8
    model = PPCA(8, 2)
    model.fit(x, solver=solver)
    assert math.isfinite(model.log_density(x).mean)
    assert model.decoder.weight[3].abs().max() < 1e-6
    rest = np.delete(np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)), [-1, -2])
    assert model.noise_variance.item() == pytest.approx(rest.sum() / 6, rel=1e-4)


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
def test_constant_columns_do_not_count_as_rounding(solver: Solver, generator: Generator) -> None:
    x = data(100, 8, 2, generator).float()
    x[:, 5] = 1e8  # in float32 a varying column of this size would be uncertain by 8
    model, reference = PPCA(8, 2), PPCA(8, 2)
    model.fit(x, solver=solver)
    reference.fit(torch.cat([x[:, :5], 0 * x[:, :1], x[:, 6:]], 1), solver=solver)
    assert model.noise_variance.item() == pytest.approx(reference.noise_variance.item(), rel=1e-5)
    assert model.decoder.mean[5] == 1e8


@pytest.mark.parametrize("n", [100, 6])
def test_a_large_constant_column_beside_tiny_ones(n: int, generator: Generator) -> None:
    x = 1e-8 * (data(n, 8, 2, generator) - 3)
    x[:, 5] = 0
    reference = PPCA(8, 2)
    reference.fit(x)
    x[:, 5] = 1e8 + 0.1  # the mean of equal rows need not be exact; the way that it is computed must make it so
    model = PPCA(8, 2)
    model.fit(x)
    assert model.noise_variance.item() == pytest.approx(reference.noise_variance.item(), rel=1e-6)


def low_rank(n: int, dtype: torch.dtype) -> Tensor:
    generator = Generator().manual_seed(0)
    z = torch.randn(n, 2, generator=generator, dtype=dtype)
    return z @ torch.randn(2, 6, generator=generator, dtype=dtype) + 5


SINGULAR = {
    "one row": torch.ones(1, 6),
    "two rows": torch.randn(2, 6, generator=Generator().manual_seed(0)),
    "as many rows as axes and one": torch.randn(3, 6, generator=Generator().manual_seed(0), dtype=torch.float64),
    "all rows equal": torch.full((50, 6), 0.1),
    "all rows equal, few": torch.full((4, 6), 0.1, dtype=torch.float64),
    "all rows equal, far from the origin": torch.full((50, 6), 1e8 + 0.1, dtype=torch.float64),
    "low rank": low_rank(50, torch.float64),
    "low rank, float32": low_rank(50, torch.float32),
    "low rank, few rows": low_rank(5, torch.float64),
    "low rank, far from the origin": low_rank(50, torch.float64) + 1e8,
}


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()], ids=["closed form", "EM"])
@pytest.mark.parametrize("name", SINGULAR)
def test_data_without_noise_is_one_clear_error(name: str, solver: Solver) -> None:
    x = SINGULAR[name]
    model = PPCA(6, 2)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"varies along no more than 2 axes .* likelihood has no maximum"):
        model.fit(x, solver=solver)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_faint_noise_is_still_resolved(generator: Generator) -> None:
    # σ²/λ₁ = 1e-18 is beyond an eigendecomposition of the covariance, but not beyond the rows themselves.
    noise = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    x = 1e-9 * noise
    x[:, 0] = torch.randn(300, generator=generator, dtype=torch.float64)
    model = PPCA(4, 1)
    model.fit(x)
    assert model.noise_variance.item() == pytest.approx(1e-18, rel=0.2)


BAD_DATA = {
    "not a tensor": ([[1.0, 2.0, 3.0]], TypeError, "torch.Tensor"),
    "integers": (torch.ones(5, 3, dtype=torch.int64), TypeError, "floating point"),
    "wrong feature count": (torch.ones(5, 4), ValueError, r"\[\*batch, 3\]; got \[5, 4\]"),
    "one dimension": (torch.ones(3), ValueError, r"\[n, 3\]; got \[3\]"),
    "empty": (torch.ones(0, 3), ValueError, "at least one row"),
    "nan": (torch.tensor([[1.0, 2.0, torch.nan]]), ValueError, "row 0, column 2 is nan"),
    "infinite": (torch.tensor([[1.0, 2.0, torch.inf]]), ValueError, "row 0, column 2 is inf"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name: str) -> None:
    x, error, message = BAD_DATA[name]
    for use in (PPCA(3, 1).fit, PPCA(3, 1).em_step, PPCA(3, 1).log_density):
        with pytest.raises(error, match=message):
            use(x)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("features", "latent_features", "message"),
    [(3, 0, "positive int"), (3, 3, "fewer latent features"), (3, 4, "fewer latent features"), (0, 1, "positive int")],
)
def test_bad_sizes(features: int, latent_features: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPCA(features, latent_features)


def test_a_mixtures_settings_are_no_solver() -> None:
    with pytest.raises(TypeError, match=r"expects lvm.ClosedForm\(\) or lvm.EMSolver\(\)"):
        PPCA(3, 1).fit(torch.randn(9, 3), solver=lvm.EM())  # type: ignore[arg-type]


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="max_iterations must be a positive int"):
        EMSolver(max_iterations=0)
    with pytest.raises(ValueError, match="tolerance must be finite and at least 0"):
        EMSolver(tolerance=-1.0)
    with pytest.raises(ValueError, match="tolerance must be finite and at least 0"):
        EMSolver(tolerance=math.nan)


@pytest.mark.parametrize("settings", [EMSolver, MissingEM])
def test_former_settings_are_refused_with_the_present_ones(settings: type) -> None:
    with pytest.raises(TypeError, match=rf"^{settings.__name__} takes start=RandomWeight\(seed\) instead of seed"):
        settings(seed=1)
    with pytest.raises(TypeError, match=rf"^{settings.__name__} takes start=Present\(\) instead of warm_start"):
        settings(warm_start=True)
    with pytest.raises(TypeError, match=r"start must be RandomWeight\(\) or Present\(\); got 3"):
        settings(start=3)
    with pytest.raises(ValueError, match="Present starts alike every time"):
        settings(start=Present(), restarts=2)


def test_restarts_are_never_worse(generator: Generator) -> None:
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    x[torch.rand(x.shape, generator=generator) < 0.4] = torch.nan
    ends = [
        PPCA(6, 2).observed.fit(x, MissingEM(max_iterations=50, restarts=restarts)).objective[-1]
        for restarts in (1, 2, 4)
    ]
    assert ends == sorted(ends)
    assert ends[2] > ends[0]
