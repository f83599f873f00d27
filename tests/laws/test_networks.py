"""Every network, in everything that takes one, obeys every law."""

from __future__ import annotations

import pytest
from torch import Generator

from tests.cases.networks import NETWORKS, OWNERS
from tests.laws.networks import NetworkLaw, laws_of_calls, laws_of_values

PAIRS = [(o, n) for o in OWNERS for n in NETWORKS if OWNERS[o].pair or not NETWORKS[n].pair]
# Every owner with some networks, and every network in a density and in a bijection.
SOME = [(o, n) for o, n in PAIRS if n in ("perceptron", "in place") or o in ("ConditionalGaussian", "AffineCoupling")]


@pytest.mark.parametrize("law", laws_of_values, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("owner", "network"), PAIRS)
def test_law_of_values(owner: str, network: str, law: NetworkLaw, generator: Generator) -> None:
    law(OWNERS[owner], NETWORKS[network], generator)


@pytest.mark.parametrize("law", laws_of_calls, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("owner", "network"), SOME)
def test_law_of_calls(owner: str, network: str, law: NetworkLaw, generator: Generator) -> None:
    law(OWNERS[owner], NETWORKS[network], generator)
