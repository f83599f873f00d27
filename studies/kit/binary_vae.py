"""VAEs of binary images that `mnist` and `amortization` share: tanh networks, and couplings in the posterior."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, nn

from bridge.hybrids import with_posterior
from density import ConditionalBernoulli, ConditionalGaussian, Featured, NetworkScale, StandardNormal, Training, mlp
from density.fitting.checkpoint import Checkpoint
from density.saving import files
from flows import AffineCoupling, Chain, Flow
from lvm import VAE
from lvm.vae.estimator import GradientEstimator
from studies.kit.compute import place
from studies.kit.rows import Row
from studies.kit.settings import CommonSettings

KIND = "weights of a VAE of binary images"
FEWEST = 1e-3  # share of images that has a pixel set, or not set, at the least: log-odds are finite


def tanh_vae(features: int, latents: int, encoder_hidden: Sequence[int], decoder_hidden: Sequence[int]) -> VAE:
    """Standard normal prior, diagonal Gaussian q(z|x), Bernoulli p(x|z), tanh between linear layers."""
    encoder = mlp(features, 2 * latents, encoder_hidden, nn.Tanh)
    decoder = mlp(latents, features, decoder_hidden, nn.Tanh)
    return VAE(
        StandardNormal(latents),
        ConditionalGaussian(encoder, latents, features, NetworkScale()),
        ConditionalBernoulli(decoder, features, latents),
    )


def start_at_log_odds(model: VAE, images: NDArray[np.uint8]) -> None:
    """Set the biases of the decoder's last layer to the log-odds of every pixel in images ``[n, D]``."""
    *_, last = (module for module in model.decoder.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        last.bias.copy_(torch.as_tensor(images.mean(0)).clamp(FEWEST, 1 - FEWEST).logit())


def with_coupling_posterior(model: VAE, layers: int, hidden: Sequence[int]) -> VAE:
    """The model with couplings after its Gaussian encoder, conditioned on the encoder's last hidden layer.

    They start as the identity, so that q(z|x) is at first the model's own.
    """
    encoder = model.encoder
    assert isinstance(encoder, ConditionalGaussian)
    assert isinstance(encoder.network, nn.Sequential)
    trunk, last = encoder.network[:-1], encoder.network[-1]
    assert isinstance(last, nn.Linear)
    d, width = model.latent_features, last.in_features
    base = ConditionalGaussian(last, d, width, NetworkScale())
    return with_posterior(model, Featured(trunk, Flow(base, couplings(d, layers, hidden, width)), model.features))


def couplings(features: int, layers: int, hidden: Sequence[int], context_features: int = 0) -> Chain:
    """Affine couplings with alternating masks, the identity at first."""
    masks = (torch.arange(features) % 2 == layer % 2 for layer in range(layers))
    return Chain(*(AffineCoupling(mask, hidden, context_features) for mask in masks))


def saved_fit(
    model: VAE,
    images: NDArray[np.uint8],
    settings: CommonSettings,
    training: Training,
    estimator: GradientEstimator,
    generator: Generator,
    path: Path,
) -> Row:
    """Fit a model to images and write its weights; cut at any moment, the same call goes on from a file beside them."""
    x = torch.as_tensor(images).to(*place(settings))
    checkpoint = path.with_suffix(".checkpoint")
    started = time.process_time()
    training = replace(training, checkpoint=Checkpoint(checkpoint, minutes=1), validation=0)
    history = model.fit(x, training, estimator=estimator, generator=generator)
    files.write(path, KIND, {key: value.cpu() for key, value in model.state_dict().items()})
    checkpoint.unlink(missing_ok=True)
    return {
        "train_rows": len(x),
        "epochs": training.epochs,
        "objective": history.objective[-1],
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_seconds": cpu_seconds(started),
    }


def restored(model: VAE, path: Path, settings: CommonSettings) -> VAE:
    """A model with the weights that :func:`saved_fit` wrote, where the settings want it."""
    model = model.to(*place(settings))
    model.load_state_dict(files.read(path, KIND, device="cpu"))
    return model


def cpu_seconds(started: float) -> float:
    """Seconds of this process's processor time, which other people's loads change little."""
    return round(time.process_time() - started, 1)
