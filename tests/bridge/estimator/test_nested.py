"""Parameters of a parameter, by the names that scikit-learn's searches give them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
from sklearn.base import clone

from bridge import DensityEstimator
from density import Training
from lvm import VAE, Diagonal, GaussianMixture


@dataclass(frozen=True)
class Mixture:
    """A builder as an object."""

    components: int

    def __call__(self, features: int) -> GaussianMixture:
        return GaussianMixture(features, self.components)


def test_arguments_of_a_builder_are_parameters() -> None:
    build = partial(VAE.gaussian, latent_features=2)
    estimator = DensityEstimator(build)
    assert estimator.get_params(deep=False).keys() == {"build", "training", "random_state", "method"}
    deep = estimator.get_params()
    assert (deep["build__latent_features"], deep["build__hidden"]) == (2, (128, 128))
    assert "build__features" not in deep
    changed = clone(estimator).set_params(build__latent_features=3, build__standardise=False)
    assert changed.build.keywords == {"latent_features": 3, "standardise": False}
    assert changed.build.func == VAE.gaussian
    assert build.keywords == {"latent_features": 2}


def test_an_argument_without_a_value_can_be_given_one() -> None:
    estimator = DensityEstimator(GaussianMixture)
    assert "build__components" not in estimator.get_params()
    assert estimator.set_params(build__components=3).build(2).components == 3
    both = estimator.set_params(build=partial(GaussianMixture, covariance=Diagonal()), build__components=2)
    assert both.build.keywords == {"covariance": Diagonal(), "components": 2}


def test_fields_of_settings_are_parameters_and_change_together() -> None:
    training = Training(steps=100)
    estimator = DensityEstimator(Mixture(2), training)
    assert estimator.get_params()["training__steps"] == 100
    estimator.set_params(training__epochs=5, training__steps=None, build__components=4)
    assert (estimator.training.epochs, estimator.training.steps, training.steps) == (5, None, 100)
    assert estimator.build == Mixture(4)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        estimator.set_params(training__learning_rate=-1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("build__latents", r"Invalid parameter 'latents' for build, .* Valid parameters are: \['components'\]"),
        ("build__features", "Invalid parameter 'features' for build"),
        ("training__epochs", "Invalid parameter 'epochs' for training, which is None"),
        ("builds", "Invalid parameter 'builds'"),
    ],
)
def test_a_name_that_is_no_parameter_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DensityEstimator(lambda features, components=1: GaussianMixture(features, components)).set_params(**{name: 1})
