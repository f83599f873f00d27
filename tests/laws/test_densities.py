"""Every density obeys every law."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Generator

from tests.cases.densities import ADAPTED, DENSITIES
from tests.cases.likelihoods import LIKELIHOODS
from tests.laws.densities import density_laws
from tests.laws.density_case import DensityCase


@pytest.mark.parametrize("law", density_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", [*DENSITIES, *LIKELIHOODS, *ADAPTED])
def test_density_law(name: str, law: Callable[[DensityCase, Generator], None], generator: Generator) -> None:
    law((DENSITIES | LIKELIHOODS | ADAPTED)[name], generator)
