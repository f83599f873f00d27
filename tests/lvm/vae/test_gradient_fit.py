"""Training with each gradient estimator."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import (
    Kind,
    LogDensity,
    Training,
    constant,
)
from lvm import VAE, LatentVariableModel
from lvm.evidence import importance
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import DoublyReparametrised, ImportanceWeighted, LeaveOneOut
from tests.lvm.vae.gradient_examples import EVERY_ESTIMATOR, EnumerableVAE, linear_vae

Record = Callable[[str, float, float], None]


@pytest.mark.parametrize("estimator", EVERY_ESTIMATOR, ids=repr)
def test_fit_with_every_estimator(estimator: GradientEstimator, generator: Generator) -> None:
    z = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([z, z.square(), -z], 1) + 0.3 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    model = VAE.gaussian(3, 1, hidden=(8,))
    still = Training(epochs=1, batch_size=None, learning_rate=1e-12, validation=0, progress=False)
    history = model.fit(x, still, estimator=estimator, generator=generator)
    bound = exact_bound(estimator, model, x)
    # one draw of the bound at 400 points; its spread over points' draws is measured
    with torch.no_grad():
        spread = torch.stack([estimator(model, x, generator).mean() for _ in range(30)]).std()
    assert abs(history.objective[0] - bound.mean) < 5 * spread + 5 * monte_carlo_error(bound)
    training = Training(
        epochs=15, batch_size=100, learning_rate=5e-3, schedule=constant, validation=0.2, progress=False
    )
    history = model.fit(x, training, estimator=estimator, generator=generator)
    assert history.validation[history.best] > history.validation[0] + 0.02
    assert history.objective[-1] > history.objective[0]


def exact_bound(estimator: GradientEstimator, model: LatentVariableModel, x: Tensor) -> LogDensity:
    """The estimator's bound, from many draws of the model's own log-weights."""
    k = estimator.draws if isinstance(estimator, ImportanceWeighted | DoublyReparametrised) else 1
    with torch.no_grad():
        log_w = model.log_weights(x, 400 * k, generator=Generator().manual_seed(0)).reshape(k, 400, -1)
        values = log_w.logsumexp(0) - math.log(k)
    return LogDensity(values.mean(0), Kind.LOWER, "mean of many", values.std(0) / 20)


def monte_carlo_error(bound: LogDensity) -> float:
    assert bound.monte_carlo_error is not None
    return (bound.monte_carlo_error.square().sum().sqrt() / len(bound.monte_carlo_error)).item()


def test_fit_learns_a_discrete_latent(generator: Generator) -> None:
    model = EnumerableVAE()
    x = torch.randn(300, 2, generator=generator) + 4 * torch.randint(2, (300, 1), generator=generator)
    training = Training(epochs=40, batch_size=100, learning_rate=1e-2, progress=False)
    before = model.exact_elbo(x).mean().item()
    history = model.fit(x, training, estimator=LeaveOneOut(4), generator=generator)
    assert model.exact_elbo(x).mean().item() > before + 1
    assert history.validation[history.best] == pytest.approx(model.exact_elbo(x).mean().item(), abs=1)
    with pytest.raises(TypeError, match="Use ScoreFunction or LeaveOneOut"):
        model.fit(x, training)


def test_training_with_more_draws_tightens_the_bound_it_reports(generator: Generator) -> None:
    model = linear_vae(generator)
    x = model.sample(500, generator=generator).detach()
    with torch.no_grad():
        bounds = [ImportanceWeighted(k)(model, x, generator).mean() for k in (1, 10, 100)]
    assert bounds[0] < bounds[1] < bounds[2]
    claim = importance(model, x, draws=100, generator=generator)
    assert bounds[2].item() == pytest.approx(claim.mean, abs=0.02)
