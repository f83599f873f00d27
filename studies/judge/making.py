"""From what a file names to fitted models: its functions are called, what is to be fitted is fitted."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from density import Columns, Model, Training
from density.history import History
from lvm import PPCA, GaussianMixture
from lvm.mixture.observed import ObservedMixture
from lvm.ppca.observed import ObservedPPCA
from studies.judge.own_models import Named, is_function
from studies.kit.compute import seeded_start
from studies.kit.seeds import derived_seed

ADAPTERS = {
    "zuko": "from_zuko", "nflows": "flow_from_nflows", "normflows": "from_normflows", "FrEIA": "from_freia",
    "sklearn": "mixture_from_sklearn or ppca_from_sklearn", "pomegranate": "from_pomegranate",
    "pythae": "from_pythae", "pyro": "from_pyro", "scvi": "from_scvi",
}  # fmt: skip


class NeedsCompleteRows(ValueError):
    """A model that does not take missing values, of data that has some."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A model and, of a fit that was made here, its history."""

    model: Model
    history: History | None = None

    @property
    def climbing(self) -> bool:
        """Whether the fit was still climbing when its steps were done."""
        return self.history is not None and self.history.climbing


def made(named: Named, train: Tensor, seed: int, steps: int | None, columns: Columns | None = None) -> list[Fit]:
    """The fits of a model, one of each source.

    All random numbers that its code takes, of torch, numpy and Python, follow from the seed and the model's name.

    Args:
        train: rows ``[n, D]``.
        steps: of a gradient fit that is made here, at most; None for as many as the rows bear.
        columns: likelihoods of the columns, where these are of several kinds; functions with such an argument get them.

    Raises:
        TypeError, ValueError: a source is, or makes, no model of D features, or one of columns of other kinds. What the
            file's code raises besides.
        NeedsCompleteRows: values are missing, and the model has no ``observed``.
    """
    fits, incomplete = [], bool(train.isnan().any())
    for number, source in enumerate(named.sources):
        with seeded_code(seed, "judge", named.name, str(number)):
            model = source
            if is_function(source):
                assert callable(source)
                about_columns = {} if columns is None or not _takes(source, "columns") else {"columns": columns}
                model = source(train.shape[1] if named.to_fit else train, **about_columns)
            checked, history = _checked(named.name, model, train.shape[1], columns), None
            if incomplete:
                view = observed(checked)
                if named.to_fit:
                    view.fit(train)
            elif named.to_fit:
                about = {"training": Training(steps=steps, progress=False)} if _takes(checked.fit, "training") else {}
                history = checked.fit(train, **about)
            fits.append(Fit(checked, history))
    return fits


def observed(model: Model) -> ObservedPPCA | ObservedMixture:
    """The face of a model that takes missing values.

    Raises:
        NeedsCompleteRows: it has none.
    """
    if not isinstance(model, PPCA | GaussianMixture):
        raise NeedsCompleteRows(f"{type(model).__name__} takes no missing values")
    return model.observed


def _takes(function: Callable[..., object], argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def _checked(name: str, model: object, features: int, columns: Columns | None) -> Model:
    if not isinstance(model, Model):
        adapter = ADAPTERS.get(type(model).__module__.partition(".")[0])
        cure = f"bridge.{adapter} makes one of it" if adapter else "an adapter of bridge makes one of it"
        raise TypeError(f"'{name}' is of {type(model).__name__}, which is no model that knows log p(x); {cure}")
    if getattr(model, "context_features", 0):
        raise ValueError(f"'{name}' is a model of p(x | c), and this data has no contexts")
    if model.features != features:
        raise ValueError(f"'{name}' is a model of {model.features} features; the data has {features}")
    if columns is not None and model.measure != columns.measure:
        raise ValueError(
            f"'{name}' has densities with respect to {model.measure.value}, where those of this table are with respect "
            f"to {columns.measure.value}. Give its function an argument columns, and build the model of these"
        )
    return model


@contextmanager
def seeded_code(seed: int, *purpose: str) -> Iterator[None]:
    """Run somebody's code on the random states of torch, numpy and Python that belong to a purpose; put them back."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    number = derived_seed(seed, *purpose)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  # the state that other libraries draw from
    try:
        with seeded_start(seed, *purpose):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
