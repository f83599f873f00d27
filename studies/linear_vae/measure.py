"""What `linear_vae` measures: the optimum, training paths, columns at fixed noise, and rotations of the latent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor

from density import Training, constant, lbfgs
from density.linalg.moments import Moments
from lvm import PPCA, LinearVAE, Present
from studies.data.load import Dataset
from studies.kit.compute import place, seeded, standard_error
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.linear_vae.settings import PATHS, Key, Part, Settings

CLEAR = 0.05  # relative distance of an eigenvalue from its neighbours, below which its axis is hardly determined
COLLAPSE_ROUNDS = 60
DEAD = 1e-3  # a column whose norm² is below this share of the largest eigenvalue counts as collapsed
LBFGS = Training(
    epochs=200, batch_size=None, learning_rate=1.0, optimiser=lbfgs, schedule=constant, clip=None, validation=0.0,
    patience=None, progress=False,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """Training rows ``[n, D]`` in units of their overall spread, and what a linear VAE of them is to become.

    That is PPCA with its principal axes, the columns of ``axes``, and their eigenvalues, ``spectrum``, falling.
    """

    settings: Settings
    x: Tensor
    log_scale: float
    ppca: PPCA
    axes: Tensor
    spectrum: Tensor
    seed: int

    @property
    def best(self) -> float:
        """Mean log p(x) of PPCA, in units of the fit."""
        return _mean(self.ppca.log_prob(self.x))

    def fresh(self, purpose: str) -> LinearVAE:
        """A linear VAE at its start, the same on every device."""
        start = seeded(torch.device("cpu"), self.seed, "linear_vae", "start", purpose)
        return LinearVAE(self.x.shape[1], self.settings.latents, generator=start).to(self.x)

    def generator(self, *purpose: str) -> Generator:
        """Random numbers for one purpose."""
        return seeded(self.x.device, self.seed, "linear_vae", *purpose)


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    return part_of(settings, task.data, task.key.seed, task.key.part)[task.key.index]


@lru_cache(maxsize=1)  # for all rows of a part
def part_of(settings: Settings, data: Dataset, seed: int, part: Part) -> list[Row]:
    """The rows of one part."""
    computed = {"optimum": optimum, "path": paths, "collapse": collapse, "rotation": rotations}[part]
    return computed(prepared(settings, data, seed))


@lru_cache(maxsize=1)  # for all parts of a seed
def prepared(settings: Settings, data: Dataset, seed: int) -> Target:
    """Centre and scale the rows as a whole (which changes neither axes nor gaps), and solve PPCA."""
    device, dtype = place(settings)
    settings = replace(settings, latents=settings.latents_of(data))
    y = torch.as_tensor(data.train, dtype=torch.float64)
    scale = y.var(0).mean().sqrt()
    x = ((y - y.mean(0)) / scale).to(device, dtype)
    ppca = PPCA(x.shape[1], settings.latents)
    ppca.fit(x)
    spectrum, axes = torch.linalg.eigh(Moments.of(x).covariance)
    log_scale = data.log_scale - x.shape[1] * math.log(scale.item())
    return Target(settings, x, log_scale, ppca, axes.flip(1), spectrum.flip(0), seed)


def optimum(target: Target) -> list[Row]:
    """Full-batch L-BFGS on the ELBO in closed form."""
    model = target.fresh("optimum")
    model.fit(target.x, replace(LBFGS, epochs=target.settings.rounds), generator=target.generator("optimum"))
    return [{"ppca": target.best + target.log_scale, **described(model, target)}]


def paths(target: Target) -> list[Row]:
    """Full-batch Adam, on the ELBO in closed form and on its estimate from one draw; a row at each of some steps."""
    steps, last = target.settings.steps, target.settings.checkpoints - 1
    marks = [round(steps ** (index / last)) for index in range(last + 1)]
    rows: list[Row] = []
    for kind, label in PATHS.items():
        model, draws = target.fresh("path"), target.generator("draws")
        optimiser = torch.optim.Adam(model.parameters(), lr=target.settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        reached: dict[int, Row] = {}
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            elbo = model.elbo_closed_form(target.x) if kind == "closed form" else model.elbo(target.x, generator=draws)
            (-elbo.mean()).backward()
            optimiser.step()
            schedule.step()
            if step in marks:
                reached[step] = {"label": label, "step": step, **described(model, target)}
        rows += [reached[mark] for mark in marks]  # early marks round to the same step, which is then told twice
    return rows


def collapse(target: Target) -> list[Row]:
    """Fits at fixed σ²: columns of W live where their eigenvalue exceeds it. σ² lies between eigenvalues, in ratio."""
    q, noises, spectrum = target.settings.latents, target.settings.noises, target.spectrum
    top = spectrum[: q + 1].clamp_min(spectrum[0] * 1e-6)
    low, high = math.log(top[-1].item()), math.log(top[0].item() * 1.3)
    training = replace(LBFGS, epochs=COLLAPSE_ROUNDS)
    rows: list[Row] = []
    for index in range(noises):
        noise = apart(math.exp(low + (high - low) * (index + 0.5) / noises), spectrum)
        model = target.fresh("collapse")
        with torch.no_grad():
            model.decoder.log_std.fill_(0.5 * math.log(noise))
        model.decoder.log_std.requires_grad_(False)
        model.set_optimal_encoder()
        model.fit(target.x, training, start=Present(), generator=target.generator("collapse"))
        norms = model.decoder.weight.detach().double().square().sum(0).sort(descending=True).values
        expected = (spectrum[:q] - noise).clamp_min(0)
        rows.append(
            {
                "noise_variance": noise,
                "active": int((norms > DEAD * spectrum[0]).sum()),
                "expected_active": int((expected > DEAD * spectrum[0]).sum()),
                "norm_error": ((norms - expected).abs().max() / spectrum[0]).item(),
                "spectrum": " ".join(f"{value:.6g}" for value in spectrum[:q].tolist()),
            }
        )
    return rows


def rotations(target: Target) -> list[Row]:
    """PPCA's W with first and last latent rotated into each other: the same log p(x), another ELBO."""
    angles, optimal = target.settings.angles, target.ppca.decoder
    rows: list[Row] = []
    for index in range(angles):
        angle = math.pi / 4 * index / (angles - 1)
        model = target.fresh("rotation")
        with torch.no_grad():
            weight = optimal.weight.clone()
            weight[:, 0] = math.cos(angle) * optimal.weight[:, 0] + math.sin(angle) * optimal.weight[:, -1]
            weight[:, -1] = math.cos(angle) * optimal.weight[:, -1] - math.sin(angle) * optimal.weight[:, 0]
            model.decoder.weight.copy_(weight)
            model.decoder.mean.copy_(optimal.mean)
            model.decoder.log_std.copy_(optimal.log_std)
        model.set_optimal_encoder()
        with torch.no_grad():
            log_p = model.log_prob(target.x)
            draws = target.generator("rotation", str(index))
            gaps = log_p - model.log_weights(target.x, target.settings.draws, generator=draws).mean(0)
        rows.append(
            {
                "degrees": math.degrees(angle),
                "formula": model.closed_form_gap().item(),
                "gap": _mean(gaps),
                "gap_error": standard_error(gaps),  # over points: the draws of each average away
                "log_p_change": abs(_mean(log_p) - target.best),
            }
        )
    return rows


def described(model: LinearVAE, target: Target) -> Row:
    """log p(x), ELBO, and angles between W and the principal axes."""
    with torch.no_grad():
        log_p, elbo = _mean(model.log_prob(target.x)), _mean(model.elbo_closed_form(target.x))
        weight = model.decoder.weight.double()
        basis, _ = torch.linalg.qr(weight)
        cosines = torch.linalg.svdvals(target.axes[:, : weight.shape[1]].mT @ basis)
        columns, nearest = ((target.axes.mT @ weight).abs() / weight.norm(dim=0)).max(0)
        known = columns[clear(target.spectrum)[nearest]]
        ratio = (model.decoder.noise_variance.double() / target.ppca.noise_variance.double()).item()
    return {
        "log_p": log_p + target.log_scale,
        "elbo": elbo + target.log_scale,
        "elbo_shortfall": target.best - elbo,
        "span_angle": _degrees(cosines.min()),
        "axis_angle": _degrees(columns.min()),
        "clear_axis_angle": _degrees(known.min()) if len(known) else math.nan,
        "noise_ratio": ratio,
    }


def clear(spectrum: Tensor) -> Tensor:
    """Which eigenvalues differ from both neighbours by more than :data:`CLEAR`: booleans.

    >>> clear(torch.tensor([4.0, 2.0, 1.98, 1.0])).tolist()
    [True, False, False, True]
    """
    distinct = spectrum[:-1] > (1 + CLEAR) * spectrum[1:]
    edge = distinct.new_ones(1)
    return torch.cat([edge, distinct]) & torch.cat([distinct, edge])


def apart(noise: float, spectrum: Tensor) -> float:
    """The noise variance, moved off an eigenvalue that it all but hits, where a count would be undecidable.

    >>> apart(2.01, torch.tensor([4.0, 2.0])), apart(3.0, torch.tensor([4.0, 2.0]))
    (2.1105, 3.0)
    """
    return noise * 1.05 if (spectrum / noise).log().abs().min() < 0.02 else noise


def _degrees(cosine: Tensor) -> float:
    return math.degrees(math.acos(min(cosine.item(), 1.0)))


def _mean(values: Tensor) -> float:
    return values.detach().double().mean().item()
