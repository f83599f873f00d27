"""Public functions of the library come to the same on a device; most wait for nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cases.claims_and_conversions import CLAIMS_AND_CONVERSIONS, DEAR
from tests.cases.computations import COMPUTATIONS
from tests.device.comparing import asking_nothing, both, seed
from tests.laws.claims import CLAIMS
from tests.laws.test_claims import MODELS


def points() -> Tensor:
    return torch.randn(6, 4, generator=seed("cpu"), dtype=torch.float64)


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_what_waits_for_nothing(name: str) -> None:
    def call(device: str) -> object:
        torch.manual_seed(3)
        run = COMPUTATIONS[name](points().to(device))
        with asking_nothing(device):
            return run(seed(device))

    both(call)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in DEAR]


@pytest.mark.parametrize("name", [*CLAIMS_AND_CONVERSIONS, *SLOW])
def test_what_looks_at_its_results(name: str) -> None:
    def call(device: str) -> object:
        torch.manual_seed(3)
        return (CLAIMS_AND_CONVERSIONS | DEAR)[name](points().to(device), seed(device))

    both(call)


FEW = ("bound: VAE, Bernoulli, context", "bound: HierarchicalVAE", "bound: VAE, categorical latent")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in FEW]


@pytest.mark.parametrize("name", [*FEW, *OTHERS])
def test_claims(name: str) -> None:
    """Everything of ``lvm.evidence`` that a model can be asked."""
    case = MODELS[name]

    def call(device: str) -> list[Any]:
        torch.manual_seed(3)
        model = case.make(seed("cpu"))
        x, context = case.points(model, seed("cpu"), 3).to(device), case.context(model, seed("cpu"), 3)
        there, about = model.to(device), None if context is None else context.to(device)
        return [asked.ask(there, x, about, seed(device)) for asked in CLAIMS.values() if asked.of(there)]

    both(call)
