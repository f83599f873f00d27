"""EM where parameters stay what they are: to the bit, never down, and to the maximum over the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import TypeVar

import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, CheckpointMismatch, History
from lvm import EM, PPCA, EMSolver, GaussianMixture, StochasticEM
from lvm.mixture.covariance import Covariance, Diagonal, Full, Spherical, Tied
from lvm.ppca import ClosedForm, MissingEM

M = TypeVar("M", PPCA, GaussianMixture)
PPCA_PARTS = ("mean", "weight", "log_std")
MIXTURE_PARTS = ("logits", "means", "factor")
STRUCTURES: list[Covariance] = [Full(), Tied(), Diagonal(), Spherical()]
CENTRES = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 5.0]], dtype=torch.float64)


def some(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [chosen for size in (1, 2) for chosen in combinations(parts, size)]


def ppca(frozen: tuple[str, ...]) -> PPCA:
    """Random parameters, away from the maximum."""
    model, generator = PPCA(5, 2).double(), Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    for name in frozen:
        getattr(model.decoder, name).requires_grad_(False)
    return model


def mixture(frozen: tuple[str, ...], structure: Covariance) -> GaussianMixture:
    model, generator = GaussianMixture(2, 3, structure).double(), Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        model.decoder.means.mul_(0.6).add_(CENTRES)
    for name in frozen:
        getattr(model.prior if name == "logits" else model.decoder, name).requires_grad_(False)
    return model


def ppca_data(generator: Generator, n: int = 60) -> Tensor:
    return (
        torch.randn(n, 5, generator=generator, dtype=torch.float64)
        @ torch.diag(torch.tensor([3.0, 2, 1, 1, 0.5]).double())
        + 1
    )


def with_holes(x: Tensor, generator: Generator) -> Tensor:
    return torch.where(torch.rand(x.shape, generator=generator) < 0.2, torch.nan, x)


def check(model: M, fit: Callable[[M], History], value: Callable[[M], Tensor]) -> History:
    """Frozen ones stay to the bit; the objective never falls; the others have no gradient at the end."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = fit(model)
    for name, p in model.named_parameters():
        assert p.equal(before[name]) == (not p.requires_grad), name
    rises = torch.tensor(history.objective).double().diff()
    assert (rises >= -1e-12 * abs(history.objective[-1])).all(), rises.min()
    assert history.converged
    assert value(model).item() == pytest.approx(history.objective[-1], rel=1e-9)
    free = [p for p in model.parameters() if p.requires_grad]
    for gradient in torch.autograd.grad(value(model), free):
        assert gradient.abs().max() < 1e-5
    return history


@pytest.mark.parametrize("frozen", some(PPCA_PARTS), ids="+".join)
@pytest.mark.parametrize("n", [60, 4])
def test_ppca(frozen: tuple[str, ...], n: int, generator: Generator) -> None:
    """EM, expanded or not, and where there is one the closed form, which no other start of EM exceeds."""
    x = ppca_data(generator, n)
    if n == 4 and "log_std" not in frozen and "weight" not in frozen:
        x = x.index_fill(1, torch.tensor(0), 0.0) + 1e-2 * torch.eye(4, 5, dtype=torch.float64)
    reached = []
    for expanded in (True, False):
        solver = EMSolver(expanded=expanded, tolerance=1e-13, max_iterations=20_000)
        history = check(ppca(frozen), partial(PPCA.fit, x=x, solver=solver), lambda model: model.log_prob(x).mean())
        reached.append(history.objective[-1])
    assert reached[0] == pytest.approx(reached[1], abs=1e-7)
    model = ppca(frozen)
    if "weight" in frozen:
        with pytest.raises(ValueError, match="no closed form where W stays"):
            model.fit(x, solver=ClosedForm())
        return
    closed = check(model, lambda model: model.fit(x), lambda model: model.log_prob(x).mean()).objective[-1]
    assert closed == pytest.approx(reached[0], abs=1e-8)


@pytest.mark.parametrize("frozen", some(PPCA_PARTS), ids="+".join)
def test_ppca_of_incomplete_rows(frozen: tuple[str, ...], generator: Generator) -> None:
    x = with_holes(ppca_data(generator), generator)
    model = ppca(frozen)
    em = MissingEM(tolerance=1e-13, max_iterations=20_000)
    check(model, lambda model: model.observed.fit(x, em), lambda model: model.observed.log_prob(x).mean())
    complete, other = ppca_data(generator), ppca(frozen)
    history = other.observed.fit(complete, em)
    assert history.objective[-1] == pytest.approx(
        ppca(frozen).fit(complete, solver=EMSolver(tolerance=1e-13, max_iterations=20_000)).objective[-1], abs=1e-8
    )


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("frozen", some(MIXTURE_PARTS), ids="+".join)
def test_mixture(frozen: tuple[str, ...], structure: Covariance, generator: Generator) -> None:
    x = CENTRES.repeat(30, 1) + torch.randn(90, 2, generator=generator, dtype=torch.float64)
    em = EM(tolerance=1e-13, regularisation=0.0, max_iterations=20_000)
    model = mixture(frozen, structure)
    check(model, lambda model: model.fit(x, em=em, generator=generator), lambda model: model.log_prob(x).mean())
    holes = with_holes(x, generator)
    model = mixture(frozen, structure)
    observed = ~holes.isnan().all(1)
    check(
        model,
        lambda model: model.observed.fit(holes, em, generator=generator),
        lambda model: model.observed.log_prob(holes[observed]).mean(),
    )


def test_stochastic_em_keeps_what_is_frozen(generator: Generator) -> None:
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    model = mixture(("means",), Full())
    means, logits = model.means.detach().clone(), model.prior.logits.detach().clone()
    model.fit(x, em=StochasticEM(epochs=3, batch_size=50), generator=generator)
    assert model.means.equal(means)
    assert not model.prior.logits.equal(logits)


def test_what_is_frozen_is_part_of_the_fit(generator: Generator, tmp_path: object) -> None:
    x = ppca_data(generator)
    solver = EMSolver(checkpoint=Checkpoint(f"{tmp_path}/ppca.ckpt"))
    ppca(("log_std",)).fit(x, solver=solver)
    other = ppca(("log_std",))
    with torch.no_grad():
        other.decoder.log_std.add_(1)
    for model in (other, ppca(())):
        with pytest.raises(CheckpointMismatch, match="fixed is"):
            model.fit(x, solver=solver)
    for make in (lambda: ppca(PPCA_PARTS), lambda: mixture(MIXTURE_PARTS, Full())):
        with pytest.raises(ValueError, match="none of them has requires_grad"):
            make().fit(x if isinstance(make(), PPCA) else x[:, :2])
