"""PPCA by random vectors: its bounds against the eigenvalues and the maximum themselves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density.linalg import krylov
from density.linalg.krylov import bracketed
from lvm import PPCA, ClosedForm, Randomised
from tests.device import pretended as device
from tests.lvm.vae.linear_examples import covariance_of

N, D, Q = 150, 120, 3

SPECTRA: dict[str, Callable[[], Tensor]] = {  # of the standard deviations along D axes
    "some stand out": lambda: torch.cat([torch.tensor([9.0, 5.0, 4.0]), torch.full((D - Q,), 0.5)]),
    "a slow fall": lambda: torch.linspace(2, 0.1, D),
    "equal where they are cut": lambda: torch.cat([torch.tensor([5.0] + [3.0] * 9), torch.linspace(1, 0.1, D - 10)]),
    "all alike": lambda: torch.ones(D),
    "twelve orders": lambda: torch.logspace(0, -6, D),
}


def rows(spectrum: str) -> Tensor:
    generator = Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    noise = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return noise * SPECTRA[spectrum]().double() @ axes.mT


def stated(stopped: str) -> tuple[float, float]:
    """What the history says that log p and the variances may be too small by."""
    found = re.search(r"at most ([\d.e+-]+|inf) nats .* at most ([\d.e+-]+|inf) of themselves", stopped)
    assert found is not None, stopped
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("blocks", [2, 4])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_what_is_lost_is_at_most_what_is_stated(spectrum: str, blocks: int) -> None:
    x = rows(spectrum)
    best, values = PPCA(D, Q).fit(x).objective[0], torch.linalg.eigvalsh(x.mT.cov(correction=0)).flip(0)
    for seed in range(5):
        model = PPCA(D, Q).double()
        history = model.fit(x, Randomised(tolerance=1e-9, blocks=blocks, generator=Generator().manual_seed(seed)))
        assert history.objective[0] == pytest.approx(model.log_density(x).mean, rel=1e-10)  # that of these parameters
        lost, error = stated(history.stopped)
        # two digits are shown; rounding is 1e-13 of a log p of about 100, and of the largest variance
        assert -1e-9 <= best - history.objective[0] <= 1.06 * lost + 1e-9
        short = (values[:Q] - model.principal_axes.variances) / values[:Q]
        assert -1e-10 <= short.min().item() <= short.max().item() <= 1.06 * error + 1e-10
        assert history.converged == (lost <= 1e-9)


def test_it_ends_when_it_is_near_enough() -> None:
    x = rows("a slow fall")
    best = PPCA(D, Q).fit(x).objective[0]
    losses = []
    for tolerance in (10.0, 1e-2, 1e-6):
        history = PPCA(D, Q).fit(x, Randomised(tolerance, generator=Generator().manual_seed(0)))
        assert history.converged
        losses.append(best - history.objective[0])
        assert stated(history.stopped)[0] <= tolerance
    assert losses[0] > losses[1] > losses[2]


def test_the_closed_form_far_from_the_origin_with_weights_and_with_what_is_fixed() -> None:
    x = rows("some stand out")
    weights = torch.rand(N, generator=Generator().manual_seed(2), dtype=torch.float64) + 0.5
    for data, own in ((x + 1e6, None), (x, weights), (x.float(), None)):
        exact, quick = (PPCA(D, Q).to(data) for _ in range(2))
        exact.fit(data, weights=own)
        assert quick.fit(data, Randomised(1e-11, generator=Generator().manual_seed(0)), weights=own).converged
        tolerance = 1e-5  # what is lost in log p is the square of what axes are off by
        torch.testing.assert_close(covariance_of(quick), covariance_of(exact), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(quick.decoder.mean, exact.decoder.mean, rtol=tolerance, atol=tolerance)
    for name in ("mean", "log_std"):
        exact, quick = PPCA(D, Q).double(), PPCA(D, Q).double()
        quick.load_state_dict(exact.state_dict())
        for model, solver in ((exact, ClosedForm()), (quick, Randomised(1e-11, generator=Generator().manual_seed(0)))):
            getattr(model.decoder, name).requires_grad_(False)
            model.fit(x, solver)
        torch.testing.assert_close(covariance_of(quick), covariance_of(exact), rtol=1e-5, atol=1e-5)


def test_small_and_noiseless_data_have_the_closed_form(generator: Generator) -> None:
    small = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    assert PPCA(12, 2).fit(small, Randomised()).stopped == "closed form"
    assert PPCA(D, Q).fit([rows("all alike")], Randomised()).stopped == "closed form"
    thin = rows("all alike")[:, :Q] @ torch.randn(Q, D, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="no more than 3 axes"):
        PPCA(D, Q).fit(thin, Randomised())
    fixed = PPCA(D, Q)
    fixed.decoder.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="EMSolver"):
        fixed.fit(thin, Randomised())
    for wrong in ({"tolerance": -1.0}, {"tolerance": torch.inf}, {"blocks": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Randomised(**wrong)  # type: ignore[arg-type]


def test_an_axis_that_random_vectors_do_not_see_is_not_certified() -> None:
    """A basis that is blind to the largest axis: without the vectors that are drawn anew its bounds would be wrong."""
    x = torch.randn(200, 80, generator=Generator().manual_seed(0), dtype=torch.float64)
    x[:, 0] *= 100
    blind = torch.linalg.qr(torch.randn(79, 20, generator=Generator().manual_seed(1), dtype=torch.float64)).Q.mT
    basis = torch.nn.functional.pad(blind, (1, 0))
    largest = torch.linalg.eigvalsh(x.mT @ x)[-1].item()
    assert krylov._largest_outside(x, basis, 1.0, Generator().manual_seed(2)) > 0.999 * largest


def test_bounds_of_eigenvalues_are_infinite_where_nothing_is_known() -> None:
    x = torch.randn(100, 90, generator=Generator().manual_seed(0), dtype=torch.float64)
    found = bracketed(x, x.square().sum(), 4, lambda low, high: False, 1, Generator().manual_seed(0))
    assert found.upper.isinf().all()
    assert (found.lower <= torch.linalg.eigvalsh(x.mT @ x).flip(0)[:4]).all()


def test_on_a_device_it_is_the_same() -> None:
    x = rows("some stand out")

    def fit(at: Tensor, generator: Generator) -> tuple[Tensor, str]:
        model = PPCA(D, Q).double()
        history = model.fit(at, Randomised(generator=generator))
        return covariance_of(model.to("cpu")), history.stopped

    with device.pretended():
        here = fit(x, device.Generator("cpu").manual_seed(0))
        there = fit(x.to("cuda"), device.Generator("cuda").manual_seed(0))
    torch.testing.assert_close(there[0], here[0], rtol=1e-12, atol=1e-12)
    assert there[1] == here[1]
