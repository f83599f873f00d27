"""Every transform obeys every law."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Generator

from tests.cases.transforms import TRANSFORMS
from tests.laws.transforms import TransformCase, transform_laws


@pytest.mark.parametrize("law", transform_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_law(name: str, law: Callable[[TransformCase, Generator], None], generator: Generator) -> None:
    law(TRANSFORMS[name], generator)
