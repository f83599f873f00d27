"""What `kl_term` measures: VAEs by the weight of their KL term, the same by the decoder's width, and KL warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from density import (
    ConditionalGaussian,
    FixedScale,
    GlobalScale,
    NetworkScale,
    ScaleModel,
    StandardNormal,
    Training,
    constant,
    cosine,
    mlp,
)
from density.importance.bound import importance
from lvm import VAE
from lvm.evidence.latent_usage import kl_parts, latent_usage
from lvm.vae.gradients import AnalyticKL
from studies.data.load import Dataset
from studies.kit.compute import Standardised, mean_and_error, save_arrays, seeded, seeded_start, standard_error
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.kl_term.settings import Key, Settings

NEIGHBOURS = 5
STAGES = 5  # of warm-up
SHOWN = 8  # samples of each model in the figure


@dataclass(frozen=True, eq=False)
class Fits:
    """Rows, and what all fits to them share: one start, one way to train, seeds of their own."""

    settings: Settings
    rows: Standardised
    seed: int

    def generator(self, *purpose: str) -> Generator:
        """Random numbers for one purpose."""
        return seeded(self.rows.train.device, self.seed, "kl_term", *purpose)

    def fresh(self, scale: ScaleModel, latents: int) -> VAE:
        """The VAE that every fit starts from, up to the decoder's width."""
        features, hidden = self.rows.train.shape[1], self.settings.hidden
        with seeded_start(self.seed, "kl_term", "start"):
            model = VAE(
                StandardNormal(latents),
                ConditionalGaussian(mlp(features, 2 * latents, hidden), latents, features, NetworkScale()),
                ConditionalGaussian(mlp(latents, features, hidden), features, latents, scale),
            )
        return model.to(self.rows.train)

    def training(self, *, epochs: int | None = None, falling: bool = True) -> Training:
        """For so many epochs, else as many as the settings say, at a learning rate that falls or stays."""
        s = self.settings
        return Training(
            epochs=s.epochs if epochs is None else max(1, epochs),
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            schedule=cosine if falling else constant,
            annealing=1,
            clip=None,  # a clipped gradient would depend on the scale of the objective
            validation=0,
            progress=False,
        )


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    fits, at = prepared(settings, task.data, task.key.seed), task.key.at
    match task.key.part:
        case "sweep":
            return sweep(fits, float(at), *task.makes)
        case "width":
            return same_by_width(fits, float(at))
        case "warm-up":
            return compare_warm_up(fits)[at]


@lru_cache(maxsize=1)  # for all rows of a seed
def prepared(settings: Settings, data: Dataset, seed: int) -> Fits:
    """Fits to data that is standardised by its training rows."""
    return Fits(settings, Standardised.of(settings, data.train, data.test, data.log_scale), seed)


def sweep(fits: Fits, beta: float, path: Path) -> Row:
    """A VAE trained with β times its KL term, the decoder's width fixed: what it then costs and can do."""
    settings, test, log_scale = fits.settings, fits.rows.test, fits.rows.log_scale
    model = fits.fresh(FixedScale(settings.width), settings.latents)
    model.fit(fits.rows.train, fits.training(), estimator=AnalyticKL(kl_weight=beta), generator=fits.generator("fit"))
    generator = fits.generator("judge", str(beta))
    with torch.no_grad():
        z, divergence = model.draw_latents(test, settings.draws, generator=generator)
        fit = model.decoder.log_prob(test, z).mean(0)
        square = (model.decode(model.encode(test)) - test).square().mean(1)
    claim = importance(model, test, draws=settings.importance_draws, generator=generator)
    usage, parts = latent_usage(model, test), kl_parts(model, test, generator=generator)
    drawn = model.sample(len(test), generator=generator)
    right = two_sample(test, drawn)
    _save_samples(path, fits, model)
    elbo = fit - divergence
    return {
        "beta": beta,
        "epochs": settings.epochs,
        **mean_and_error("rate", divergence),
        "distortion": -fit.mean().item() - log_scale,
        "distortion_error": standard_error(fit),
        **mean_and_error("elbo", elbo, log_scale),
        "log_p": claim.mean + log_scale,
        "log_p_error": claim.standard_error,
        "unreliable": claim.unreliable / len(test),
        **mean_and_error("squared_error", square),
        "active": int(usage.active.sum()),
        "mutual_information": parts.mutual_information.mean,
        "marginal": parts.marginal.mean,
        "marginal_error": parts.marginal.standard_error,
        **mean_and_error("told_apart", right),
        "points": str(path),
    }


def same_by_width(fits: Fits, beta: float) -> Row:
    r"""β times the KL term is the same as 1 times it and a decoder √β as wide: the weights of both fits, compared.

    (reconstruction − β KL)/β is, up to a constant, −‖x − x̂‖²/(2 β σ²) − KL, and Adam does not see the factor 1/β.
    Nor does it add anything to the gradient's root mean square here (its ε), beside which a small gradient's factor
    would be seen; so in double precision rounding alone tells the two apart.
    """
    settings, exact = fits.settings, replace(fits, rows=fits.rows.double())
    width, train = settings.width, exact.rows.train
    training = replace(exact.training(epochs=settings.same_epochs), optimiser=adam_alone)
    weighted = exact.fresh(FixedScale(width), settings.latents)
    weighted.fit(train, training, estimator=AnalyticKL(kl_weight=beta), generator=exact.generator("same"))
    wide = exact.fresh(FixedScale(width * math.sqrt(beta)), settings.latents)
    wide.fit(train, training, generator=exact.generator("same"))
    start = exact.fresh(FixedScale(width), settings.latents)
    trios = zip(weighted.parameters(), wide.parameters(), start.parameters(), strict=True)
    off, moved = 0.0, 0.0
    for a, b, c in trios:
        off, moved = max(off, (a - b).abs().max().item()), max(moved, (a - c).abs().max().item())
    return {"beta": beta, "weights_apart": off, "weights_moved": moved}


def adam_alone(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Adam whose steps do not depend on the scale of the objective at all."""
    return torch.optim.Adam(parameters, lr=learning_rate, eps=1e-300)


def warm_up(fits: Fits, warm: bool) -> tuple[Row, Tensor]:
    """Many latents, a decoder that learns its width; warm-up raises the weight of the KL term from 0 to 1 first."""
    settings = fits.settings
    model = fits.fresh(GlobalScale(1.0), settings.many_latents)
    generator, before = fits.generator("warm"), settings.epochs // 5
    if warm:
        for stage in range(STAGES):
            training = fits.training(epochs=before // STAGES, falling=False)
            model.fit(fits.rows.train, training, estimator=AnalyticKL(kl_weight=stage / STAGES), generator=generator)
    model.fit(fits.rows.train, fits.training(epochs=settings.epochs - before * warm), generator=generator)
    with torch.no_grad():
        elbo = model.elbo(fits.rows.test, draws=settings.draws, generator=fits.generator("warm judge"))
    usage = latent_usage(model, fits.rows.test)
    row: Row = {
        "label": "warm-up" if warm else "none",
        **mean_and_error("elbo", elbo, fits.rows.log_scale),
        "active": int(usage.active.sum()),
        "rate": usage.kl.sum().item(),
    }
    return row, elbo


@lru_cache(maxsize=1)  # for both rows
def compare_warm_up(fits: Fits) -> dict[str, Row]:
    """Both ways from the same start, and the difference in their ELBO, paired."""
    (cold, without), (warm, with_it) = warm_up(fits, False), warm_up(fits, True)
    gain = with_it - without
    return {
        "none": {**cold, "gain": 0.0, "gain_error": 0.0},
        "warm-up": {**warm, **mean_and_error("gain", gain)},
    }


def two_sample(data: Tensor, drawn: Tensor) -> Tensor:
    """Whether each point, of data and of samples, is told apart from the other kind by its nearest neighbours.

    Leave-one-out, by the majority of five (Lopez-Paz & Oquab 2017): one half on average if the two densities are equal.
    """
    both = torch.cat([data, drawn]).double()
    label = torch.arange(len(both), device=both.device) < len(data)
    distance = torch.cdist(both, both).fill_diagonal_(math.inf)
    votes = label[distance.topk(NEIGHBOURS, largest=False).indices].double().mean(1)
    return ((votes > 0.5) == label).double()


def _save_samples(path: Path, fits: Fits, model: VAE) -> None:
    """Means of the decoder at draws from the prior, in the units of the data."""
    z = model.prior.sample(SHOWN, generator=fits.generator("pictures"))
    with torch.no_grad():
        means = model.decode(z) * fits.rows.std + fits.rows.mean
    save_arrays(path, means=means.float().cpu().numpy())
