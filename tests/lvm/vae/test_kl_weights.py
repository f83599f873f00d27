"""Weights of the KL term that change in a fit, and KL that is free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, CheckpointMismatch, FixedScale, History, Training, cosine
from lvm import VAE
from lvm.vae.gradients import AnalyticKL
from lvm.vae.kl_weights import Cyclical, KLWeight, WarmUp
from tests.density.fitting.test_checkpoint import Cut

SHORT = Training(
    epochs=6, batch_size=20, learning_rate=1e-2, validation=0.25, progress=False, optimiser=torch.optim.SGD
)


def made() -> VAE:
    torch.manual_seed(0)
    return VAE.gaussian(3, 2, hidden=(8,)).double()


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(80, 3, generator=generator, dtype=torch.float64).cumsum(1)


def seeded() -> Generator:
    return Generator().manual_seed(3)


@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize("weight", [WarmUp(7, 0.5), Cyclical(5, 0.4)])
def test_every_step_has_the_weight_of_its_number(weight: KLWeight, parts: int | None, x: Tensor) -> None:
    """The fit against single steps of estimators of constant weight, written down by hand."""
    model, other = made(), made()
    settings = replace(SHORT, epochs=3, batch_size=None, validation=0, annealing=1, parts=parts, clip=None)
    history = model.fit(x, settings, estimator=AnalyticKL(kl_weight=weight), generator=seeded())
    assert len(history.objective) == 3
    other.initialise(x)
    drawn: list[float] = []

    class Recorded(KLWeight):
        weight, period = 1.0, 1

        def at(self, step: int) -> float:
            drawn.append(step)
            return weight.at(step)

    other.fit(x, settings, estimator=AnalyticKL(kl_weight=Recorded()), generator=seeded())
    assert drawn == [0, 1, 2]
    if parts is None:
        assert all(p.equal(q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
        by_hand, generator = made(), seeded()
        by_hand.initialise(x)
        order_of = [torch.randperm(len(x), generator=generator)]
        for step in range(3):
            rows = x[order_of[0]][torch.randperm(len(x), generator=generator)]
            bound = AnalyticKL(kl_weight=weight.at(step))(by_hand, rows, generator).mean()
            assert history.objective[step] == pytest.approx(bound.item(), rel=1e-10)
            gradients = torch.autograd.grad(bound, list(by_hand.parameters()))
            with torch.no_grad():
                for p, g in zip(by_hand.parameters(), gradients, strict=True):
                    p.add_(1e-2 * cosine(step / 3) * g)


def test_held_out_rows_are_judged_by_what_the_weight_comes_to(x: Tensor) -> None:
    """The best of a warm-up is the model whose final objective is best; free nats do not flatter it."""
    estimator = AnalyticKL(kl_weight=WarmUp(1000, 0.7), free_nats=3.0)
    model = made()
    history = model.fit(x, replace(SHORT, annealing=0), estimator=estimator, generator=seeded())
    held_out = x[torch.randperm(len(x), generator=seeded())[:20]]
    value = AnalyticKL(kl_weight=0.7)(model.eval(), held_out, Generator().manual_seed(0)).mean().item()
    assert history.validation[history.best] == pytest.approx(value, rel=1e-10)
    assert estimator.settled() == AnalyticKL(kl_weight=0.7)


def test_free_nats_are_a_floor_without_gradient(x: Tensor) -> None:
    model = made()
    model.initialise(x)
    terms = model.elbo_terms(x, generator=seeded())
    floor = terms.kl.median().item()
    bound = AnalyticKL(kl_weight=2.0, free_nats=floor)(model, x, seeded())
    expected = terms.reconstruction - 2 * terms.kl.clamp_min(floor)
    torch.testing.assert_close(bound, expected, rtol=1e-12, atol=1e-12)
    below = terms.kl < floor
    parameters = list(model.encoder.parameters())
    found = torch.autograd.grad(bound[below].sum(), parameters, retain_graph=True)
    reconstruction = torch.autograd.grad(terms.reconstruction[below].sum(), parameters)
    torch.testing.assert_close(found, reconstruction, rtol=1e-10, atol=1e-10)


def test_free_nats_keep_a_channel_open(generator: Generator) -> None:
    """Noise has nothing to say: without them q becomes the prior; with them the KL stays near what is free."""
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    rates = {}
    for free in (0.0, 1.0):
        torch.manual_seed(0)
        model = VAE.gaussian(3, 1, hidden=(8,), scale=FixedScale(1.0)).double()
        settings = Training(epochs=60, batch_size=None, learning_rate=6e-2, validation=0, progress=False)
        model.fit(x, settings, estimator=AnalyticKL(free_nats=free), generator=seeded())
        rates[free] = model.elbo_terms(x, generator=seeded()).kl.mean().item()
    assert rates[0.0] < 0.1
    assert rates[1.0] > 0.5


@pytest.mark.parametrize("weight", [WarmUp(60), Cyclical(60), 1.0])
def test_patience_outlasts_the_warm_up(weight: KLWeight | float, x: Tensor) -> None:
    """Where nothing improves after the first epoch, of three steps, a fit waits 5 epochs, and 20 more for β."""
    settings = replace(SHORT, epochs=100, patience=5, patient_steps=0, annealing=0, learning_rate=1e-30)
    history = made().fit(x, settings, estimator=AnalyticKL(kl_weight=weight), generator=seeded())
    assert len(history.validation) == (6 if weight == 1.0 else 26)


def test_a_warm_up_that_is_cut_goes_on_at_its_step(x: Tensor, tmp_path: Path) -> None:
    estimator, whole = AnalyticKL(kl_weight=WarmUp(12)), made()
    whole.fit(x, SHORT, estimator=estimator, generator=seeded())

    def cut(history: History) -> None:
        if len(history.objective) == 2:
            raise Cut

    settings, model = replace(SHORT, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1)), made()
    with pytest.raises(Cut):
        model.fit(x, replace(settings, callback=cut), estimator=estimator, generator=seeded())
    with pytest.raises(CheckpointMismatch):
        made().fit(x, settings, estimator=AnalyticKL(kl_weight=WarmUp(120)), generator=seeded())
    model = made()
    model.fit(x, settings, estimator=estimator, generator=seeded())
    assert all(p.equal(q) for p, q in zip(model.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmUp(0), "steps must be a positive int"),
        (lambda: WarmUp(5, -1.0), "kl_weight must be finite"),
        (lambda: Cyclical(2, 0.0), "ramp is a share"),
        (lambda: AnalyticKL(free_nats=-1.0), "free_nats must be finite"),
    ],
)
def test_settings_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
