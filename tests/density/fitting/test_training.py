"""Settings of a gradient fit: which are refused, what a group of parameters moves by, how large batches are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from density import Training, lbfgs, maximise
from tests.density.fitting.test_maximise import Location


@pytest.fixture
def data(generator: Generator) -> Tensor:
    return torch.randn(40, 2, generator=generator, dtype=torch.float64) + torch.tensor([3.0, -2.0])


class Two(nn.Module):
    """Two locations, of which a user may wish to move one by smaller steps, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.fast = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return -0.5 * ((batch[0] - self.slow).square() + (batch[0] - self.fast).square()).sum(-1)


def grouped(share: float, as_tensor: bool = False) -> Callable[[list[nn.Parameter], float], Optimizer]:
    """An optimiser whose first group has a share of the learning rate."""

    def make(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
        rates = [share * learning_rate, learning_rate]
        groups = [
            {"params": [p], "lr": torch.tensor(rate) if as_tensor else rate}
            for p, rate in zip(parameters, rates, strict=True)
        ]
        return torch.optim.SGD(groups, lr=learning_rate)

    return make


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_groups_keep_rates_of_their_own(share: float, as_tensor: bool, data: Tensor) -> None:
    """Gradient descent on a quadratic of curvature 1 shrinks the distance by 1 − rate, step by step."""
    module = Two()
    settings = Training(
        epochs=5,
        batch_size=None,
        learning_rate=0.3,
        validation=0,
        clip=None,
        schedule=lambda progress: 1 - progress,
        annealing=1,
        optimiser=grouped(share, as_tensor),
    )
    maximise(module, module.objective, (data,), settings)
    for parameter, rate in ((module.slow, 0.3 * share), (module.fast, 0.3)):
        left = math.prod(1 - rate * (1 - step / 5) for step in range(5))
        rtol = 1e-6 if as_tensor else 1e-12  # a rate in float32
        torch.testing.assert_close(parameter.detach(), (1 - left) * data.mean(0), rtol=rtol, atol=1e-12)
    assert share or module.slow.equal(torch.zeros_like(module.slow))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("optimiser", "adam", r"optimiser must be a function .* such as density\.adam .*; got 'adam'"),
        ("optimiser", torch.optim.Adam([nn.Parameter(torch.zeros(1))]), r"optimiser must be .*; got Adam object"),
        ("optimiser", None, r"optimiser must be .*; got NoneType object"),
        ("schedule", "cosine", r"schedule must be a function .* such as density\.cosine .*; got 'cosine'"),
        ("schedule", 1.0, r"schedule must be .*; got 1\.0"),
        ("checkpoint", "fit.ckpt", r"checkpoint must be a density\.Checkpoint\(path\); got 'fit\.ckpt'"),
    ],
)
def test_what_is_no_function_is_refused_when_settings_are_made(setting: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Training(**{setting: value})


@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"),
    [
        (40, 13, [13, 13, 14]),  # one row is left over, and joins
        (41, 13, [13, 13, 13, 2]),
        (39, 13, [13, 13, 13]),
        (40, 39, [40]),
        (40, 40, [40]),
        (40, None, [40]),
        (5, 2, [2, 3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_row_that_is_left_over_joins_the_last_batch(rows: int, batch_size: int | None, sizes: list[int]) -> None:
    module = Location()
    x = torch.randn(rows, 2, dtype=torch.float64)
    asked: list[float] = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1 - progress

    settings = Training(epochs=2, batch_size=batch_size, validation=0, schedule=schedule, annealing=1)
    maximise(module, module.objective, (x,), settings)
    steps = 2 * len(sizes)
    assert asked == [step / steps for step in range(steps)]
    trained = [size for size, mode in zip(module.batches, module.modes, strict=True) if mode]
    assert trained == 2 * sizes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("epochs", "steps", "batch_size", "learning_rate", "clip", "patience")
            for value in (0, -1, math.nan, math.inf)
        ),
        *(("validation", value) for value in (-0.1, 1.0, math.nan)),
        *(("annealing", value) for value in (-0.1, 1.1, math.nan)),
        *(("averaging", value) for value in (0.0, 1.0, math.nan)),
        *(("weight_decay", value) for value in (-0.1, math.inf, math.nan)),
        *((name, 2.5) for name in ("epochs", "steps", "batch_size", "patience", "patient_steps")),
        ("patient_steps", -1),
    ],
)
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Training(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 2, "steps": 3}, "give epochs or steps, not both"),
        ({"refit": True, "validation": 0}, "refit needs held-out rows"),
        ({"optimiser": lbfgs, "weight_decay": 0.1}, "L-BFGS takes no weight_decay"),
        ({"optimiser": lbfgs, "averaging": 0.9}, "L-BFGS takes no .* averaging"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**settings)


def test_an_lbfgs_of_ones_own_takes_no_weight_decay(data: Tensor) -> None:
    net = nn.Linear(2, 1).double()
    settings = Training(epochs=1, weight_decay=0.1, optimiser=lambda p, lr: torch.optim.LBFGS([net.weight], lr=lr))
    with pytest.raises(ValueError, match="L-BFGS takes no weight_decay"):
        maximise(net, lambda batch, generator: net(batch[0]).squeeze(-1), (data,), settings)
