"""What `decomposition` measures: q from prior to posterior, best Gaussians, and one decoder by three objectives."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor

from density import ConditionalGaussian, NetworkScale, PerFeatureScale, StandardNormal, Training, kl, mlp
from density.families.gaussian import GivenGaussian
from density.families.scale import TriangularScale
from density.fitting.ascent import maximise
from lvm import PPCA, VAE
from lvm.evidence.quadrature.adaptive import quadrature
from lvm.vae.gradients import DoublyReparametrised
from studies.data.load import Dataset
from studies.decomposition.plane import LATENTS, REACH, best_gaussian, gaussian_elbo, grid, log_joint_at
from studies.decomposition.settings import Key, Part, Settings
from studies.kit.compute import Standardised, mean_and_error, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

TICKS = 161  # of a picture, along each latent


@dataclass(frozen=True, eq=False)
class Fits:
    """Rows, and what all fits to them share: one start, one way to train, and the VAE that every part looks at."""

    settings: Settings
    rows: Standardised
    seed: int

    def generator(self, *purpose: str) -> Generator:
        """Random numbers for one purpose."""
        return seeded(self.rows.train.device, self.seed, "decomposition", *purpose)

    def training(self) -> Training:
        """As the settings say."""
        s = self.settings
        return Training(
            epochs=s.epochs, batch_size=s.batch_size, learning_rate=s.learning_rate, annealing=1, patience=s.patience,
            patient_steps=0, progress=False,
        )  # fmt: skip

    def fresh(self) -> VAE:
        """The VAE that every objective starts from."""
        features, hidden = self.rows.train.shape[1], self.settings.hidden
        with seeded_start(self.seed, "decomposition", "start"):
            model = VAE(
                StandardNormal(LATENTS),
                ConditionalGaussian(mlp(features, 2 * LATENTS, hidden), LATENTS, features, NetworkScale()),
                ConditionalGaussian(mlp(LATENTS, features, hidden), features, LATENTS, PerFeatureScale(features)),
            )
        return model.to(self.rows.train)

    @cached_property
    def by_elbo(self) -> VAE:
        """Encoder and decoder trained by the ELBO."""
        model = self.fresh()
        model.fit(self.rows.train, self.training(), generator=self.generator("fit"))
        return model

    @cached_property
    def some(self) -> Tensor:
        """Test points to look at one by one, in float64, drawn at random."""
        test = self.rows.test
        order = torch.randperm(len(test), generator=seeded(torch.device("cpu"), self.seed, "some"))
        return test[order[: self.settings.points].to(test.device)].double()

    def log_p(self, model: VAE, x: Tensor) -> Tensor:
        """log p(x) ``[n]`` by quadrature."""
        generator = self.generator("quadrature")
        return quadrature(model, x, tolerance=self.settings.tolerance, generator=generator).value


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    fits = prepared(settings, task.data, task.key.seed)
    return rows_of(fits, task.key.part, task.makes)[task.key.index]


@lru_cache(maxsize=1)  # for all rows of a seed
def prepared(settings: Settings, data: Dataset, seed: int) -> Fits:
    """Fits to data that is standardised by its training rows."""
    return Fits(settings, Standardised.of(settings, data.train, data.test, data.log_scale), seed)


@lru_cache(maxsize=1)  # for all rows of a part
def rows_of(fits: Fits, part: Part, files: tuple[Path, ...]) -> list[Row]:
    """The rows of a part, which are computed together."""
    match part:
        case "PPCA":
            return ppca_path(fits)
        case "VAE":
            return vae_path(fits)
        case "gaussians":
            return gaussians(fits, *files)
        case "learning":
            return learning(fits)


def ppca_path(fits: Fits) -> list[Row]:
    """q_t ∝ prior^(1−t) posterior^t in PPCA, everything in closed form and the ELBO by sampling beside it."""
    model = PPCA(fits.rows.train.shape[1], LATENTS)
    model.fit(fits.rows.train)
    model = model.double()
    x = fits.some
    with torch.no_grad():
        log_p = model.log_prob(x)
        mean, scale = model.encoder.at(x)
        root = scale.dense().reshape(-1, LATENTS, LATENTS)[0]  # the same for every point
        precision = torch.linalg.inv(root @ root.mT)
        weight, noise = model.decoder.weight, model.decoder.noise_variance
        identity = torch.eye(LATENTS, dtype=x.dtype, device=x.device)
        posterior = GivenGaussian(mean, scale)
        rows = []
        for index, t in enumerate(steps(fits)):
            covariance = torch.linalg.inv((1 - t) * identity + t * precision)
            at = t * mean @ precision @ covariance
            q = GivenGaussian(at, TriangularScale(torch.linalg.cholesky(covariance).expand(len(x), -1, -1)))
            spread = (weight.mT @ weight * covariance).sum() / (2 * noise)
            prior_divergence, divergence = kl(q, model.prior), kl(q, posterior)
            assert prior_divergence is not None
            assert divergence is not None
            elbo = model.decoder.log_prob(x, at) - spread - prior_divergence
            z = q.sample(fits.settings.draws, generator=fits.generator("ppca", str(index)))
            weights = model.log_joint(x, z) - q.log_prob(z)
            off, error = weights.mean(0) - elbo, (weights.std(0).square().mean() / weights.numel()).sqrt()
            sampled: Row = {"sampled": off.mean().item(), "sampled_error": error.item()}
            rows.append(on_path(fits, t, log_p, elbo, divergence) | sampled)
    return rows


def vae_path(fits: Fits) -> list[Row]:
    """The same path in the VAE, where posterior and path are sums over a fine grid of the latent plane."""
    model = deepcopy(fits.by_elbo).double()
    x = fits.some
    log_p = fits.log_p(model, x)
    nodes, cell = grid(fits.settings.grid, x)
    log_joint = log_joint_at(model, x, nodes) + math.log(cell)  # of a cell, [n, m]
    prior = model.prior.log_prob(nodes) + math.log(cell)
    posterior = log_joint.log_softmax(1)
    rows = []
    for t in steps(fits):
        log_q = ((1 - t) * prior + t * posterior).log_softmax(1)
        q = log_q.exp()
        elbo, divergence = (q * (log_joint - log_q)).sum(1), (q * (log_q - posterior)).sum(1)
        rows.append(on_path(fits, t, log_p, elbo, divergence))
    return rows


def steps(fits: Fits) -> list[float]:
    """Values of t, from the prior's 0 to the posterior's 1."""
    count = fits.settings.steps
    return [index / (count - 1) for index in range(count)]


def on_path(fits: Fits, t: float, log_p: Tensor, elbo: Tensor, divergence: Tensor) -> Row:
    """Means over points, and by how much log p = ELBO + KL fails at the worst of them."""
    return {
        "t": t,
        "log_p": log_p.mean().item() + fits.rows.log_scale,
        "elbo": elbo.mean().item() + fits.rows.log_scale,
        "divergence": divergence.mean().item(),
        "worst": (log_p - elbo - divergence).abs().max().item(),
    }


def gaussians(fits: Fits, path: Path) -> list[Row]:
    """The encoder's q, the best q with independent latents and the best of all Gaussians; pictures go to a file."""
    model = deepcopy(fits.by_elbo).double()
    x = fits.some
    log_p, log_scale = fits.log_p(model, x), fits.rows.log_scale
    encoder = model.encoder
    assert isinstance(encoder, ConditionalGaussian)
    with torch.no_grad():
        mean, scale = encoder.at(x)
    amortised = mean, torch.diag_embed(scale.color(torch.ones_like(mean)))
    qs = {
        "encoder": amortised,
        "best independent": best_gaussian(model, x, *amortised, independent=True),
        "best Gaussian": best_gaussian(model, x, *amortised, independent=False),
    }
    elbos = {name: gaussian_elbo(model, x, *q).detach() for name, q in qs.items()}
    _save_pictures(path, model, x, log_p, qs, fits.settings.pictures)
    return [
        {
            "label": name,
            "elbo": elbo.mean().item() + log_scale,
            **mean_and_error("divergence", log_p - elbo),
            **mean_and_error("below_best", elbos["best Gaussian"] - elbo),
            "log_p": log_p.mean().item() + log_scale,
            "points": str(path),
        }
        for name, elbo in elbos.items()
    ]


def learning(fits: Fits) -> list[Row]:
    """One decoder by ELBO, importance-weighted bound and exact likelihood; each gets the best encoder it can have."""
    settings, train, test = fits.settings, fits.rows.train, fits.rows.test
    weighted, exact = fits.fresh(), fits.fresh()
    estimator = DoublyReparametrised(draws=settings.iwae_draws)
    weighted.fit(train, fits.training(), estimator=estimator, generator=fits.generator("fit"))
    lattice, cell = grid(settings.training_grid, train)
    shift = 2 * REACH / settings.training_grid

    def likelihood(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        offset = shift * torch.rand(LATENTS, generator=generator, dtype=train.dtype, device=train.device)
        return log_joint_at(exact, batch[0], lattice + offset).logsumexp(1) + math.log(cell)

    maximise(exact.decoder, likelihood, (train,), fits.training(), generator=fits.generator("fit"))
    models = {"ELBO": fits.by_elbo, f"IWAE, {settings.iwae_draws} draws": weighted, "exact likelihood": exact}
    values: dict[str, tuple[Tensor, Tensor]] = {}
    for name, model in models.items():
        if name != "ELBO":
            _refit_encoder(model, fits)
        log_p, generator = fits.log_p(model, test), fits.generator("elbo", name)
        with torch.no_grad():
            draws = deepcopy(model).double().log_weights(test.double(), settings.draws, generator=generator)
        values[name] = log_p, draws.mean(0)
    log_p_of_elbo, elbo_of_elbo = values["ELBO"]
    return [
        {
            "label": name,
            "epochs": settings.epochs,
            "test_rows": len(test),
            **mean_and_error("log_p", log_p, fits.rows.log_scale),
            **mean_and_error("elbo", elbo, fits.rows.log_scale),
            **mean_and_error("gap", log_p - elbo),
            **mean_and_error("gain", log_p - log_p_of_elbo),
            **mean_and_error("elbo_change", elbo - elbo_of_elbo),
        }
        for name, (log_p, elbo) in values.items()
    ]


def _refit_encoder(model: VAE, fits: Fits) -> None:
    """Train the encoder alone, by the ELBO: log p(x) does not depend on it."""
    model.decoder.requires_grad_(False)
    model.encoder.load_state_dict(fits.fresh().encoder.state_dict())
    model.fit(fits.rows.train, fits.training(), generator=fits.generator("encoder"))


def _save_pictures(
    path: Path, model: VAE, x: Tensor, log_p: Tensor, qs: dict[str, tuple[Tensor, Tensor]], count: int
) -> None:
    """Posterior densities on grids around points that the encoder misses as at the median, and by more."""
    short = log_p - gaussian_elbo(model, x, *qs["encoder"]).detach()
    order = short.argsort()
    chosen = order[torch.linspace(0.5, 0.97, count).mul(len(order) - 1).long()]
    (mean, factor), (start, width) = qs["best Gaussian"], qs["encoder"]
    arrays: dict[str, Tensor] = {}
    for number, point in enumerate(chosen.tolist()):
        spread = torch.maximum(factor[point].norm(dim=1), width[point].norm(dim=1)).max()
        ticks = torch.linspace(-4.5, 4.5, TICKS, dtype=x.dtype, device=x.device) * spread
        centre = (mean[point] + start[point]) / 2
        nodes = centre + torch.cartesian_prod(ticks, ticks)
        with torch.no_grad():
            density = (log_joint_at(model, x[point : point + 1], nodes)[0] - log_p[point]).exp()
        arrays |= {
            f"density{number}": density.reshape(TICKS, TICKS),
            f"x{number}": centre[0] + ticks,
            f"y{number}": centre[1] + ticks,
            f"short{number}": short[point],
        }
        for name, (at, root) in qs.items():
            arrays |= {f"{name} mean{number}": at[point], f"{name} factor{number}": root[point]}
    save_arrays(path, **{name: value.float().cpu().numpy() for name, value in arrays.items()})
