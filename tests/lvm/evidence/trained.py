"""The table of small trained models whose log p(x) quadrature knows: a new model is one new line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density import ConditionalGaussian, Density, NetworkScale, PerFeatureScale, Rescaled, StandardNormal, Training, mlp
from flows import real_nvp
from lvm import VAE, GaussianMixture

HELD_OUT = 100


def curve(n: int, generator: Generator) -> Tensor:
    """A line in space, with noise."""
    t = 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1.5
    return torch.cat([t, t.square(), (3 * t).sin()], 1) + 0.1 * _noise(n, 3, generator)


def ring(n: int, generator: Generator) -> Tensor:
    """A circle in the plane, with noise: no interval covers it without a seam."""
    t = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return torch.cat([t.cos(), t.sin()], 1) + 0.05 * _noise(n, 2, generator)


def eight(n: int, generator: Generator) -> Tensor:
    """A curve that crosses itself: there two latents explain a point."""
    t = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return torch.cat([t.sin(), 0.75 * (2 * t).sin()], 1) + 0.05 * _noise(n, 2, generator)


def wine(n: int, generator: Generator) -> Tensor:
    from sklearn.datasets import load_wine

    return _shuffled(load_wine().data, generator)


def cancer(n: int, generator: Generator) -> Tensor:
    from sklearn.datasets import load_breast_cancer

    return _shuffled(load_breast_cancer().data, generator)


def digits(n: int, generator: Generator) -> Tensor:
    from sklearn.datasets import load_digits

    pixels = _shuffled(load_digits().data, generator)
    return (pixels + torch.rand(pixels.shape, generator=generator, dtype=torch.float64)) / 17


def bits(n: int, generator: Generator) -> Tensor:
    from sklearn.datasets import load_digits

    return (_shuffled(load_digits().data, generator) > 7.5).double()[:, 10:34]


def common(features: int, latents: int, hidden: tuple[int, ...], prior: Density | None = None) -> VAE:
    """One σ a feature, whatever the latent."""
    return VAE.gaussian(features, latents, hidden=hidden, scale=PerFeatureScale(features), prior=prior)


def relu(features: int) -> VAE:
    decoder = ConditionalGaussian(mlp(1, features, (32,), nn.ReLU), features, 1, PerFeatureScale(features))
    return VAE(StandardNormal(1), common(features, 1, (32,)).encoder, Rescaled(decoder))


@dataclass(frozen=True)
class Trained:
    """A model, its data, and how long it trains.

    Attributes:
        data: ``[n, D]`` of a number of rows (tables have their own) and a generator.
        make: the model of D features.
        epochs: few, as the encoder is then what it is in practice: not the best.
    """

    data: Callable[[int, Generator], Tensor]
    make: Callable[[int], VAE]
    epochs: int

    def fitted(self, generator: Generator, held_out: int = HELD_OUT) -> tuple[VAE, Tensor]:
        """The model in float64, and points that it has not seen."""
        x = self.data(1000 + held_out, generator)
        held_out = min(held_out, len(x) // 3)
        model = self.make(x.shape[1]).double()
        model.fit(x[:-held_out], Training(epochs=self.epochs, progress=False), generator=generator)
        return model, x[-held_out:]


TRAINED: dict[str, Trained] = {
    "curve, 1 latent": Trained(curve, lambda d: common(d, 1, (32,)), 60),
    "eight, 1 latent": Trained(eight, lambda d: common(d, 1, (32, 32)), 60),
    "ring, barely trained": Trained(ring, lambda d: common(d, 2, (32,)), 5),
    "ring, network σ": Trained(ring, lambda d: VAE.gaussian(d, 2, hidden=(32,), scale=NetworkScale()), 40),
    "wine": Trained(wine, lambda d: common(d, 2, (32,)), 150),
    "cancer": Trained(cancer, lambda d: common(d, 2, (64,)), 100),
    "cancer, ReLU": Trained(cancer, relu, 100),
    "digits": Trained(digits, lambda d: common(d, 2, (64,)), 30),
    "bits": Trained(bits, lambda d: VAE.bernoulli(d, 2, hidden=(32,)), 30),
    "curve, mixture prior": Trained(curve, lambda d: common(d, 2, (32,), prior=GaussianMixture(2, 3)), 40),
    "curve, flow prior": Trained(curve, lambda d: common(d, 2, (32,), prior=real_nvp(2, 2, (16,))), 40),
}


def _noise(n: int, features: int, generator: Generator) -> Tensor:
    return torch.randn(n, features, generator=generator, dtype=torch.float64)


def _shuffled(table: object, generator: Generator) -> Tensor:
    x = torch.as_tensor(table, dtype=torch.float64)
    return x[torch.randperm(len(x), generator=generator)]
