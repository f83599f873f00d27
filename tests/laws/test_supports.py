"""Every transform obeys every law of supports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator

from bridge import InverseSoftplus, Log, Spacings
from flows import Affine, Chain, Inverse, Logit, LULinear, Sigmoid
from tests.cases.transforms import TRANSFORMS, matrix, vector
from tests.laws.supports import support_laws
from tests.laws.transforms import TransformCase

RESTRICTED = {
    "log": TransformCase(lambda g: Log(), domain=lambda x: x.abs() + 0.01),
    "inverse softplus": TransformCase(lambda g: InverseSoftplus(), domain=lambda x: 3 * x.abs() + 0.01),
    "spacings": TransformCase(lambda g: Spacings(3), domain=lambda x: (x.abs() + 0.05).cumsum(-1) - 2),
    "pixels": TransformCase(
        lambda g: Chain(Affine(0.0, 4.0), Logit(), LULinear.from_matrix(matrix(g, 3), vector(g, 3))).double(),
        domain=lambda x: 4 * x.sigmoid(),
    ),
    "log, spacings": TransformCase(
        lambda g: Chain(Log(), Chain(Spacings(3), LULinear.from_matrix(matrix(g, 3)))),
        domain=lambda x: (x.abs() + 0.05).cumsum(-1),
    ),
    "there and back": TransformCase(
        lambda g: Chain(Inverse(Sigmoid()), Affine(0.0, 2.0), Sigmoid()).double(), domain=torch.sigmoid
    ),
}
CASES = TRANSFORMS | RESTRICTED
# nflows looks at values to refuse them itself, a solver to choose its steps.
LOOKING = [name for name in CASES if "nflows" in name or "continuous" in name]


@pytest.mark.parametrize("law", support_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", [name for name in CASES if name not in LOOKING])
def test_support_law(name: str, law: Callable[[TransformCase, Generator], None], generator: Generator) -> None:
    law(CASES[name], generator)
