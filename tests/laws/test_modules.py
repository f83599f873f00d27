"""Every model obeys every law of modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Generator, Tensor, nn

from density import Bound, Density
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.layered_models import LOOSE, TIGHT
from tests.laws.bounds import BoundCase
from tests.laws.densities import DensityCase
from tests.laws.modules import ModuleCase, module_laws


def of_density(case: DensityCase) -> ModuleCase:
    def inputs(density: nn.Module, generator: Generator) -> tuple[Tensor, ...]:
        assert isinstance(density, Density)
        x, context = case.points(density, generator, 3), case.context(density, generator, 3)
        return (x,) if context is None else (x, context)

    return ModuleCase(case.make, inputs)


def of_bound(case: BoundCase, discrete: bool = False) -> ModuleCase:
    return ModuleCase(case.make, lambda model, generator: (case.points(model, generator, 3),), discrete)


MODULES = {
    **{f"density: {name}": of_density(case) for name, case in DENSITIES.items()},
    **{f"bound: {name}": of_bound(case, discrete="categorical" in name) for name, case in BOUNDS.items()},
    **{f"layers: {name}": of_bound(case) for name, case in (TIGHT | LOOSE).items()},
}


@pytest.mark.parametrize("law", module_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MODULES)
def test_module_law(name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator) -> None:
    law(MODULES[name], generator)


def test_a_model_that_is_a_density_and_a_bound_answers_as_a_density(generator: Generator) -> None:
    both = [case.make(generator) for case in MODULES.values()]
    both = [model for model in both if isinstance(model, Density) and isinstance(model, Bound)]
    assert {"PPCA", "GaussianMixture", "LinearVAE", "FlowVAE", "TightLayeredModel"} == {type(m).__name__ for m in both}
    for model in both:
        assert type(model).forward is Density.forward
