"""What `kl_term` computes: VAEs by the weight of their KL term, the same by the decoder's width, and KL warm-up."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

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
from studies.ask import usable_device
from studies.results import Row, write_whole
from studies.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data import Dataset
    from studies.kl_term import Settings

NEIGHBOURS = 5
STAGES = 5  # of warm-up
SHOWN = 8  # samples of each model in the figure


@dataclass(frozen=True, eq=False)
class Found:
    """Standardised rows, and how many nats they are from the units of the data."""

    settings: Settings
    train: Tensor
    test: Tensor
    mean: Tensor
    std: Tensor
    log_scale: float
    seed: int

    def generator(self, *purpose: str) -> Generator:
        return Generator(self.train.device).manual_seed(derived_seed(self.seed, "kl_term", *purpose))

    def fresh(self, scale: ScaleModel, latents: int) -> VAE:
        """The VAE that every fit starts from, up to the decoder's width."""
        features, hidden = self.train.shape[1], self.settings.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "kl_term", "start"))
            model = VAE(
                StandardNormal(latents),
                ConditionalGaussian(mlp(features, 2 * latents, hidden), latents, features, NetworkScale()),
                ConditionalGaussian(mlp(latents, features, hidden), features, latents, scale),
            )
        return model.to(self.train)

    def training(self, *, epochs: int | None = None, falling: bool = True) -> Training:
        s = self.settings
        return Training(
            epochs=s.epochs if epochs is None else max(1, epochs),
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            schedule=cosine if falling else constant,
            clip=None,  # a clipped gradient would depend on the scale of the objective
            validation=0,
            progress=False,
        )


def prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    """Standardise by the training rows."""
    torch.set_num_threads(settings.threads)
    device, dtype = usable_device(settings.device), getattr(torch, settings.dtype)
    mean, std = data.train.mean(0), data.train.std(0)
    train, test = (torch.as_tensor((rows - mean) / std).to(device, dtype) for rows in (data.train, data.test))
    shift, scale = (torch.as_tensor(value).to(device, dtype) for value in (mean, std))
    return Found(settings, train, test, shift, scale, data.log_scale - float(np.log(std).sum()), seed)


def sweep(found: Found, beta: float, path: Path) -> Row:
    """A VAE trained with β times its KL term, the decoder's width fixed: what it then costs and can do."""
    settings, test = found.settings, found.test
    model = found.fresh(FixedScale(settings.width), settings.latents)
    model.fit(found.train, found.training(), estimator=AnalyticKL(kl_weight=beta), generator=found.generator("fit"))
    generator = found.generator("judge", str(beta))
    with torch.no_grad():
        z, divergence = model.draw_latents(test, settings.draws, generator=generator)
        fit = model.decoder.log_prob(test, z).mean(0)
        square = (model.decode(model.encode(test)) - test).square().mean(1)
    claim = importance(model, test, draws=settings.importance_draws, generator=generator)
    usage, parts = latent_usage(model, test), kl_parts(model, test, generator=generator)
    drawn = model.sample(len(test), generator=generator)
    right = two_sample(test, drawn)
    _save_samples(path, found, model)
    elbo = fit - divergence
    return {
        "beta": beta,
        "rate": divergence.mean().item(),
        "rate_error": _error(divergence),
        "distortion": -fit.mean().item() - found.log_scale,
        "distortion_error": _error(fit),
        "elbo": elbo.mean().item() + found.log_scale,
        "elbo_error": _error(elbo),
        "log_p": claim.mean + found.log_scale,
        "log_p_error": claim.standard_error,
        "unreliable": claim.unreliable / len(test),
        "squared_error": square.mean().item(),
        "squared_error_error": _error(square),
        "active": int(usage.active.sum()),
        "mutual_information": parts.mutual_information.mean,
        "marginal": parts.marginal.mean,
        "marginal_error": parts.marginal.standard_error,
        "told_apart": right.mean().item(),
        "told_apart_error": _error(right),
        "points": str(path),
    }


def same_by_width(found: Found, beta: float) -> Row:
    r"""β times the KL term is the same as 1 times it and a decoder √β as wide: the weights of both fits, compared.

    (reconstruction − β KL)/β is, up to a constant, −‖x − x̂‖²/(2 β σ²) − KL, and Adam does not see the factor 1/β.
    In double precision, where only Adam's ε and rounding tell the two apart.
    """
    exact = Found(
        found.settings, found.train.double(), found.test.double(), found.mean, found.std, found.log_scale, found.seed
    )
    width, training = found.settings.width, exact.training(epochs=found.settings.same_epochs)
    weighted = exact.fresh(FixedScale(width), found.settings.latents)
    weighted.fit(exact.train, training, estimator=AnalyticKL(kl_weight=beta), generator=exact.generator("same"))
    wide = exact.fresh(FixedScale(width * math.sqrt(beta)), found.settings.latents)
    wide.fit(exact.train, training, generator=exact.generator("same"))
    start = exact.fresh(FixedScale(width), found.settings.latents)
    trios = zip(weighted.parameters(), wide.parameters(), start.parameters(), strict=True)
    off, moved = 0.0, 0.0
    for a, b, c in trios:
        off, moved = max(off, (a - b).abs().max().item()), max(moved, (a - c).abs().max().item())
    return {"beta": beta, "weights_apart": off, "weights_moved": moved}


def warm_up(found: Found, warm: bool) -> tuple[Row, Tensor]:
    """Many latents, a decoder that learns its width; warm-up raises the weight of the KL term from 0 to 1 first."""
    settings = found.settings
    model = found.fresh(GlobalScale(1.0), settings.many_latents)
    generator, before = found.generator("warm"), settings.epochs // 5
    if warm:
        for stage in range(STAGES):
            training = found.training(epochs=before // STAGES, falling=False)
            model.fit(found.train, training, estimator=AnalyticKL(kl_weight=stage / STAGES), generator=generator)
    model.fit(found.train, found.training(epochs=settings.epochs - before * warm), generator=generator)
    with torch.no_grad():
        elbo = model.elbo(found.test, draws=settings.draws, generator=found.generator("warm judge"))
    usage = latent_usage(model, found.test)
    row: Row = {
        "label": "warm-up" if warm else "none",
        "elbo": elbo.mean().item() + found.log_scale,
        "elbo_error": _error(elbo),
        "active": int(usage.active.sum()),
        "rate": usage.kl.sum().item(),
    }
    return row, elbo


def compare_warm_up(found: Found) -> list[Row]:
    """Both ways from the same start, and the difference in their ELBO, paired."""
    (cold, without), (warm, with_it) = warm_up(found, False), warm_up(found, True)
    gain = with_it - without
    return [
        {**cold, "gain": 0.0, "gain_error": 0.0},
        {**warm, "gain": gain.mean().item(), "gain_error": _error(gain)},
    ]


def two_sample(data: Tensor, drawn: Tensor) -> Tensor:
    """Whether each point, of data and of samples, is told apart from the other kind by its nearest neighbours.

    Leave-one-out, by the majority of five (Lopez-Paz & Oquab 2017): one half on average if the two densities are equal.
    """
    both = torch.cat([data, drawn]).double()
    label = torch.arange(len(both), device=both.device) < len(data)
    distance = torch.cdist(both, both).fill_diagonal_(math.inf)
    votes = label[distance.topk(NEIGHBOURS, largest=False).indices].double().mean(1)
    return ((votes > 0.5) == label).double()


def _save_samples(path: Path, found: Found, model: VAE) -> None:
    """Means of the decoder at draws from the prior, in the units of the data."""
    z = model.prior.sample(SHOWN, generator=found.generator("pictures"))
    with torch.no_grad():
        means = model.decode(z) * found.std + found.mean
    buffer = io.BytesIO()
    np.savez_compressed(buffer, means=means.float().cpu().numpy())
    write_whole(path, buffer.getvalue())


def _error(values: Tensor) -> float:
    return (values.double().std() / math.sqrt(len(values))).item()
