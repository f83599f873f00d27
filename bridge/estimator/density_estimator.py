"""Models as scikit-learn's estimators (Buitinck et al. 2013, arXiv:1309.0238)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Generator, Tensor, nn

from bridge.adapters.calls import seeded
from bridge.estimator.nested import UNSET, having, settings_of
from density.checks import reference
from density.contract import ExactModel, Model
from density.data.points import Points
from density.data.ties import Said, said_once
from density.evaluating import evaluating
from density.fitting.training import Training
from density.history import History
from density.log_density import LogDensity
from lvm.mixture.fit import Algorithm
from lvm.ppca.solvers import Solver

Build = Callable[..., Model]
Settings = Training | Algorithm | Solver
Method = Callable[..., LogDensity]
RandomState = int | np.random.RandomState | None

SETTINGS = ("training", "em", "solver")  # what fits call theirs
HAVE_SETTINGS = ("build", "training")


class DensityEstimator(DensityMixin, BaseEstimator):
    r"""A model of this framework, or one adapted to it, as an estimator of scikit-learn.

    .. math:: \text{score}(X) = \frac1n \sum_i \log p(x_i)

    in nats per row, in the units of the X that the estimator is given: of a pipeline, those in which X leaves the step
    before. Scores of a model that knows log p(x) are exact. Those of one that has log-weights, such as a VAE, are
    importance-weighted lower bounds, and :meth:`log_density` says so, with their errors. Draws behind the bound at a
    row follow from the row, and from a seed that ``fit`` drew: it is the same whatever the other rows are.

    Arguments of ``build`` and fields of ``training`` are parameters, ``build__components`` and
    ``training__learning_rate``, for ``set_params`` and for searches.

    Args:
        build: makes an unfitted model from the number of features: a class, a builder, a function, a
            ``functools.partial`` of one of them.
        training: settings of the model's fit: a :class:`~density.fitting.training.Training`, of a mixture an
            ``lvm.EM`` or ``lvm.StochasticEM``, of PPCA a solver; None for the model's own.
        random_state: of everything that is drawn, as everywhere in scikit-learn. No global random state is moved, but
            for numpy's with None.
        method: of scores, called as ``method(model, x, generator=generator)`` with all rows at once, such as
            ``lvm.evidence.evidence``, ``quadrature``, or ``partial(importance, draws=5000)``; None for the above.

    Attributes:
        model_: the fitted model.
        history_: its :class:`~density.history.History`.
        n_features_in_: features of the training data.
        feature_names_in_: their names, where all are strings.

    The model has the dtype of X, float32 or float64; other numbers become float64.

    >>> from functools import partial
    >>> from sklearn.model_selection import GridSearchCV
    >>> from lvm import GaussianMixture
    >>> X = np.random.RandomState(0).normal(size=(300, 2)) + 4 * (np.arange(300) % 3)[:, None]
    >>> estimator = DensityEstimator(partial(GaussianMixture, components=1), random_state=0)
    >>> search = GridSearchCV(estimator, {"build__components": [1, 2, 3, 4]}).fit(X)
    >>> search.best_params_
    {'build__components': 3}
    >>> search.best_estimator_.log_density(X[:100])
    log p(x) = -3.9573 ± 0.089 (data) nats, exact (sum over components), Lebesgue measure, 100 points
    """

    model_: Model
    history_: History
    n_features_in_: int

    def __init__(
        self,
        build: Build,
        training: Settings | None = None,
        random_state: RandomState = None,
        *,
        method: Method | None = None,
    ) -> None:
        self.build = build
        self.training = training
        self.random_state = random_state
        self.method = method

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Build a model and fit it to X ``[n, D]``; y is ignored.

        Raises:
            TypeError: ``build`` makes no model, or the model's fit takes other settings.
            ValueError: X is no finite data of two rows or more, or of another D than the model can have.

        Warns:
            ConvergenceWarning: the fit ended at its limit; ``history_.stopped`` says where.
        """
        data = validate_data(self, X, dtype=[np.float64, np.float32], order="C", ensure_min_samples=2)
        seeds = _seeds(self.random_state)
        with seeded(Generator().manual_seed(seeds.build), torch.device("cpu")):
            model = self._built(data.shape[1])
        x = _tensor(data).to(reference(model).device)
        generator = Generator(x.device).manual_seed(seeds.fit)
        with seeded(generator, x.device), said_once(getattr(self, "_said", Said())):
            history = _fitted(model, x, self.training, generator)
        self.model_, self.history_, self._seed = model, history, seeds.scores
        if not history.converged:
            warnings.warn(
                f"the fit of {type(model).__name__} ended before it had converged ({history.stopped}). More epochs or "
                "iterations (the settings training) may give a higher score",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def __sklearn_clone__(self) -> Self:
        """A copy that is not fitted; of the estimators of a search one warns of columns, and not each of them."""
        made = super().__sklearn_clone__()
        made._said = self._said = getattr(self, "_said", Said())
        return made

    def log_density(self, X: ArrayLike) -> LogDensity:
        """The claim about log p(x) behind the scores of rows ``[n, D]``: values, kind, errors and their diagnosis.

        A bound costs 1,000 passes of the decoder a row.
        """
        check_is_fitted(self)
        model, x = self.model_, self._points(X)
        if self.method is not None:
            return self.method(model, x, generator=Generator(x.device).manual_seed(self._seed))
        if isinstance(model, ExactModel):
            return model.log_density(x)
        return LogDensity.concatenate([self._bound(model, row) for row in x.split(1)])

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """log p(x) of rows ``[n, D]``, or a bound on it: ``[n]`` in float64, nats."""
        return self.log_density(X).value.double().numpy(force=True)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of :meth:`score_samples`, nats per row; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> NDArray[np.floating[Any]]:
        """Draws from the model, ``[n_samples, D]``.

        Args:
            n_samples: how many.
            random_state: the estimator's own if None, so that with a number there all draws are the same.
        """
        check_is_fitted(self)
        seeds = _seeds(self.random_state if random_state is None else random_state)
        generator = Generator(reference(self.model_).device).manual_seed(seeds.draws)
        with torch.no_grad(), evaluating(self.model_), seeded(generator, generator.device):
            return self.model_.sample(n_samples, generator=generator).numpy(force=True)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; if deep, also the settings of ``build`` and ``training``."""
        found: dict[str, Any] = super().get_params(deep)
        for name in HAVE_SETTINGS if deep else ():
            settings = settings_of(getattr(self, name)).items()
            found |= {f"{name}__{inner}": value for inner, value in settings if value is not UNSET}
        return found

    def set_params(self, **params: object) -> Self:
        """Set arguments, and settings of ``build`` and ``training``, by the names of :meth:`get_params`.

        ``build`` becomes a ``functools.partial``; none of the objects that were given before is changed.

        Raises:
            ValueError: there is no parameter of that name, or ``training`` refuses the value.
        """
        nested: dict[str, dict[str, object]] = {name: {} for name in HAVE_SETTINGS}
        own = {}
        for name, value in params.items():
            head, _, inner = name.partition("__")
            if inner and head in nested:
                nested[head][inner] = value
            else:
                own[name] = value
        super().set_params(**own)
        for name, changes in nested.items():
            if changes:
                setattr(self, name, having(getattr(self, name), changes, name))
        return self

    def _built(self, features: int) -> Model:
        if isinstance(self.build, nn.Module) or not callable(self.build):
            raise TypeError(
                "DensityEstimator: build must be a function that makes a model from the number of features, such as "
                f"functools.partial(lvm.GaussianMixture, components=3); got {type(self.build).__name__}"
            )
        try:
            model = self.build(features)
        except ValueError as error:
            raise ValueError(f"DensityEstimator: build makes no model of {features} feature(s): {error}") from error
        if not isinstance(model, Model):
            raise TypeError(f"DensityEstimator: build must make a density.Model; got {type(model).__name__}")
        if model.features != features:
            raise ValueError(
                f"DensityEstimator: build makes a model of {model.features} features of data of {features} feature(s)"
            )
        return model

    def _points(self, X: ArrayLike) -> Tensor:
        data = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        return _tensor(data).to(reference(self.model_))

    def _bound(self, model: Model, row: Tensor) -> LogDensity:
        """The model's own claim about one row, by draws that follow from the row."""
        seed = (self._seed + Points.of(row).digest) % 2**63
        return model.log_density(row, generator=Generator(row.device).manual_seed(seed))


class _Seeds(NamedTuple):
    """Seeds of what is drawn, one for each purpose."""

    build: int
    fit: int
    scores: int
    draws: int


def _seeds(random_state: RandomState) -> _Seeds:
    return _Seeds(*check_random_state(random_state).randint(2**31 - 1, size=4).tolist())


def _tensor(data: NDArray[np.floating[Any]]) -> Tensor:
    return torch.from_numpy(data if data.flags.writeable else data.copy())


def _fitted(model: Model, x: Tensor, settings: Settings | None, generator: Generator) -> History:
    """Fit with what this model's fit takes of settings and generator."""
    taken = inspect.signature(model.fit).parameters
    keywords: dict[str, object] = {"generator": generator} if "generator" in taken else {}
    if settings is not None:
        names = [name for name in SETTINGS if name in taken]
        if not names:
            raise TypeError(f"{type(model).__name__}.fit takes no settings; got training={settings!r}")
        keywords[names[0]] = settings
    fit: Callable[..., History] = model.fit
    return fit(x, **keywords)
