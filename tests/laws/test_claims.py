"""Every claim of every model obeys every law of claims."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import ExactModel, Model
from flows import continuous_flow
from lvm import evidence
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.flows import FLOWS, built
from tests.cases.layered_models import LOOSE, TIGHT
from tests.laws.bounds import BoundCase
from tests.laws.claims import CLAIMS, ClaimCase, WithMode, claim_laws, with_modes
from tests.laws.density_case import DensityCase
from tests.laws.transforms import randomise


def of_bound(case: BoundCase) -> ClaimCase:
    return ClaimCase(case.make, case.points, lambda m, g, n: case.given(m, g, n).get("context"))  # type: ignore[arg-type]


def of_density(case: DensityCase) -> ClaimCase:
    return ClaimCase(case.make, case.points, case.context)  # type: ignore[arg-type]


def of_flow(name: str) -> ClaimCase:
    def normal(width: int, generator: Generator, n: int) -> Tensor:
        return torch.randn(n, width, generator=generator, dtype=torch.float64)

    def context(model: Model, generator: Generator, n: int) -> Tensor | None:
        return normal(model.context_features, generator, n) if model.context_features else None

    return ClaimCase(lambda g: built(name, g)[0], lambda m, g, n: normal(m.features, g, n), context)


MODELS = {
    **{f"bound: {name}": of_bound(case) for name, case in BOUNDS.items()},
    **{f"layers: {name}": of_bound(case) for name, case in (TIGHT | LOOSE).items()},
    **{
        f"density: {name}": of_density(case)
        for name, case in DENSITIES.items()
        if isinstance(case.make(Generator().manual_seed(0)), ExactModel)
    },
    **{f"flow: {name}": of_flow(name) for name in FLOWS},
    "flow: continuous": ClaimCase(
        lambda g: randomise(continuous_flow(2, (4,), tolerance=1e-2), g).double(),
        lambda m, g, n: torch.randn(n, 2, generator=g, dtype=torch.float64),
        lambda m, g, n: None,
    ),
}


@pytest.mark.parametrize("law", claim_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_claim_law(name: str, law: Callable[[ClaimCase, Generator], None], generator: Generator) -> None:
    law(MODELS[name], generator)


def test_every_public_function_of_evidence_is_among_the_claims() -> None:
    functions = {name for name in evidence.__all__ if inspect.isfunction(getattr(evidence, name))}
    assert functions <= {name.split(",")[0] for name in CLAIMS}


def test_the_laws_can_fail(generator: Generator) -> None:
    """Most models of the tables have networks, whose log-weights and log_prob do depend on the mode."""
    models = [with_modes(case.make(generator)) for case in MODELS.values()]
    assert sum(any(isinstance(part, WithMode) for part in model.modules()) for model in models) >= 25
