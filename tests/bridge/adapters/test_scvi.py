"""A bound that has log-weights alone: one of ten lines, and scvi's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from bridge import FromScvi, from_scvi
from density import Bound, History, Measure
from density.importance import importance
from tests.bridge.adapters.stand_ins import Scvi, ScviModel


class Ten(Bound):
    """x ~ N(z, 1), z ~ N(0, 1), drawn from N(x/2, 1) where the posterior is N(x/2, 1/2): all that a bound needs."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.measure = 1, Measure.LEBESGUE

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        z = x / 2 + torch.randn(draws, *x.shape, generator=generator, dtype=x.dtype)
        joint = Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(x)
        return (joint - Normal(x / 2, 1.0).log_prob(z)).sum(-1)

    def fit(self, x: Tensor) -> History:
        raise NotImplementedError

    sample = log_density = fit  # type: ignore[assignment]


def test_a_class_that_has_only_log_weights_is_a_bound(generator: Generator) -> None:
    x = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    truth = Normal(0.0, math.sqrt(2)).log_prob(x).sum(-1)
    claim = importance(Ten(), x, draws=2000, generator=generator)
    assert claim.monte_carlo_error is not None
    assert ((claim.value - truth).abs() < 5 * claim.monte_carlo_error).all()
    assert claim.unreliable == 0
    assert (Ten().elbo(x, draws=2000, generator=generator) < truth).all()
    assert Ten()(x).shape == (50,)


def cells(n: int, genes: int = 4) -> tuple[ScviModel, FromScvi]:
    rng = np.random.default_rng(0)
    counts, batch = rng.poisson(3, (n, genes)).astype(float) + 1, rng.integers(0, 2, n)
    model = ScviModel(Scvi(genes), counts, batch)
    return model, from_scvi(model, object())


def oracle(module: Scvi, x: Tensor) -> Tensor:
    """log p(counts | batch, library) by the trapezoidal rule over the latent."""
    z = torch.linspace(-8, 8, 801)[:, None, None]
    made = module.generative(z.expand(-1, len(x), -1), x[:, :-1].sum(-1, keepdim=True).log(), x[:, -1:])
    joint = made["px"].log_prob(x[:, :-1]).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    return joint.logsumexp(0) + math.log(16 / 800)


def test_scvi_is_its_marginal(generator: Generator) -> None:
    model, adapted = cells(20)
    claim = adapted.log_density(adapted.data, draws=4000, generator=generator)
    truth = oracle(model.module, adapted.data).detach()
    assert claim.monte_carlo_error is not None
    assert ((claim.value - truth).abs() < 5 * claim.monte_carlo_error + 1e-4).all()
    assert claim.measure is Measure.COUNTING
    assert claim.method.endswith("scvi's log p(counts | batch, library size)")
    assert adapted.log_weights(adapted.data, 1, generator=generator).shape == (1, 20)
    draws = adapted.sample(500, generator=generator)
    assert draws.shape == (500, 5)
    assert set(draws[:, -1].tolist()) == {0.0, 1.0}


def test_a_divisor_that_is_not_the_number_of_draws(generator: Generator) -> None:
    """scvi-tools 1.4 makes ⌈n/m⌉ passes of m draws and divides by n: of n = 1000 and m = 600, log 1.2 = 0.18 nats."""
    model, adapted = cells(200)
    x = adapted.data
    truth = oracle(model.module, x).detach()
    tensors = {"X": x[:, :-1], "batch": x[:, -1:].long(), "labels": torch.zeros(len(x), 1)}
    with torch.no_grad():
        theirs = model.module.marginal_ll(tensors, n=1000, per_pass=600)
    claim = adapted.log_density(x, draws=1000, generator=generator)
    assert abs((theirs - truth).mean().item() - math.log(1.2)) < 0.01
    assert abs((claim.value - truth).mean().item()) < 0.01


def test_scvi_refuses_what_is_not_in_its_points(generator: Generator) -> None:
    model, adapted = cells(20)
    wrong = adapted.data.clone()
    wrong[0, -1] = 2
    with pytest.raises(ValueError, match="index of a batch, 0 to 1"):
        importance(adapted, wrong)
    with pytest.raises(ValueError, match="raw counts"):
        importance(adapted, adapted.data + torch.tensor([0.5, 0, 0, 0, 0]))
    with pytest.raises(TypeError, match="trained by scvi"):
        adapted.fit(adapted.data)
    fields = (np.ones((3, 4)), np.zeros(3))
    with pytest.raises(ValueError, match="the model has size_factor"):
        from_scvi(ScviModel(model.module, *fields, size_factor=np.ones(3)), object())
    model.module.latent_distribution = "ln"
    with pytest.raises(ValueError, match="latents are 'ln'"):
        from_scvi(model, object())
    with pytest.raises(TypeError, match=r"scvi\.model\.SCVI"):
        from_scvi(object(), object())
