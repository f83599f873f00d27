"""What `em_as_elbo` measures: EM half step by half step, and beside gradient ascent and the closed form."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor

from density import GaussianFamily, kl
from lvm import EM, PPCA, GaussianMixture, Present
from lvm.ppca.model import EMSolver
from studies.em_as_elbo.settings import MIXTURES, Key, Method, Problem, Settings
from studies.kit.compute import curve, gauss_hermite, place, seeded
from studies.kit.rows import Row
from studies.kit.study import Task

Model = GaussianMixture | PPCA
Climb = tuple[list[float], list[float]]  # after each pass: log p(x) and CPU seconds
MARKS = 60  # points of a curve that are kept
DIGITS = 12


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    """The columns of a row."""
    key = task.key
    if key.method == "half steps":
        return half_steps(settings, key.problem, key.seed)
    return race(settings, key.problem, key.method, key.seed)


def problem(settings: Settings, name: Problem, seed: int) -> tuple[Model, Tensor]:
    """Points ``[n, D]`` from a known model, and the same kind of model at a start that all methods share.

    A mixture of three round Gaussians in the plane, their centres 6 or 2.5 standard deviations apart; the start is the
    truth, disturbed, so that all methods climb the same hill. PPCA with three latents of variance 4, 2 and 1 in 20
    features, noise of variance 1 or 0.01; the start is random.
    """
    device, _ = place(settings)
    generator = seeded(torch.device("cpu"), seed, "data", name)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if name in MIXTURES:
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
    places, masses = gauss_hermite(encoder.features, 3, x)
    mean, scale = encoder.at(x)
    z = mean + scale.color(places.unsqueeze(1).expand(-1, len(x), -1))
    return (masses @ (model.log_joint(x, z) - encoder.log_prob(z, x))).mean()


@torch.no_grad()
def half_steps(settings: Settings, name: Problem, seed: int) -> Row:
    """The bound after every E-step and after every M-step, beside log p(x), nats per point."""
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
        "log_p": curve(log_p, DIGITS),
        "after_e": curve(after_e, DIGITS),
        "after_m": curve(after_m, DIGITS),
        "touching": float(np.abs(np.array(after_e) - before).max()),
        "raised": float((np.array(after_m) - np.array(after_e)).min()),
        "fallen": float((before - after).max()),
        "first_gap": log_p[1] - after_m[0],
        "gap_is_kl": float(np.abs(after - np.array(after_m) - np.array(divergence)).max()),
    }


def race(settings: Settings, name: Problem, method: Method, seed: int) -> Row:
    """log p(x) against passes over the data and CPU seconds, from the shared start."""
    model, x = problem(settings, name, seed)
    start = model.log_prob(x).mean().item()
    _warm_up(deepcopy(model), x, method)
    values, seconds = METHODS[method](settings, model, x)
    best = np.maximum.accumulate([start, *values])
    clock = np.array([0.0, *seconds])
    kept = sorted({0, *(round(mark) for mark in np.geomspace(1, len(values), MARKS))})
    return {
        "points": len(x),
        "passes": curve(kept, DIGITS),
        "values": curve(best[kept].tolist(), DIGITS),
        "clock": curve(clock[kept].tolist(), DIGITS),
        "best": float(best[-1]),
        "most_passes": len(values),
        "cpu_seconds": float(clock[-1]),
    }


def _em(settings: Settings, model: Model, x: Tensor, expanded: bool = False) -> Climb:
    if isinstance(model, GaussianMixture):
        em = EM(settings.passes, tolerance=0, regularisation=0.0, start=Present(), progress=False)
        return _evenly(lambda: model.fit(x, em=em).objective[1:])
    solver = EMSolver(max_iterations=settings.passes, tolerance=0.0, start=Present(), expanded=expanded)
    return _evenly(lambda: model.fit(x, solver=solver).objective[1:])


def _closed_form(settings: Settings, model: Model, x: Tensor) -> Climb:
    assert isinstance(model, PPCA)
    return _evenly(lambda: model.fit(x).objective)


def _evenly(fit: Callable[[], list[float]]) -> Climb:
    """Every pass costs the same: the time of all of them is shared out."""
    began = time.process_time()
    values = fit()
    return values, np.linspace(0, time.process_time() - began, len(values) + 1)[1:].tolist()


def _adam(settings: Settings, model: Model, x: Tensor) -> Climb:
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    return _ascend(model, x, optimiser, settings.passes)


def _lbfgs(settings: Settings, model: Model, x: Tensor) -> Climb:
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=settings.passes, max_eval=settings.passes, history_size=20,
        tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe",
    )  # fmt: skip
    return _ascend(model, x, optimiser, 1)


def _ascend(model: Model, x: Tensor, optimiser: torch.optim.Optimizer, steps: int) -> Climb:
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


METHODS: dict[Method, Callable[[Settings, Model, Tensor], Climb]] = {
    "EM": _em,
    "expanded EM": partial(_em, expanded=True),
    "Adam": _adam,
    "L-BFGS": _lbfgs,
    "closed form": _closed_form,
}


def _warm_up(model: Model, x: Tensor, method: Method) -> None:
    """First calls pay for libraries that wake up: a pass that nobody times."""
    if method in ("Adam", "L-BFGS"):
        model.log_prob(x).mean().backward()
    else:
        model.em_step(x)
