"""Models as scikit-learn's estimators: its own checks, values against closed forms, and what is drawn."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import Generator, Tensor, nn

import bridge
from bridge import DensityEstimator, from_distribution
from density import Bound, Gaussian, History, Kind, LogDensity, Measure, TiedColumns, Training
from density.importance import importance
from flows import real_nvp
from lvm import EM, PPCA, VAE, GaussianMixture
from lvm.evidence import quadrature

Array = NDArray[np.float64]
SHORT = Training(steps=3, progress=False)
SOME = Training(epochs=2, batch_size=16, progress=False)
MIXTURE = partial(GaussianMixture, components=2)
FLOW = partial(real_nvp, layers=2, hidden=(8,))
VARIATIONAL = partial(VAE.gaussian, latent_features=1, hidden=(8,))

unconverged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def x() -> Array:
    made: Array = np.random.default_rng(0).normal(size=(60, 3)).cumsum(1) + 5.0
    return made


@pytest.mark.parametrize(
    "estimator",
    [
        DensityEstimator(MIXTURE),
        DensityEstimator(partial(PPCA, latent_features=1)),
        DensityEstimator(FLOW, SHORT),
        DensityEstimator(VARIATIONAL, SHORT),
    ],
    ids=["mixture", "ppca", "flow", "vae"],
)
def test_scikit_learn_finds_an_estimator(estimator: DensityEstimator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits are short, and some of their data has ties
        found = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(found) > 30
    assert [(each["check_name"], each["exception"]) for each in found if each["status"] == "failed"] == []
    skipped = {each["check_name"] for each in found if each["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # asks for a variable of the environment


def test_scores_are_log_densities_in_the_units_of_the_data(x: Array) -> None:
    expected = multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x)
    estimator = DensityEstimator(Gaussian).fit(x)
    np.testing.assert_allclose(estimator.score_samples(x), expected, rtol=1e-12)
    assert estimator.score(x) == pytest.approx(expected.mean(), rel=1e-12)
    assert estimator.log_density(x).kind is Kind.EXACT
    # A Gaussian's fit is equivariant, so that of scaled data is off by the scaler's log-determinant and nothing else.
    pipeline = make_pipeline(StandardScaler(), DensityEstimator(Gaussian)).fit(x)
    log_det = -np.log(pipeline[0].scale_).sum()
    np.testing.assert_allclose(pipeline.score_samples(x) + log_det, expected, rtol=1e-12)
    assert cross_val_score(pipeline, x, cv=3).shape == (3,)


@unconverged
def test_a_vae_scores_by_a_bound_and_says_so(x: Array) -> None:
    estimator = DensityEstimator(VARIATIONAL, Training(steps=60, progress=False), 0).fit(x)
    claim = estimator.log_density(x)
    assert (claim.kind, claim.method) == (Kind.LOWER, "importance-weighted bound, 1000 draws")
    truth = estimator.set_params(method=quadrature).log_density(x)
    assert truth.kind is Kind.EXACT
    assert claim.points == truth.points
    errors = (claim.value - truth.value) / claim.monte_carlo_error
    assert errors.abs().mean() < 2  # |N(0, 1)| has a mean of 0.8
    assert np.array_equal(estimator.score_samples(x), truth.value.numpy())
    two = estimator.set_params(method=partial(importance, draws=2)).log_density(x)
    assert two.method == "importance-weighted bound, 2 draws"


class Noise(Bound):
    """Log-weights that are draws, whatever the data is, and samples that say whether they were drawn in training."""

    measure = Measure.LEBESGUE

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.anchor = nn.Parameter(torch.zeros(()))

    def fit(self, x: Tensor) -> History:
        self.to(x)
        return History(converged=True)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        return self.anchor.new_full((n, self.features), float(self.training))

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        return torch.randn(draws, *x.shape[:-1], generator=generator)

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        return importance(self, x, draws=draws, generator=generator)


def test_the_draws_behind_a_row_follow_from_the_row(x: Array) -> None:
    estimator = DensityEstimator(Noise, random_state=0).fit(x)
    scores = estimator.score_samples(x)
    assert len(set(scores)) == len(x)
    assert np.array_equal(estimator.score_samples(x[::-1]), scores[::-1])
    assert np.array_equal(estimator.score_samples(x[[7, 7]]), scores[[7, 7]])
    assert not np.array_equal(DensityEstimator(Noise, random_state=1).fit(x).score_samples(x), scores)


def test_samples_are_drawn_in_evaluation_mode(x: Array) -> None:
    estimator = DensityEstimator(Noise, random_state=0).fit(x)
    assert estimator.model_.training
    assert not estimator.sample(2).any()
    assert estimator.model_.training


def states() -> list[object]:
    return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()]  # noqa: NPY002


@unconverged
@pytest.mark.parametrize("build", [partial(FLOW, dropout=0.2), partial(VARIATIONAL, latent_features=3), MIXTURE])
def test_a_random_state_decides_all_that_is_drawn(build: Callable[..., object], x: Array) -> None:
    training = EM(max_iterations=2) if build is MIXTURE else SOME
    before = states()
    one, same, other = (DensityEstimator(build, training, seed).fit(x) for seed in (3, 3, 4))
    scores, draws = one.score_samples(x), one.sample(5)
    assert states() == before
    assert np.array_equal(same.score_samples(x), scores)
    assert np.array_equal(same.sample(5), draws)
    assert np.array_equal(one.sample(5), draws)
    assert not np.array_equal(other.score_samples(x), scores)
    assert not np.array_equal(one.sample(5, random_state=4), draws)


def test_a_random_state_object_goes_on_and_none_is_that_of_numpy(x: Array) -> None:
    state = np.random.RandomState(0)
    estimator = DensityEstimator(MIXTURE, random_state=state).fit(x)
    assert not np.array_equal(estimator.sample(5), estimator.sample(5))
    torch_state, kept = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    drawn = []
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002
        drawn.append(DensityEstimator(MIXTURE).fit(x).sample(5))
    np.random.set_state(kept)  # noqa: NPY002
    assert np.array_equal(*drawn)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_data_that_cannot_be_written_is_read(x: Array) -> None:
    x.flags.writeable = False  # of which torch would warn
    assert np.isfinite(DensityEstimator(Gaussian).fit(x).score(x))


def test_draws_follow_the_model(x: Array) -> None:
    estimator = DensityEstimator(Gaussian, random_state=0).fit(x.astype(np.float32))
    draws = estimator.sample(20_000)
    assert draws.dtype == np.float32
    assert estimator.score_samples(x).dtype == np.float64
    errors = (draws.mean(0) - x.mean(0)) / (x.std(0) / np.sqrt(20_000))
    assert np.abs(errors).max() < 4
    assert estimator.sample().shape == (1, 3)


def test_a_fit_that_ended_at_its_limit_warns(x: Array) -> None:
    with pytest.raises(NotFittedError):
        DensityEstimator(MIXTURE).score(x)
    with pytest.raises(NotFittedError):
        DensityEstimator(MIXTURE).sample()
    with pytest.warns(ConvergenceWarning, match=r"GaussianMixture ended .*\(1 iterations done"):
        estimator = DensityEstimator(MIXTURE, EM(max_iterations=1), 0).fit(x)
    assert not estimator.history_.converged
    with pytest.warns(ConvergenceWarning, match="Flow ended"):
        DensityEstimator(FLOW, SOME, 0).fit(x)
    assert DensityEstimator(MIXTURE, random_state=0).fit(x).history_.converged


def test_numbers_of_latents_and_components_are_searched_by_their_names(x: Array) -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 12)) + 0.5 * rng.normal(size=(200, 12))
    latents = DensityEstimator(partial(PPCA, latent_features=1))
    search = GridSearchCV(latents, {"build__latent_features": [1, 2, 3]}).fit(factors)
    assert search.best_params_ == {"build__latent_features": 2}
    assert latents.build.keywords == {"latent_features": 1}
    families = {"build": [Gaussian, partial(GaussianMixture, components=2)]}
    search = GridSearchCV(DensityEstimator(Gaussian), families).fit(np.concatenate([x, x + 20]))
    assert search.best_params_["build"].func is GaussianMixture


class Head(nn.Module):
    """A module that makes a distribution, as other libraries' flows do."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features))

    def forward(self) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(self.mean, 1.0), 1)


def test_a_search_warns_once_of_columns(x: Array) -> None:
    tied = x.copy()
    tied[:, 0] = np.round(2 * tied[:, 0])
    estimator = DensityEstimator(FLOW, SHORT, random_state=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        GridSearchCV(estimator, {"training__learning_rate": [1e-3, 1e-2]}, cv=2).fit(tied)
        assert sum(each.category is TiedColumns for each in said) == 1
        again = DensityEstimator(FLOW, SHORT).fit(tied).fit(tied)
    assert sum(each.category is TiedColumns for each in said) == 3, "and outside of a search each fit"
    assert again.model_.features == 3


@unconverged
def test_an_adapted_model_is_fitted_too(x: Array) -> None:
    training = Training(steps=100, learning_rate=0.1, progress=False)
    estimator = DensityEstimator(lambda features: from_distribution(Head(features), features), training, 0).fit(x)
    assert estimator.score(x) > -0.5 * np.log(2 * np.pi) * 3 - 0.5 * np.square(x - x.mean(0)).sum(1).mean() - 0.1


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (
            DensityEstimator(partial(PPCA, latent_features=3)),
            ValueError,
            r"no model of 3 feature\(s\): PPCA needs fewer",
        ),
        (DensityEstimator(Gaussian(3)), TypeError, "build must be a function that makes a model .* got Gaussian"),
        (DensityEstimator("mixture"), TypeError, "build must be a function that makes a model .* got str"),
        (DensityEstimator(nn.Identity), TypeError, r"build must make a density\.Model; got Identity"),
        (DensityEstimator(lambda _: Gaussian(2)), ValueError, r"a model of 2 features of data of 3 feature\(s\)"),
        (DensityEstimator(MIXTURE, SHORT), TypeError, r"GaussianMixture.fit expects lvm.EM\(\)"),
        (DensityEstimator(FLOW, EM()), TypeError, r"fit expects density.Training\(...\) as training; got EM"),
        (DensityEstimator(Gaussian, SHORT), TypeError, "Gaussian.fit takes no settings"),
    ],
)
def test_what_cannot_be_fitted_is_named(
    estimator: DensityEstimator, error: type[Exception], message: str, x: Array
) -> None:
    with pytest.raises(error, match=message):
        estimator.fit(x)


def test_one_row_and_one_column_are_refused_in_scikit_learns_words(x: Array) -> None:
    with pytest.raises(ValueError, match="1 sample"):
        DensityEstimator(MIXTURE).fit(x[:1])
    with pytest.raises(ValueError, match=r"1 feature\(s\)"):
        DensityEstimator(partial(PPCA, latent_features=1)).fit(x[:, :1])


def test_bridge_offers_it_and_nothing_that_is_not_there() -> None:
    assert bridge.DensityEstimator is DensityEstimator
    with pytest.raises(AttributeError, match="has no attribute 'DensityEstimators'"):
        bridge.DensityEstimators  # noqa: B018


@pytest.mark.slow  # two processes that import torch
@unconverged
def test_searches_run_on_several_processes(x: Array) -> None:
    estimator = DensityEstimator(VARIATIONAL, SOME, 0)
    grid = {"build__latent_features": [1, 2], "training__learning_rate": [1e-3, 1e-2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = (GridSearchCV(estimator, grid, cv=2, n_jobs=jobs).fit(x) for jobs in (1, 2))
    np.testing.assert_allclose(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], rtol=1e-10)
    np.testing.assert_allclose(two.score(x), one.score(x), rtol=1e-10)
