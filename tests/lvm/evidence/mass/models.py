"""Small models of bits whose log p(x) is known at all states."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, nn

from density import (
    Categorical,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    NetworkScale,
    StandardNormal,
    mlp,
)
from lvm import VAE
from tests.laws.transforms import randomise


def continuous(bits: int, latents: int, generator: Generator, steep: float = 1.0, encoder_std: float = 1.2) -> VAE:
    """A decoder with random weights, and an encoder near N(0, std²): broader than the posterior where that is 1.2."""
    decoder = ConditionalBernoulli(mlp(latents, bits, (6,), nn.Tanh), bits, latents)
    network = nn.Linear(bits, 2 * latents)
    with torch.no_grad():
        network.weight.mul_(0.1)
        network.bias.copy_(torch.cat([torch.zeros(latents), torch.full((latents,), math.log(encoder_std))]))
    encoder = ConditionalGaussian(network, latents, bits, NetworkScale())
    model = VAE(StandardNormal(latents), encoder, decoder).double()
    randomise(model.decoder, generator, steep)
    return model


def one_hot(bits: int, components: int, generator: Generator) -> VAE:
    """A mixture of products of Bernoullis, with an encoder that is nearly uniform."""
    decoder = ConditionalBernoulli(nn.Linear(components, bits), bits, components)
    encoder = ConditionalCategorical(nn.Linear(bits, components), components, bits)
    model = VAE(Categorical(components), encoder, decoder).double()
    randomise(model.prior, generator, 1.0)
    randomise(model.decoder, generator, 2.0)
    randomise(model.encoder, generator, 0.1)
    return model


FIVE: dict[str, Callable[[Generator], VAE]] = {
    "mixture of 2": partial(one_hot, 6, 2),
    "mixture of 5": partial(one_hot, 7, 5),
    "1 latent": partial(continuous, 6, 1),
    "1 steep latent": partial(continuous, 8, 1, steep=2.0),
    "2 latents": partial(continuous, 5, 2),
}
