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
from tests.laws.modules import ModuleCase, a_compiled_model_is_one_graph, module_laws


def of_density(case: DensityCase) -> ModuleCase:
    def inputs(density: nn.Module, generator: Generator) -> tuple[Tensor, ...]:
        assert isinstance(density, Density)
        x, context = case.points(density, generator, 3), case.context(density, generator, 3)
        return (x,) if context is None else (x, context)

    return ModuleCase(case.make, inputs)


def of_bound(case: BoundCase, looks: bool = False, discrete: bool = False) -> ModuleCase:
    return ModuleCase(case.make, lambda model, generator: (case.points(model, generator, 3),), looks, discrete)


LOOK = ("dequantisation", "rounded", "ReLU", " on a flow", " log")  # integers, x ≥ 0, or a bijection from a range
MODULES = {
    **{f"density: {name}": of_density(case) for name, case in DENSITIES.items()},
    **{f"bound: {name}": of_bound(case, discrete="categorical" in name) for name, case in BOUNDS.items()},
    **{
        f"layers: {name}": of_bound(case, looks=any(part in name for part in LOOK) and name != "VAE on a flow")
        for name, case in (TIGHT | LOOSE).items()
    },
}


LOOKING = [name for name, case in MODULES.items() if case.looks]


@pytest.mark.parametrize(
    ("law", "name"),
    [
        pytest.param(law, name, id=f"{law.__name__}-{name}")
        for law in module_laws
        for name in MODULES
        if law is not a_compiled_model_is_one_graph or name not in LOOKING
    ],
)
def test_module_law(name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator) -> None:
    law(MODULES[name], generator)


def test_a_model_that_is_a_density_and_a_bound_answers_as_a_density(generator: Generator) -> None:
    both = [case.make(generator) for case in MODULES.values()]
    both = [model for model in both if isinstance(model, Density) and isinstance(model, Bound)]
    assert {"PPCA", "GaussianMixture", "LinearVAE", "FlowVAE", "TightLayeredModel"} == {type(m).__name__ for m in both}
    for model in both:
        assert type(model).forward is Density.forward


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
@pytest.mark.parametrize("name", LOOKING)
def test_a_model_that_looks_at_its_data_is_compiled_in_pieces(name: str, generator: Generator) -> None:
    a_compiled_model_is_one_graph(MODULES[name], generator)
