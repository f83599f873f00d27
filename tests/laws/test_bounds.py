"""Every model with log-weights obeys every law."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Generator

from tests.cases.bounds import BOUNDS
from tests.laws.bounds import BoundCase, bound_laws


@pytest.mark.parametrize("law", bound_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", BOUNDS)
def test_bound_law(name: str, law: Callable[[BoundCase, Generator], None], generator: Generator) -> None:
    law(BOUNDS[name], generator)
