"""Every model that takes units from data obeys the law of units."""

from __future__ import annotations

import pytest

from density import Model
from tests.cases.units import UNITS
from tests.laws.units import (
    EXACT,
    fitted,
    is_a_start,
    law_of_contexts,
    law_of_units,
    refuses_other_units,
    started,
)

TRAINED = 0.3
CONTEXTS = [(1.0, 1e3), (10.0, 2e3), (1e-4, 0.0)]
CONDITIONAL = [name for name, case in UNITS.items() if case.context]
MODELS = [name for name, case in UNITS.items() if issubclass(type(case.make(1.0)), Model)]


@pytest.mark.parametrize("name", UNITS)
def test_a_model_starts_in_the_units_of_its_data(name: str) -> None:
    for scale in UNITS[name].scales:
        law_of_units(UNITS[name], scale, started, UNITS[name].tolerance)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_model_starts_in_the_units_of_its_contexts(name: str) -> None:
    for scale, shift in CONTEXTS:
        law_of_contexts(UNITS[name], scale, shift, started, 1e3 * EXACT)  # 1,000 from 0


@pytest.mark.parametrize("name", MODELS)
def test_training_has_no_units(name: str) -> None:
    for scale in UNITS[name].scales:
        law_of_units(UNITS[name], scale, fitted, TRAINED)


@pytest.mark.parametrize("name", [name for name in CONDITIONAL if name in MODELS])
def test_training_has_no_units_of_contexts(name: str) -> None:
    for scale, shift in CONTEXTS:
        law_of_contexts(UNITS[name], scale, shift, fitted, TRAINED)


@pytest.mark.parametrize("name", UNITS)
def test_a_start_is_made_once_and_by_itself(name: str) -> None:
    is_a_start(UNITS[name])


@pytest.mark.parametrize("name", UNITS)
def test_other_units_are_refused(name: str) -> None:
    refuses_other_units(UNITS[name])
