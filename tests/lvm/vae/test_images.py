"""Convolutional VAEs: what the builder makes, by likelihood, context and shape, and that digits are learned."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn import functional

from density import (
    BernoulliLikelihood,
    DiscretisedLogistic,
    GaussianLikelihood,
    Likelihood,
    Measure,
    Training,
    load,
    save,
)
from lvm import VAE, HierarchicalVAE
from lvm.vae.gradients import AnalyticKL
from lvm.vae.kl_weights import WarmUp

LEVELS = 17


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.from_numpy(data.data).float(), functional.one_hot(torch.from_numpy(data.target)).float()


@pytest.mark.parametrize(
    ("likelihood", "measure"),
    [
        (BernoulliLikelihood(), Measure.COUNTING),
        (GaussianLikelihood(), Measure.LEBESGUE),
        (DiscretisedLogistic(LEVELS, mixtures=2), Measure.COUNTING),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Likelihood) else "",
)
def test_every_likelihood_makes_a_convolutional_vae(
    likelihood: Likelihood, measure: Measure, digits: tuple[Tensor, Tensor], generator: Generator, tmp_path: Path
) -> None:
    """A step of a fit moves every parameter that has a say; files hold the model; draws are data of the model."""
    torch.manual_seed(0)
    x = (digits[0][:64] > 8).float()
    if measure is Measure.LEBESGUE:
        x = digits[0][:64] + torch.rand(64, 64, generator=generator)
    model = VAE.image((1, 8, 8), 3, likelihood, channels=(4, 6))
    assert model.measure is measure
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.fit(x, Training(epochs=2, batch_size=16, validation=0.0), generator=generator)
    assert [name for name, p in model.named_parameters() if p.equal(before[name])] == []
    save(model, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt")
    assert isinstance(again, VAE)
    assert again.elbo(x, generator=generator.manual_seed(0)).equal(model.elbo(x, generator=generator.manual_seed(0)))
    model.check_input(model.sample(5, generator=generator))
    assert model.reconstruct(x).shape == x.shape


@pytest.mark.slow
def test_digits_are_learned(digits: tuple[Tensor, Tensor], generator: Generator) -> None:
    """In some seconds, better than independent pixels of the training rows' frequencies: on both sides masses."""
    torch.manual_seed(0)
    train, test = digits[0][:1400], digits[0][1400:]
    counts = functional.one_hot(train.long(), LEVELS).sum(0) + 1.0
    independent = (counts / counts.sum(-1, keepdim=True)).log().gather(1, test.long().mT).sum(0)
    model = VAE.image((1, 8, 8), 6, DiscretisedLogistic(LEVELS), channels=(8, 16))
    start = model.elbo(test, draws=4, generator=generator).mean()
    model.fit(train, Training(epochs=16, learning_rate=4e-3), generator=generator)
    gain = model.elbo(test, draws=4, generator=generator) - independent
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))
    assert independent.mean() > start


def test_levels_above_images(digits: tuple[Tensor, Tensor], generator: Generator) -> None:
    """Three levels, trained with a KL weight that warms up: the ELBO rises, and no level breaks what is below it."""
    torch.manual_seed(0)
    x = digits[0][:500]
    model = HierarchicalVAE.above(VAE.image((1, 8, 8), 8, DiscretisedLogistic(LEVELS), channels=(4, 8)), (4, 2))
    start = model.elbo(x, draws=4, generator=generator)
    model.fit(
        x, Training(epochs=5, learning_rate=4e-3), estimator=AnalyticKL(kl_weight=WarmUp(steps=10)), generator=generator
    )
    gain = model.elbo(x, draws=4, generator=generator) - start
    assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))
    model.check_input(model.sample(5, generator=generator))
    for level in (1, 2, 3):
        assert model.reconstruct(x[:5], level=level).shape == (5, 64)


def test_images_of_a_class(digits: tuple[Tensor, Tensor], generator: Generator) -> None:
    """A context goes to both networks: what is drawn, and what is said of x, depends on it."""
    torch.manual_seed(0)
    x, label = digits[0][:200], digits[1][:200]
    model = VAE.image((1, 8, 8), 3, DiscretisedLogistic(LEVELS), channels=(4,), context_features=10)
    model.fit(x, Training(epochs=1), context=label, generator=generator)
    assert model.sample(2, context=label[:3], generator=generator).shape == (2, 3, 64)
    other = label.roll(1, -1)
    assert not model.encode(x[:5], label[:5]).equal(model.encode(x[:5], other[:5]))
    z = model.encode(x[:5], label[:5])
    assert not model.decode(z, label[:5]).equal(model.decode(z, other[:5]))


def test_a_shape_is_checked() -> None:
    with pytest.raises(ValueError, match=r"VAE.image expects the shape of an image, \(C, H, W\); got \(8, 8\)"):
        VAE.image((8, 8), 2, BernoulliLikelihood())
