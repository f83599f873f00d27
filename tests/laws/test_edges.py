"""Every model obeys every law of edges; every object of settings, those of counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from torch import Generator

from density import Checkpoint, Training
from flows import RationalQuadratic
from lvm import EM, EMSolver, StochasticEM
from lvm.evidence import LocalFit, Pilot
from lvm.ppca import MissingEM
from lvm.vae.gradients import DoublyReparametrised, Reparametrised
from tests.cases.transforms import TRANSFORMS
from tests.laws.edges import edge_laws, numpy_integers_are_sizes, true_is_no_size
from tests.laws.modules import ModuleCase
from tests.laws.test_modules import MODULES

SETTINGS = [
    Training(batch_size=7, patience=3, parts=2),
    Checkpoint("fit.ckpt", steps=3),
    EM(rows_at_once=5),
    StochasticEM(),
    EMSolver(),
    MissingEM(),
    LocalFit(),
    Pilot(),
    RationalQuadratic(),
    Reparametrised(),
    DoublyReparametrised(),
]


@pytest.mark.filterwarnings("ignore:.*MaskedTensor.*")  # torch calls them a prototype
@pytest.mark.parametrize("law", edge_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MODULES)
def test_edge_law(name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator) -> None:
    law(MODULES[name], generator)


@pytest.mark.parametrize("law", [numpy_integers_are_sizes, true_is_no_size], ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_sizes_of_transforms(name: str, law: Callable[[ModuleCase, Generator], None], generator: Generator) -> None:
    law(ModuleCase(TRANSFORMS[name].make, lambda model, generator: ()), generator)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: type(settings).__name__)
def test_counts_of_settings(settings: object) -> None:
    """numpy's integers are stored as Python's, so that two equal settings are equal; True is none."""
    counts = {f.name: getattr(settings, f.name) for f in fields(settings) if type(getattr(settings, f.name)) is int}  # type: ignore[arg-type]
    assert counts
    again = replace(settings, **{name: np.int32(count) for name, count in counts.items()})  # type: ignore[type-var]
    assert again == settings
    assert repr(again) == repr(settings)
    for name in counts:
        with pytest.raises(ValueError, match=f"{name} must be a positive int; got True"):
            replace(settings, **{name: True})  # type: ignore[type-var]
