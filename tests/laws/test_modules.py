"""Every model obeys every law of modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Bound, Density, Training, maximise
from lvm import PPCA, GaussianMixture, LayeredModel, LinearVAE
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.layered_models import LOOSE, TIGHT
from tests.cases.likelihoods import LIKELIHOODS
from tests.laws.bounds import BoundCase
from tests.laws.density_case import DensityCase
from tests.laws.modules import ModuleCase, a_compiled_model_is_one_graph, a_compiled_step_is_one_graph, module_laws


def of_density(case: DensityCase) -> ModuleCase:
    def inputs(density: nn.Module, generator: Generator) -> tuple[Tensor, ...]:
        assert isinstance(density, Density)
        x, context = case.points(density, generator, 3), case.context(density, generator, 3)
        return (x,) if context is None else (x, context)

    return ModuleCase(case.make, inputs)


def of_bound(case: BoundCase, discrete: bool = False) -> ModuleCase:
    def inputs(model: nn.Module, generator: Generator) -> tuple[Tensor, ...]:
        assert isinstance(model, LayeredModel)
        return case.points(model, generator, 3), *case.given(model, generator, 3).values()

    return ModuleCase(case.make, inputs, discrete)


MODULES = {
    **{f"density: {name}": of_density(case) for name, case in DENSITIES.items()},
    **{f"bound: {name}": of_bound(case, discrete="categorical" in name) for name, case in BOUNDS.items()},
    **{f"layers: {name}": of_bound(case) for name, case in (TIGHT | LOOSE).items()},
}


def laws_of(name: str) -> list[object]:
    """Graphs take a second each: of every third model always, of the others where slow tests run."""
    dear = list(MODULES | LIKELIHOODS).index(name) % 3 or name in LIKELIHOODS
    return [
        pytest.param(
            name, law, id=f"{name}-{law.__name__}",
            marks=pytest.mark.slow if dear and law is a_compiled_model_is_one_graph else (),
        )
        for law in module_laws
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "law"), [each for name in MODULES for each in laws_of(name)])
def test_module_law(name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator) -> None:
    law(MODULES[name], generator)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_compiled_step_is_one_graph(name: str, generator: Generator) -> None:
    a_compiled_step_is_one_graph(MODULES[name], generator)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_compiled_step_of_likelihoods_is_one_graph(name: str, generator: Generator) -> None:
    a_compiled_step_is_one_graph(of_density(LIKELIHOODS[name]), generator)


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSITIES)
def test_a_compiled_draw_is_one_graph(name: str, generator: Generator) -> None:
    """Captured without a break, and of equal value."""
    case = DENSITIES[name]
    density = case.make(generator)
    context = case.context(density, generator, 3)
    torch.compiler.reset()
    compiled = torch.compile(lambda: density.sample(4, context=context), backend="eager", fullgraph=True)
    draws = []
    for draw in (compiled, lambda: density.sample(4, context=context)):
        torch.manual_seed(0)
        draws.append(draw())
    torch.testing.assert_close(*draws)


@pytest.mark.parametrize(("name", "law"), [each for name in LIKELIHOODS for each in laws_of(name)])
def test_module_law_of_likelihoods(
    name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator
) -> None:
    law(of_density(LIKELIHOODS[name]), generator)


@pytest.mark.parametrize("name", MODULES)
def test_weight_decay_is_of_networks_weights_alone(name: str, generator: Generator) -> None:
    """Steps without any gradient: the matrices of torch's own layers shrink by the factor, and nothing else moves."""
    model = MODULES[name].make(generator)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    if not any(p.requires_grad for p in model.parameters()):
        return
    settings = Training(epochs=2, learning_rate=0.1, weight_decay=0.5, validation=0, annealing=0, progress=False)
    x = torch.zeros(4, 1, dtype=torch.float64)
    maximise(
        model, lambda batch, _: 0 * batch[0].sum(-1) + 0 * sum(p.sum() for p in model.parameters()), (x,), settings
    )
    owners = {
        key: owner for path, owner in model.named_modules() for key in (f"{path}.weight".lstrip("."),) if key in before
    }
    shrunk = {key for key, p in model.named_parameters() if not p.equal(before[key])}
    matrices = {key for key, owner in owners.items() if isinstance(owner, nn.Linear) and before[key].any()}
    assert shrunk == {key for key in matrices if model.get_parameter(key).requires_grad}
    for key in shrunk:
        torch.testing.assert_close(model.get_parameter(key).detach(), before[key] * 0.95**2)
    if isinstance(model, PPCA | GaussianMixture | LinearVAE):
        assert not shrunk


def test_a_model_that_is_a_density_and_a_bound_answers_as_a_density(generator: Generator) -> None:
    both = [case.make(generator) for case in MODULES.values()]
    both = [model for model in both if isinstance(model, Density) and isinstance(model, Bound)]
    assert {"PPCA", "GaussianMixture", "FiniteMixture", "LinearVAE", "FlowVAE", "TightLayeredModel"} == {
        type(m).__name__ for m in both
    }
    for model in both:
        assert type(model).forward is Density.forward
