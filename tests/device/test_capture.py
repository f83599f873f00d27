# ruff: noqa: ANN401
"""A training step could be captured as a CUDA graph: nothing in it waits, comes from the host, or changes by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from density import Checkpoint, History, Training, adam, maximise
from density.fitting.ascent import _Ascent
from density.fitting.optimisers import Parameters
from lvm.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    GradientEstimator,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
)
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.flows import FLOWS, built
from tests.cases.layered_models import LOOSE, TIGHT
from tests.cases.likelihoods import LIKELIHOODS
from tests.device.capturing import Recording, blockers, recording
from tests.device.pretended import Pretended, pretended
from tests.device.test_device import made, seed
from tests.laws.bounds import BoundCase

STEPS, ROWS = 3, 6
SETTINGS = Training(
    epochs=1, batch_size=ROWS, validation=0.0, clip=1.0, weight_decay=0.01, compiled=True, progress=False
)
HOW: dict[str, dict[str, Any]] = {"VAE, categorical latent": {"estimator": LeaveOneOut(draws=2)}}
ESTIMATORS: tuple[GradientEstimator, ...] = (
    ScoreFunction(), LeaveOneOut(draws=2), Reparametrised(draws=2), AnalyticKL(kl_weight=0.5), StickingTheLanding(),
    ImportanceWeighted(draws=3), DoublyReparametrised(draws=3),
    MixtureLikelihood(8, seed=0),  # fresh nodes are Sobol points, which torch makes on the host
)  # fmt: skip
TABLES: dict[str, Any] = {**DENSITIES, **LIKELIHOODS, **BOUNDS, **TIGHT, **LOOSE}


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pretended():
        yield


def steps(fit: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Recordings of the steps of a fit, objective, gradient and update; of the first, in which the optimiser makes its
    state, an empty one.
    """
    found: list[Recording] = []

    def recorded(self: Any, batch: Any, *, step: Any = _Ascent._climbed) -> Tensor:
        with recording() if self.course.steps else nullcontext(Recording()) as one:
            loss: Tensor = step(self, batch)
        found.append(one)
        return loss

    monkeypatch.setattr(_Ascent, "_climbed", recorded)
    fit()
    return found


def climbed(model: Any, x: Tensor, context: Tensor | None, settings: Training = SETTINGS, **how: Any) -> None:
    """By the model's own fit where that climbs a gradient, else by what the model answers with as a module."""
    generator = seed("cuda")
    takes = inspect.signature(getattr(model, "fit", lambda: None)).parameters
    if "training" in takes and "em" not in takes:
        given = {} if context is None else {"context": context}
        model.fit(x, settings, generator=generator, **given, **how)
    else:
        batch = (x,) if context is None else (x, context)
        maximise(model, lambda batch, _: model(*batch), batch, settings, generator=generator)


def case_of(name: str) -> tuple[nn.Module, Tensor, Tensor | None]:
    """A model of the tables, with points and contexts for its steps."""
    torch.manual_seed(3)
    if name in FLOWS:
        flow, _ = built(name, seed("cpu"))
        shape = (STEPS * ROWS, flow.features), (STEPS * ROWS, flow.context_features)
        x, context = (torch.randn(each, generator=seed("cpu"), dtype=torch.float64).to("cuda") for each in shape)
        return flow.double().to("cuda"), x, context if flow.context_features else None
    case, model = TABLES[name], made(TABLES[name], "cuda")
    x = case.points(model, seed("cpu"), STEPS * ROWS).to("cuda")
    if isinstance(case, BoundCase):
        context = case.given(model, seed("cpu"), STEPS * ROWS).get("context")
    else:
        context = case.context(model, seed("cpu"), STEPS * ROWS)
    return model, x, None if context is None else context.to("cuda")


def capturable(name: str, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    model, x, context = case_of(name)
    if not any(p.requires_grad for p in model.parameters()):
        return
    found = steps(lambda: climbed(model, x, context, **how), monkeypatch)
    assert len(found) == STEPS
    assert not (why := blockers(*found[1:])), "\n".join(why)


@pytest.mark.filterwarnings("ignore::density.TiedColumns")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if i % 5 else ()) for i, name in enumerate([*FLOWS, *TABLES])],
)
def test_a_training_step_could_be_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capturable(name, monkeypatch, **HOW.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_a_step_of_every_estimator_could_be_captured(
    estimator: GradientEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    capturable("VAE, fixed σ", monkeypatch, estimator=estimator)


BLOCKING: dict[str, tuple[str, Callable[[Tensor, int], object]]] = {
    "a wait": ("waits in _local_scalar_dense", lambda x, step: x * x.sum().item()),
    "a choice": ("waits in _local_scalar_dense", lambda x, step: x if x.sum() > 3 else -x),
    "numbers": ("brings numbers from the host in tensor", lambda x, step: torch.tensor([1.0, 2.0], device="cuda")),
    "a number of the CPU": ("a tensor of the CPU in mul", lambda x, step: x * torch.tensor(2.0)),
    "a shape that changes": (
        "aten.sum.default['[4] torch.float32'], and the next time aten.sum.default['[3] torch.float32']",
        lambda x, step: x[: 4 - step].sum(),
    ),
    "a number that changes": (
        "'1'], and the next time aten.mul.Tensor['[4] torch.float32', '2']",
        lambda x, step: x * (1 + step),
    ),
    "an operation more": ("nothing, and the next time aten.neg", lambda x, step: -x if step else x),
}


@pytest.mark.parametrize("name", BLOCKING)
def test_what_blocks(name: str) -> None:
    words, work = BLOCKING[name]
    x, found = torch.ones(4, device="cuda"), list[Recording]()
    for step in (0, 1):
        with recording() as one:
            x + 1
            work(x, step)
        found.append(one)
    assert any(words in why for why in blockers(*found)), blockers(*found)


def test_numbers_of_the_device_may_change() -> None:
    found = []
    for step in (0, 1):
        x = torch.full((4,), 1.0 + step, device="cuda")
        with recording() as one:
            torch.where(x > 1, x, -x) * torch.randn(4, device="cuda", generator=seed("cuda", step))
        found.append(one)
    assert not blockers(*found)
    assert found[0].operations


def test_whole_batches_are_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``mode="reduce-overhead"`` says; of a batch in parts not, whose gradients are added up in its memory."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: asked.append(how) or function)
    for parts in (None, 2):
        climbed(*case_of("linear, lu"), settings=replace(SETTINGS, parts=parts))
    graph = {"fullgraph": True, "dynamic": False, "options": {"fallback_random": True, "triton.cudagraphs": True}}
    assert asked == [graph, {**graph, "options": {"fallback_random": True}}]


class Cut(Exception):
    """What ends a fit before its time."""


def fitted(compiled: bool, callback: Callable[[History], None] | None, checkpoint: Checkpoint | None) -> Tensor:
    """The weights after two epochs, by an optimiser that is looked at afterwards."""
    kept: list[Optimizer] = []

    def keeping(parameters: Parameters, rate: float) -> Optimizer:
        kept.append(adam(parameters, rate))
        return kept[-1]

    model, x, context = case_of("linear, lu")
    climbed(
        model, x, context,
        replace(SETTINGS, epochs=2, compiled=compiled, checkpoint=checkpoint, optimiser=keeping, callback=callback),
    )  # fmt: skip
    for group in kept[-1].param_groups:
        assert group["capturable"] is compiled
        assert isinstance(group["lr"], Pretended) is compiled
    for state in kept[-1].state.values():
        assert isinstance(state["step"], Pretended)
        assert state["step"].item() == 2 * STEPS
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_optimiser_counts_and_has_its_rate_on_the_device(tmp_path: Path) -> None:
    """Also after it was resumed from a file; and it steps as the one does of which nothing is captured."""

    def cut(history: History) -> None:
        raise Cut

    captured, checkpoint = fitted(True, None, None), Checkpoint(tmp_path / "fit", steps=1)
    with pytest.raises(Cut):
        fitted(True, cut, checkpoint)
    assert captured.equal(fitted(True, None, checkpoint))
    torch.testing.assert_close(captured, fitted(False, None, None), rtol=1e-6, atol=1e-7)  # rates in single precision
