"""Run EM half step by half step, and against gradient ascent and the closed form from the same start."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from density import GaussianFamily, kl
from lvm import EM, PPCA, GaussianMixture, Present
from lvm.mixture.starts import Given
from lvm.ppca.model import EMSolver
from studies.kit.compute import usable_device
from studies.kit.rows import Row
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.em_as_elbo import Method, Problem, Settings

Model = GaussianMixture | PPCA
MARKS = 60  # points of a curve that are kept


def problem(settings: Settings, name: Problem, seed: int) -> tuple[Model, Tensor]:
    """Points ``[n, D]`` from a known model, and the same kind of model at a start that all methods share.

    A mixture of three round Gaussians in the plane, their centres 6 or 2.5 standard deviations apart; the start is the
    truth, disturbed, so that all methods climb the same hill. PPCA with three latents of variance 4, 2 and 1 in 20
    features, noise of variance 1 or 0.01; the start is random.
    """
    generator = Generator().manual_seed(derived_seed(seed, "data", name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    device = usable_device(settings.device)
    if name in ("separated", "overlapping"):
        radius = (6.0 if name == "separated" else 2.5) / 3**0.5
        angle = 2 * torch.pi * torch.arange(3, dtype=torch.float64) / 3
        centres = radius * torch.stack([angle.cos(), angle.sin()], 1)
        x = centres[torch.randint(3, (settings.rows,), generator=generator)] + normal(settings.rows, 2)
        start = centres + 0.5 * normal(3, 2)
        identity = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
        mixture = GaussianMixture.from_parameters(torch.full((3,), 1 / 3, dtype=torch.float64), start, identity)
        return mixture.to(device), x.to(device)
    noise = 1.0 if name == "noisy" else 0.1
    axes = torch.linalg.qr(normal(20, 3)).Q * torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64).sqrt()
    x = normal(settings.rows, 3) @ axes.mT + noise * normal(settings.rows, 20)
    ppca = PPCA(20, 3).double()
    with torch.no_grad():
        ppca.decoder.weight.copy_(0.5 * normal(20, 3))
        ppca.decoder.mean.copy_(x.mean(0))
    return ppca.to(device), x.to(device)


@torch.no_grad()
def bound(model: Model, q: Model, x: Tensor) -> Tensor:
    """The mean ELBO of a model with the posterior of another one, nats per point, without sampling.

    E_q log p(x, z) − E_q log q(z|x): over components by enumeration; over Gaussian latents by a Gauss-Hermite rule of
    three nodes an axis, which is exact since the log-weight is quadratic in z.
    """
    encoder = q.encoder
    if isinstance(model, GaussianMixture):
        z = model.prior.enumerate().unsqueeze(1)
        log_q = encoder.log_prob(z.expand(-1, len(x), -1), x)
        return (log_q.exp() * (model.log_joint(x, z) - log_q)).sum(0).mean()
    assert isinstance(encoder, GaussianFamily)
    nodes, masses = (torch.from_numpy(part).to(x) for part in np.polynomial.hermite_e.hermegauss(3))
    size = encoder.features
    places = torch.cartesian_prod(*[nodes] * size).reshape(-1, 1, size)
    weights = torch.cartesian_prod(*[masses / masses.sum()] * size).reshape(-1, size).prod(1)
    mean, scale = encoder.at(x)
    z = mean + scale.color(places.expand(-1, len(x), -1))
    return (weights @ (model.log_joint(x, z) - encoder.log_prob(z, x))).mean()


@torch.no_grad()
def half_steps(settings: Settings, name: Problem, seed: int) -> Row:
    """The bound after every E-step and after every M-step, beside log p(x), nats per point."""
    torch.set_num_threads(settings.threads)
    model, x = problem(settings, name, seed)
    log_p, after_e, after_m, divergence = [model.log_prob(x).mean().item()], [], [], []
    for _ in range(settings.half_steps):
        old = deepcopy(model)
        after_e.append(bound(model, old, x).item())
        model.em_step(x)
        after_m.append(bound(model, old, x).item())
        lost = kl(old.encoder, model.encoder, x)
        assert lost is not None
        divergence.append(lost.mean().item())
        log_p.append(model.log_prob(x).mean().item())
    before, after = np.array(log_p[:-1]), np.array(log_p[1:])
    return {
        "points": len(x),
        "log_p": _series(log_p),
        "after_e": _series(after_e),
        "after_m": _series(after_m),
        "touching": float(np.abs(np.array(after_e) - before).max()),
        "raised": float((np.array(after_m) - np.array(after_e)).min()),
        "fallen": float((before - after).max()),
        "first_gap": log_p[1] - after_m[0],
        "gap_is_kl": float(np.abs(after - np.array(after_m) - np.array(divergence)).max()),
    }


def race(settings: Settings, name: Problem, method: Method, seed: int) -> Row:
    """log p(x) against passes over the data and CPU seconds, from the shared start."""
    torch.set_num_threads(settings.threads)
    model, x = problem(settings, name, seed)
    start = model.log_prob(x).mean().item()
    _warm_up(settings, name, method, seed)
    runs = {"EM": _em, "Adam": _adam, "L-BFGS": _lbfgs, "closed form": _closed_form, "expanded EM": _expanded_em}
    values, seconds = runs[method](settings, model, x)
    best = np.maximum.accumulate([start, *values])
    clock = np.concatenate([[0.0], seconds])
    kept = sorted({0, *(round(mark) for mark in np.geomspace(1, len(values), MARKS))})
    return {
        "points": len(x),
        "passes": _series(kept),
        "values": _series([float(best[k]) for k in kept]),
        "clock": _series([float(clock[k]) for k in kept]),
        "best": float(best[-1]),
        "most_passes": len(values),
        "cpu_seconds": float(clock[-1]),
    }


Curve = tuple[list[float], list[float]]  # after each pass: log p(x) and CPU seconds


def _em(settings: Settings, model: Model, x: Tensor) -> Curve:
    began = time.process_time()
    if isinstance(model, GaussianMixture):
        start = Given(model.means.detach(), model.weights.detach(), model.covariances.detach())
        em = EM(settings.passes, tolerance=0, regularisation=0.0, start=start, progress=False)
        values = model.fit(x, em=em).objective[1:]
    else:
        values = _ppca_em(settings, model, x, expanded=False)
    return values, _evenly(began, len(values))


def _expanded_em(settings: Settings, model: Model, x: Tensor) -> Curve:
    assert isinstance(model, PPCA)
    began = time.process_time()
    values = _ppca_em(settings, model, x, expanded=True)
    return values, _evenly(began, len(values))


def _ppca_em(settings: Settings, model: PPCA, x: Tensor, expanded: bool) -> list[float]:
    solver = EMSolver(max_iterations=settings.passes, tolerance=0.0, start=Present(), expanded=expanded)
    return model.fit(x, solver=solver).objective[1:]


def _closed_form(settings: Settings, model: Model, x: Tensor) -> Curve:
    assert isinstance(model, PPCA)
    began = time.process_time()
    return model.fit(x).objective, _evenly(began, 1)


def _evenly(began: float, passes: int) -> list[float]:
    """Every pass costs the same: the time since then, shared out."""
    return np.linspace(0, time.process_time() - began, passes + 1)[1:].tolist()


def _adam(settings: Settings, model: Model, x: Tensor) -> Curve:
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    return _ascend(model, x, optimiser, settings.passes)


def _lbfgs(settings: Settings, model: Model, x: Tensor) -> Curve:
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=settings.passes, max_eval=settings.passes, history_size=20,
        tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe",
    )  # fmt: skip
    return _ascend(model, x, optimiser, 1)


def _ascend(model: Model, x: Tensor, optimiser: torch.optim.Optimizer, steps: int) -> Curve:
    """Every evaluation of value and gradient is a pass over the data."""
    values: list[float] = []
    seconds: list[float] = []
    began = time.process_time()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -model.log_prob(x).mean()
        loss.backward()
        values.append(-loss.item())
        seconds.append(time.process_time() - began)
        return loss

    for _ in range(steps):
        optimiser.step(closure)  # type: ignore[arg-type]  # a closure that returns the loss as a tensor
    return values, seconds


def _warm_up(settings: Settings, name: Problem, method: Method, seed: int) -> None:
    """First calls pay for libraries that wake up: a pass or two that nobody times."""
    model, x = problem(settings, name, seed)
    objective: Callable[[], Tensor] = lambda: model.log_prob(x).mean()  # noqa: E731
    if method in ("Adam", "L-BFGS"):
        objective().backward()
    else:
        model.em_step(x)


def _series(numbers: list[int] | list[float]) -> str:
    return " ".join(f"{number:.12g}" for number in numbers)
