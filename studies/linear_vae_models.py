"""What `linear_vae` computes: the optimum, training paths, columns at fixed noise, and rotations of the latent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from density import Training, constant, lbfgs
from density.linalg.moments import Moments
from lvm import PPCA, LinearVAE, Present
from studies.kit.compute import usable_device
from studies.kit.rows import Row
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data.load import Dataset
    from studies.linear_vae import Settings

CLEAR = 0.05  # relative distance of an eigenvalue from its neighbours, below which its axis is hardly determined
COLLAPSE_ROUNDS = 60
DEAD = 1e-3  # a column whose norm² is below this share of the largest eigenvalue counts as collapsed
LBFGS = Training(
    batch_size=None, learning_rate=1.0, optimiser=lbfgs, schedule=constant, clip=None, validation=0.0,
    patience=None, progress=False,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Found:
    """Training rows in units of their overall spread, PPCA of them, their spectrum, and seeds."""

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


def prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    """Centre and scale the rows as a whole (which changes neither axes nor gaps), and solve PPCA."""
    torch.set_num_threads(settings.threads)
    device = usable_device(settings.device)
    y = torch.as_tensor(data.train, dtype=torch.float64)
    scale = y.var(0).mean().sqrt()
    x = ((y - y.mean(0)) / scale).to(device, getattr(torch, settings.dtype))
    ppca = PPCA(x.shape[1], settings.latents)
    ppca.fit(x)
    spectrum, axes = torch.linalg.eigh(Moments.of(x).covariance)
    log_scale = data.log_scale - x.shape[1] * math.log(scale.item())
    return Found(x, log_scale, ppca, axes.flip(1), spectrum.flip(0), seed)


def optimum(found: Found, settings: Settings) -> list[Row]:
    """Full-batch L-BFGS on the ELBO in closed form."""
    model = _fresh(found, settings, "optimum")
    model.fit(found.x, replace(LBFGS, epochs=settings.rounds), generator=_generator(found, "optimum"))
    return [{"ppca": found.best + found.log_scale, **_described(model, found)}]


def paths(found: Found, settings: Settings, kinds: tuple[str, ...], checkpoints: int) -> list[Row]:
    """Full-batch Adam, on the ELBO in closed form and on its estimate from one draw; a row at each of some steps."""
    from studies.linear_vae import PATHS

    marks = [round(settings.steps ** (index / (checkpoints - 1))) for index in range(checkpoints)]
    rows: list[Row] = []
    for kind in kinds:
        model = _fresh(found, settings, "path")
        draws = _generator(found, "draws")
        optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
        reached: dict[int, Row] = {}
        for step in range(1, settings.steps + 1):
            optimiser.zero_grad()
            elbo = model.elbo_closed_form(found.x) if kind == "closed form" else model.elbo(found.x, generator=draws)
            (-elbo.mean()).backward()
            optimiser.step()
            schedule.step()
            if step in marks:
                reached[step] = {"label": PATHS[kind], "step": step, **_described(model, found)}
        rows += [reached[mark] for mark in marks]  # early marks round to the same step, which is then told twice
    return rows


def collapse(found: Found, settings: Settings) -> list[Row]:
    """Fits at fixed σ²: columns of W live where their eigenvalue exceeds it. σ² lies between eigenvalues, in ratio."""
    q = settings.latents
    top = found.spectrum[: q + 1].clamp_min(found.spectrum[0] * 1e-6)
    low, high = math.log(top[-1].item()), math.log(top[0].item() * 1.3)
    rows: list[Row] = []
    for index in range(settings.noises):
        noise = math.exp(low + (high - low) * (index + 0.5) / settings.noises)
        noise = _apart(noise, found.spectrum)
        model = _fresh(found, settings, "collapse")
        with torch.no_grad():
            model.decoder.log_std.fill_(0.5 * math.log(noise))
        model.decoder.log_std.requires_grad_(False)
        model.set_optimal_encoder()
        model.fit(
            found.x, replace(LBFGS, epochs=COLLAPSE_ROUNDS), start=Present(), generator=_generator(found, "collapse")
        )
        norms = model.decoder.weight.detach().double().square().sum(0).sort(descending=True).values
        expected = (found.spectrum[:q] - noise).clamp_min(0)
        rows.append(
            {
                "noise_variance": noise,
                "active": int((norms > DEAD * found.spectrum[0]).sum()),
                "expected_active": int((expected > DEAD * found.spectrum[0]).sum()),
                "norm_error": ((norms - expected).abs().max() / found.spectrum[0]).item(),
                "spectrum": " ".join(f"{value:.6g}" for value in found.spectrum[:q].tolist()),
            }
        )
    return rows


def rotations(found: Found, settings: Settings) -> list[Row]:
    """PPCA's W with first and last latent rotated into each other: the same log p(x), another ELBO."""
    rows: list[Row] = []
    for index in range(settings.angles):
        angle = math.pi / 4 * index / (settings.angles - 1)
        model = _fresh(found, settings, "rotation")
        with torch.no_grad():
            weight = found.ppca.decoder.weight.detach().clone()
            first, last = weight[:, 0].clone(), weight[:, -1].clone()
            weight[:, 0] = math.cos(angle) * first + math.sin(angle) * last
            weight[:, -1] = math.cos(angle) * last - math.sin(angle) * first
            model.decoder.weight.copy_(weight)
            model.decoder.mean.copy_(found.ppca.decoder.mean)
            model.decoder.log_std.copy_(found.ppca.decoder.log_std)
        model.set_optimal_encoder()
        with torch.no_grad():
            log_p = model.log_prob(found.x)
            weights = model.log_weights(found.x, settings.draws, generator=_generator(found, "rotation", str(index)))
            gaps = (log_p - weights.mean(0)).double()  # of a point: its own draws average away
        rows.append(
            {
                "degrees": math.degrees(angle),
                "formula": model.closed_form_gap().item(),
                "gap": gaps.mean().item(),
                "gap_error": (gaps.std() / math.sqrt(len(gaps))).item(),
                "log_p_change": abs(_mean(log_p) - found.best),
            }
        )
    return rows


def _described(model: LinearVAE, found: Found) -> Row:
    """log p(x), ELBO, and angles between W and the principal axes."""
    with torch.no_grad():
        log_p, elbo = _mean(model.log_prob(found.x)), _mean(model.elbo_closed_form(found.x))
        weight = model.decoder.weight.double()
        basis, _ = torch.linalg.qr(weight)
        cosines = torch.linalg.svdvals(found.axes[:, : weight.shape[1]].mT @ basis)
        columns, nearest = ((found.axes.mT @ weight).abs() / weight.norm(dim=0)).max(0)
        clear = _clear(found.spectrum)[nearest]
        ratio = (model.decoder.noise_variance.double() / found.ppca.noise_variance.double()).item()
    return {
        "log_p": log_p + found.log_scale,
        "elbo": elbo + found.log_scale,
        "elbo_shortfall": found.best - elbo,
        "span_angle": _degrees(cosines.min()),
        "axis_angle": _degrees(columns.min()),
        "clear_axis_angle": _degrees(columns[clear].min()) if clear.any() else math.nan,
        "noise_ratio": ratio,
    }


def _clear(spectrum: Tensor) -> Tensor:
    """Which eigenvalues differ from both neighbours by more than :data:`CLEAR`: booleans."""
    apart = spectrum[:-1] > (1 + CLEAR) * spectrum[1:]
    edge = apart.new_ones(1)
    return torch.cat([edge, apart]) & torch.cat([apart, edge])


def _degrees(cosine: Tensor) -> float:
    return math.degrees(math.acos(min(cosine.item(), 1.0)))


def _apart(noise: float, spectrum: Tensor) -> float:
    """The noise variance, moved off an eigenvalue that it all but hits, where a count would be undecidable."""
    ratios = spectrum / noise
    nearest = ratios[(ratios.log().abs()).argmin()].item()
    return noise * 1.05 if abs(math.log(nearest)) < 0.02 else noise


def _fresh(found: Found, settings: Settings, purpose: str) -> LinearVAE:
    start = Generator().manual_seed(derived_seed(found.seed, "linear_vae", "start", purpose))
    return LinearVAE(found.x.shape[1], settings.latents, generator=start).to(found.x)


def _generator(found: Found, *purpose: str) -> Generator:
    return Generator(found.x.device).manual_seed(derived_seed(found.seed, "linear_vae", *purpose))


def _mean(values: Tensor) -> float:
    return values.detach().double().mean().item()
