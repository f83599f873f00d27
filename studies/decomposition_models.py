"""What `decomposition` computes: q from prior to posterior, best Gaussians, and one decoder by three objectives."""

from __future__ import annotations

import io
import math
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from density import ConditionalGaussian, NetworkScale, PerFeatureScale, StandardNormal, Training, kl, mlp
from density.families.gaussian import GivenGaussian
from density.families.scale import TriangularScale
from density.fitting.ascent import maximise
from lvm import PPCA, VAE
from lvm.evidence.quadrature.adaptive import quadrature
from lvm.vae.gradients import DoublyReparametrised
from studies.kit.compute import usable_device
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data.load import Dataset
    from studies.decomposition import Settings

LATENTS = 2
REACH = 5.0  # of the grids, in standard deviations of the prior
GAUSS_HERMITE = 9  # nodes along an axis: exact for polynomials of degree 17


@dataclass(frozen=True, eq=False)
class Found:
    """Standardised rows, how many nats they are from the units of the data, and everything fitted so far."""

    settings: Settings
    train: Tensor
    test: Tensor
    log_scale: float
    seed: int

    def generator(self, *purpose: str) -> Generator:
        return Generator(self.train.device).manual_seed(derived_seed(self.seed, "decomposition", *purpose))

    def training(self) -> Training:
        s = self.settings
        return Training(
            epochs=s.epochs, batch_size=s.batch_size, learning_rate=s.learning_rate, patience=s.patience, progress=False
        )

    def fresh(self) -> VAE:
        """The VAE that every objective starts from."""
        features, hidden = self.train.shape[1], self.settings.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "decomposition", "start"))
            model = VAE(
                StandardNormal(LATENTS),
                ConditionalGaussian(mlp(features, 2 * LATENTS, hidden), LATENTS, features, NetworkScale()),
                ConditionalGaussian(mlp(LATENTS, features, hidden), features, LATENTS, PerFeatureScale(features)),
            )
        return model.to(self.train)

    @cached_property
    def by_elbo(self) -> VAE:
        """Encoder and decoder trained by the ELBO."""
        model = self.fresh()
        model.fit(self.train, self.training(), generator=self.generator("fit"))
        return model

    @cached_property
    def some(self) -> Tensor:
        """Test points to look at one by one, in float64, drawn at random."""
        order = torch.randperm(len(self.test), generator=Generator().manual_seed(derived_seed(self.seed, "some")))
        return self.test[order[: self.settings.points].to(self.test.device)].double()


def prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    """Standardise by the training rows (known toys already are)."""
    torch.set_num_threads(settings.threads)
    device, dtype = usable_device(settings.device), getattr(torch, settings.dtype)
    mean, std = data.train.mean(0), data.train.std(0)
    train, test = (torch.as_tensor((rows - mean) / std).to(device, dtype) for rows in (data.train, data.test))
    return Found(settings, train, test, data.log_scale - float(np.log(std).sum()), seed)


def ppca_path(found: Found) -> list[Row]:
    """q_t ∝ prior^(1−t) posterior^t in PPCA, everything in closed form and the ELBO by sampling beside it."""
    model = PPCA(found.train.shape[1], LATENTS)
    model.fit(found.train)
    model = model.double()
    x = found.some
    with torch.no_grad():
        log_p = model.log_prob(x)
        mean, scale = model.encoder.at(x)
        root = scale.dense().reshape(-1, LATENTS, LATENTS)[0]  # the same for every point
        precision = torch.linalg.inv(root @ root.mT)
        weight, noise = model.decoder.weight, model.decoder.noise_variance
        identity = torch.eye(LATENTS, dtype=x.dtype, device=x.device)
        posterior = GivenGaussian(mean, scale)
        rows = []
        for index, t in enumerate(_steps(found)):
            covariance = torch.linalg.inv((1 - t) * identity + t * precision)
            at = t * mean @ precision @ covariance
            q = GivenGaussian(at, TriangularScale(torch.linalg.cholesky(covariance).expand(len(x), -1, -1)))
            spread = (weight.mT @ weight * covariance).sum() / (2 * noise)
            prior_divergence, divergence = kl(q, model.prior), kl(q, posterior)
            assert prior_divergence is not None
            assert divergence is not None
            elbo = model.decoder.log_prob(x, at) - spread - prior_divergence
            z = q.sample(found.settings.draws, generator=found.generator("ppca", str(index)))
            weights = model.log_joint(x, z) - q.log_prob(z)
            rows.append(_point(found, t, log_p, elbo, divergence, weights))
    return rows


def vae_path(found: Found) -> list[Row]:
    """The same path in the VAE, where posterior and path are sums over a fine grid of the latent plane."""
    model = deepcopy(found.by_elbo).double()
    x, settings = found.some, found.settings
    log_p = quadrature(model, x, tolerance=settings.tolerance, generator=found.generator("quadrature")).value
    nodes, cell = _grid(settings.grid, x)
    log_joint = _log_joint_at(model, x, nodes) + math.log(cell)  # of a cell, [n, m]
    prior = model.prior.log_prob(nodes) + math.log(cell)
    posterior = log_joint.log_softmax(1)
    rows = []
    for t in _steps(found):
        log_q = ((1 - t) * prior + t * posterior).log_softmax(1)
        q = log_q.exp()
        elbo, divergence = (q * (log_joint - log_q)).sum(1), (q * (log_q - posterior)).sum(1)
        rows.append(_point(found, t, log_p, elbo, divergence))
    return rows


def gaussians(found: Found, path: Path) -> list[Row]:
    """The encoder's q, the best q with independent latents and the best of all Gaussians; pictures go to a file."""
    model = deepcopy(found.by_elbo).double()
    x = found.some
    log_p = quadrature(model, x, tolerance=found.settings.tolerance, generator=found.generator("quadrature")).value
    encoder = model.encoder
    assert isinstance(encoder, ConditionalGaussian)
    with torch.no_grad():
        mean, scale = encoder.at(x)
    amortised = mean, torch.diag_embed(scale.color(torch.ones_like(mean)))
    fits = {
        "encoder": amortised,
        "best independent": best_gaussian(model, x, *amortised, independent=True),
        "best Gaussian": best_gaussian(model, x, *amortised, independent=False),
    }
    elbos = {name: gaussian_elbo(model, x, *q).detach() for name, q in fits.items()}
    _save_pictures(path, model, x, log_p, fits, found.settings.pictures)
    rows: list[Row] = []
    best = elbos["best Gaussian"]
    for name, elbo in elbos.items():
        short, of_best = log_p - elbo, best - elbo
        rows.append(
            {
                "label": name,
                "elbo": elbo.mean().item() + found.log_scale,
                "divergence": short.mean().item(),
                "divergence_error": _error(short),
                "below_best": of_best.mean().item(),
                "below_best_error": _error(of_best),
                "log_p": log_p.mean().item() + found.log_scale,
                "points": str(path),
            }
        )
    return rows


def learning(found: Found) -> list[Row]:
    """One decoder by ELBO, importance-weighted bound and exact likelihood; each gets the best encoder it can have."""
    settings, train, test = found.settings, found.train, found.test
    models = {"ELBO": found.by_elbo}
    weighted = found.fresh()
    estimator = DoublyReparametrised(draws=settings.iwae_draws)
    weighted.fit(train, found.training(), estimator=estimator, generator=found.generator("fit"))
    models[f"IWAE, {settings.iwae_draws} draws"] = weighted
    exact = found.fresh()
    lattice, cell = _grid(settings.training_grid, train)
    shift = 2 * REACH / settings.training_grid

    def likelihood(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        offset = shift * torch.rand(LATENTS, generator=generator, dtype=train.dtype, device=train.device)
        return _log_joint_at(exact, batch[0], lattice + offset).logsumexp(1) + math.log(cell)

    maximise(exact.decoder, likelihood, (train,), found.training(), generator=found.generator("fit"))
    models["exact likelihood"] = exact
    values: dict[str, tuple[Tensor, Tensor]] = {}
    for name, model in models.items():
        if name != "ELBO":
            _refit_encoder(model, found)
        claim = quadrature(model, test, tolerance=settings.tolerance, generator=found.generator("quadrature"))
        with torch.no_grad():
            draws = model.double().log_weights(test.double(), settings.draws, generator=found.generator("elbo", name))
        values[name] = claim.value, draws.mean(0)
    log_p_of_elbo, elbo_of_elbo = values["ELBO"]
    rows: list[Row] = []
    for name, (log_p, elbo) in values.items():
        gain, change, gap = log_p - log_p_of_elbo, elbo - elbo_of_elbo, log_p - elbo
        rows.append(
            {
                "label": name,
                "epochs": settings.epochs,
                "log_p": log_p.mean().item() + found.log_scale,
                "log_p_error": _error(log_p),
                "elbo": elbo.mean().item() + found.log_scale,
                "elbo_error": _error(elbo),
                "gap": gap.mean().item(),
                "gap_error": _error(gap),
                "gain": gain.mean().item(),
                "gain_error": _error(gain),
                "elbo_change": change.mean().item(),
                "elbo_change_error": _error(change),
            }
        )
    return rows


def best_gaussian(
    model: VAE, x: Tensor, mean: Tensor, factor: Tensor, *, independent: bool, steps: int = 400
) -> tuple[Tensor, Tensor]:
    """The Gaussian q of each point with the largest ELBO near the one given: means ``[n, 2]``, factors ``[n, 2, 2]``.

    Adam on the ELBO by Gauss-Hermite nodes, so without noise; O(n · steps) times 81 passes of the decoder.
    """
    at = mean.clone().requires_grad_()
    log_std = factor.diagonal(dim1=-2, dim2=-1).log().clone().requires_grad_()
    below = torch.zeros_like(mean[:, :1]).requires_grad_()
    parameters = [at, log_std] if independent else [at, log_std, below]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.requires_grad_(False)

    def root() -> Tensor:
        std = log_std.exp()
        lower = torch.stack([torch.zeros_like(below), below * std[:, 1:]], -2)  # [[0, 0], [b, 0]] of each point
        return torch.diag_embed(std) + torch.cat([lower, torch.zeros_like(lower)], -1)

    for _ in range(steps):
        optimiser.zero_grad()
        (-gaussian_elbo(model, x, at, root())).sum().backward()
        optimiser.step()
        schedule.step()
    return at.detach(), root().detach()


def gaussian_elbo(model: VAE, x: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """The ELBO ``[n]`` of q(z|x) = N(mean, factor factorᵀ), by a Gauss-Hermite rule."""
    points, weights = np.polynomial.hermite_e.hermegauss(GAUSS_HERMITE)
    node, weight = torch.as_tensor(points).to(x), torch.as_tensor(weights / weights.sum()).to(x)
    noise = torch.cartesian_prod(node, node)
    product = torch.cartesian_prod(weight, weight).prod(-1)
    z = mean + (factor @ noise.mT).permute(2, 0, 1)
    log_q = -0.5 * noise.square().sum(-1, keepdim=True) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return product @ (model.log_joint(x, z) - log_q + math.log(2 * math.pi))


def _refit_encoder(model: VAE, found: Found) -> None:
    """Train the encoder alone, by the ELBO: log p(x) does not depend on it."""
    model.decoder.requires_grad_(False)
    fresh = found.fresh()
    model.encoder.load_state_dict(fresh.encoder.state_dict())
    model.fit(found.train, found.training(), generator=found.generator("encoder"))


def _log_joint_at(model: VAE, x: Tensor, nodes: Tensor) -> Tensor:
    """log p(x, z) of every point and node: ``[n, m]``; one pass of the decoder a node, and one matrix product."""
    assert isinstance(model.decoder, ConditionalGaussian)
    mean, scale = model.decoder.at(nodes)
    whitened, targets = scale.whiten(mean), x / scale.color(torch.ones_like(mean))[:1]
    square = targets.square().sum(1, keepdim=True) + whitened.square().sum(1) - 2 * targets @ whitened.mT
    constant = scale.log_det() + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return model.prior.log_prob(nodes) - 0.5 * square.clamp_min(0) - constant


def _grid(count: int, like: Tensor) -> tuple[Tensor, float]:
    """The cells' lower corners ``[count², 2]`` of a square grid over the prior, and the area of a cell."""
    width = 2 * REACH / count
    ticks = -REACH + width * torch.arange(count, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(ticks, ticks), width**LATENTS


def _steps(found: Found) -> list[float]:
    count = found.settings.steps
    return [index / (count - 1) for index in range(count)]


def _point(
    found: Found, t: float, log_p: Tensor, elbo: Tensor, divergence: Tensor, weights: Tensor | None = None
) -> Row:
    row: Row = {
        "t": t,
        "log_p": log_p.mean().item() + found.log_scale,
        "elbo": elbo.mean().item() + found.log_scale,
        "divergence": divergence.mean().item(),
        "worst": (log_p - elbo - divergence).abs().max().item(),
    }
    if weights is not None:
        off = weights.mean(0) - elbo
        row |= {
            "sampled": off.mean().item(),
            "sampled_error": (weights.std(0).square().mean() / weights.numel()).sqrt().item(),
        }
    return row


def _error(values: Tensor) -> float:
    return (values.double().std() / math.sqrt(len(values))).item()


def _save_pictures(
    path: Path, model: VAE, x: Tensor, log_p: Tensor, fits: dict[str, tuple[Tensor, Tensor]], count: int
) -> None:
    """Posterior densities on grids around the points where the encoder misses least, at the median, and most."""
    short = log_p - gaussian_elbo(model, x, *fits["encoder"]).detach()
    order = short.argsort()
    chosen = order[torch.linspace(0.5, 0.97, count).mul(len(order) - 1).long()]
    mean, factor = fits["best Gaussian"]
    arrays: dict[str, Tensor] = {}
    for number, point in enumerate(chosen.tolist()):
        spread = torch.maximum(factor[point].norm(dim=1), fits["encoder"][1][point].norm(dim=1)).max()
        ticks = torch.linspace(-4.5, 4.5, 161, dtype=x.dtype, device=x.device) * spread
        centre = (mean[point] + fits["encoder"][0][point]) / 2
        nodes = centre + torch.cartesian_prod(ticks, ticks)
        with torch.no_grad():
            density = (_log_joint_at(model, x[point : point + 1], nodes)[0] - log_p[point]).exp()
        arrays |= {
            f"density{number}": density.reshape(161, 161),
            f"x{number}": centre[0] + ticks,
            f"y{number}": centre[1] + ticks,
        }
        arrays |= {f"short{number}": short[point]}
        for name, (at, root) in fits.items():
            arrays |= {f"{name} mean{number}": at[point], f"{name} factor{number}": root[point]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: value.float().cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())
