"""On images of digits: what variational dequantisation, flow posteriors and a flow prior are worth. Minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from bridge import (
    DeltaLink,
    LinkChain,
    UniformDequantisation,
    VariationalDequantisation,
    autoregressive_posterior,
    coupling_posterior,
    layered,
    with_flow_prior,
    with_posterior,
)
from density import Density, StandardNormal, Training
from flows import Affine, Chain, Logit, first_half, glow, random_rotation, real_nvp
from lvm import VAE
from lvm.evidence import Gap, gap
from tests.places import SHARED_DATA

pytestmark = pytest.mark.slow

LEVELS, TRAIN = 17, 1400
BINARY_MNIST = SHARED_DATA / "mnist_static_binarized.npz"
Record = Callable[[str, float, float], None]


def digits() -> tuple[Tensor, Tensor]:
    """Images of 8 × 8 pixels with levels 0 … 16, to train on and to judge by."""
    x = torch.tensor(load_digits().data, dtype=torch.float32)
    x = x[torch.randperm(len(x), generator=Generator().manual_seed(0))]
    return x[:TRAIN], x[TRAIN:]


def bits(name: str) -> tuple[Tensor, Tensor, int]:
    """Binary images, and how many latents suit them."""
    if name == "digits":
        train, test = digits()
        return (train > 7).float(), (test > 7).float(), 8
    if not BINARY_MNIST.exists():
        pytest.skip(f"needs {BINARY_MNIST}")
    with np.load(BINARY_MNIST) as file:
        packed = file["train"][:3000], file["test"][:500]
    train, test = (torch.tensor(np.unpackbits(rows, axis=-1), dtype=torch.float32) for rows in packed)
    return train, test, 16


def training(epochs: int, learning_rate: float = 1e-3) -> Training:
    return Training(epochs=epochs, batch_size=100, learning_rate=learning_rate, patience=None, progress=False)


def standard_errors(difference: Tensor) -> float:
    return float(difference.mean() / (difference.std() / math.sqrt(len(difference))))


def test_variational_dequantisation_beats_uniform(record_measurement: Record, generator: Generator) -> None:
    """The density of z is fitted with uniform noise and held fixed: what the learned noise gains, uniform's gap has."""
    train, test = digits()
    flow = glow(64, 6, (128,), masks=first_half, linear=random_rotation(generator))
    top = DeltaLink(Chain(Affine(0.0, float(LEVELS)), Logit(), flow.transform), 64)
    uniform = layered(StandardNormal(64), LinkChain(UniformDequantisation(64, LEVELS), top))
    uniform.fit(train, training(40), generator=generator)
    top.requires_grad_(False)
    noise = glow(64, 4, (128,), context_features=64, masks=first_half, linear=random_rotation(generator))
    learned = layered(StandardNormal(64), LinkChain(VariationalDequantisation(noise, LEVELS), top))
    before = deepcopy(top.state_dict())
    learned.fit(train, training(40), generator=generator)
    assert all(tensor.equal(before[name]) for name, tensor in top.state_dict().items()), "the density has moved"
    with torch.no_grad():
        gain = learned.elbo(test, draws=100, generator=generator) - uniform.elbo(test, draws=100, generator=generator)
    print(f"uniform dequantisation's gap on digits is at least {gain.mean():.3f} nats")
    record_measurement("digits: 4 / standard errors by which learned noise wins", 4 / standard_errors(gain), 1)


POSTERIORS: dict[str, Callable[[int, int], Density]] = {
    "Gaussian": lambda features, latent: VAE.bernoulli(features, latent, hidden=(128,)).encoder,
    "coupling": lambda features, latent: coupling_posterior(features, latent, hidden=(64,)),
    "autoregressive": lambda features, latent: autoregressive_posterior(features, latent, hidden=(64,)),
}


@pytest.mark.parametrize("joint", [False, True], ids=["frozen decoder", "joint"])
@pytest.mark.parametrize("name", ["digits", "MNIST"])
def test_a_flow_posterior_has_the_smaller_gap(
    name: str, joint: bool, record_measurement: Record, generator: Generator
) -> None:
    train, test, latent = bits(name)
    epochs = 60 if name == "digits" else 30
    model = VAE.bernoulli(train.shape[1], latent, hidden=(64,))
    if not joint:
        model.fit(train, training(epochs, 2e-3), generator=generator)
        model.decoder.requires_grad_(False)
    reports: dict[str, Gap] = {}
    for kind, posterior in POSTERIORS.items():
        one = with_posterior(deepcopy(model) if joint else model, posterior(train.shape[1], latent))
        one.fit(train, training(epochs, 2e-3), generator=generator)
        reports[kind] = gap(one, test, draws=500, generator=generator)
        print(f"{name}, {'joint' if joint else 'frozen decoder'}, {kind} posterior\n{reports[kind]}")
    for kind in ("coupling", "autoregressive"):
        if joint:
            smaller = reports["Gaussian"].difference.value - reports[kind].difference.value
        else:  # log p(x) is the same: the difference of the gaps is that of the ELBOs, without its error
            smaller = reports[kind].elbo.value - reports["Gaussian"].elbo.value
        label = f"{name}, {'joint' if joint else 'frozen'}: 4 / standard errors by which the {kind} gap is smaller"
        record_measurement(label, 4 / standard_errors(smaller), 1)


@pytest.mark.parametrize("name", ["digits", "MNIST"])
def test_a_flow_prior_raises_the_density(name: str, record_measurement: Record, generator: Generator) -> None:
    """Against the same VAE trained as much longer with its normal prior."""
    train, test, latent = bits(name)
    model = VAE.bernoulli(train.shape[1], latent, hidden=(64,))
    model.fit(train, training(60 if name == "digits" else 30, 2e-3), generator=generator)
    usual = deepcopy(model)
    hybrid = with_flow_prior(model, real_nvp(latent, 6, (64,)))
    claims = []
    for one in (usual, hybrid):
        one.fit(train, training(30, 2e-3), generator=generator)
        claims.append(one.log_density(test, draws=500, generator=generator))
        print(f"{name}, {type(one.prior).__name__} prior: {claims[-1]}")
    gain = claims[1].value - claims[0].value
    record_measurement(f"{name}: 4 / standard errors by which a flow prior wins", 4 / standard_errors(gain), 1)
