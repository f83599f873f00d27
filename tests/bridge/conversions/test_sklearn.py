"""The same density before and after: mixtures and PPCA from and to scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture import GaussianMixture as ScikitMixture
from torch import Generator, Tensor

from bridge import mixture_from_sklearn, mixture_to_sklearn, ppca_from_sklearn, ppca_to_sklearn
from density import Gaussian
from lvm import PPCA, Diagonal, Full, GaussianMixture, Spherical, Tied
from lvm.mixture.covariance import Covariance
from tests.bridge.comparison import BAR, Record, normal, relative
from tests.laws.transforms import randomise

STRUCTURES: dict[str, Covariance] = {"full": Full(), "tied": Tied(), "diag": Diagonal(), "spherical": Spherical()}


def clusters(generator: Generator, n: int = 300, d: int = 3) -> Tensor:
    centres = 3 * normal(generator, 4, d)
    return centres[torch.randint(4, (n,), generator=generator)] + normal(generator, n, d) @ normal(generator, d, d)


@pytest.mark.parametrize("name", STRUCTURES)
def test_mixture_from_scikit_learn(name: str, generator: Generator, record_measurement: Record) -> None:
    x = clusters(generator)
    estimator = ScikitMixture(4, covariance_type=name, random_state=0).fit(x.numpy())
    model = mixture_from_sklearn(estimator)
    assert model.covariance == STRUCTURES[name]
    log_p = torch.from_numpy(estimator.score_samples(x.numpy()))
    record_measurement("conversion: scikit-learn → mixture", relative(log_p, model.log_prob(x)), BAR)
    assert model.predict(x).tolist() == estimator.predict(x.numpy()).tolist()
    torch.testing.assert_close(model.posterior(x), torch.from_numpy(estimator.predict_proba(x.numpy())))
    before = estimator.means_.copy()
    with torch.no_grad():
        model.decoder.means.add_(1.0)
    assert (estimator.means_ == before).all(), "memory is shared"


@pytest.mark.parametrize("name", STRUCTURES)
def test_mixture_to_scikit_learn_and_back(name: str, generator: Generator, record_measurement: Record) -> None:
    model = randomise(GaussianMixture(3, 4, STRUCTURES[name]), generator, 0.5)
    x = clusters(generator)
    estimator = ScikitMixture()
    assert mixture_to_sklearn(model, estimator) is estimator
    assert (estimator.n_components, estimator.covariance_type) == (4, name)
    log_p = model.log_prob(x)
    theirs = torch.from_numpy(estimator.score_samples(x.numpy()))
    record_measurement("conversion: mixture → scikit-learn", relative(log_p, theirs), BAR)
    record_measurement(
        "conversion: mixture → scikit-learn → mixture",
        relative(log_p, mixture_from_sklearn(estimator).log_prob(x)),
        BAR,
    )
    np.testing.assert_allclose(estimator.predict(x.numpy()), model.predict(x).numpy())
    assert estimator.bic(x.numpy()) == pytest.approx(model.bic(x), rel=1e-10)
    np.testing.assert_allclose(
        estimator.precisions_cholesky_,
        bridge_precisions(estimator.covariances_, name),
        rtol=1e-10,
        atol=1e-12,
    )
    assert estimator.sample(7)[0].shape == (7, 3)
    assert estimator.precisions_.shape == estimator.covariances_.shape


def bridge_precisions(covariances: np.ndarray, name: str) -> np.ndarray:
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

    return np.asarray(_compute_precision_cholesky(covariances, name))


def test_mixture_in_float32_goes_over_in_float64(generator: Generator) -> None:
    model = randomise(GaussianMixture(2, 3), generator, 0.5).float()
    estimator = mixture_to_sklearn(model, ScikitMixture())
    assert estimator.means_.dtype == np.float64
    x = normal(generator, 50, 2)
    theirs = torch.from_numpy(estimator.score_samples(x.numpy()))
    torch.testing.assert_close(model.double().log_prob(x).detach(), theirs, rtol=1e-10, atol=1e-10)


def test_what_scikit_learn_has_otherwise_says_why(generator: Generator) -> None:
    x = clusters(generator).numpy()
    with pytest.raises(TypeError, match="BayesianGaussianMixture scores points with an average over its posterior"):
        mixture_from_sklearn(BayesianGaussianMixture(n_components=2, random_state=0, max_iter=500).fit(x))
    with pytest.raises(ValueError, match="GaussianMixture has no weights_; fit it first"):
        mixture_from_sklearn(ScikitMixture(2))
    with pytest.raises(TypeError, match="takes a scikit-learn GaussianMixture; got PCA"):
        mixture_from_sklearn(PCA(2))
    with pytest.raises(TypeError, match=r"takes an lvm\.GaussianMixture; got PPCA"):
        mixture_to_sklearn(PPCA(3, 1), ScikitMixture())  # type: ignore[arg-type]
    for estimator in (PCA(), BayesianGaussianMixture()):
        with pytest.raises(TypeError, match="fills a scikit-learn GaussianMixture"):
            mixture_to_sklearn(GaussianMixture(3, 2), estimator)
    with pytest.raises(TypeError, match="takes a scikit-learn PCA; got FactorAnalysis"):
        ppca_from_sklearn(FactorAnalysis(2).fit(x))
    with pytest.raises(ValueError, match="PCA has no components_; fit it first"):
        ppca_from_sklearn(PCA(2))
    with pytest.raises(ValueError, match=r"with 3 components of 3 features .* no noise left"):
        ppca_from_sklearn(PCA(3).fit(x))
    with pytest.raises(ValueError, match=r"2 components of 3 features and a noise variance of 0"):
        ppca_from_sklearn(PCA(2).fit(x[:2]))
    with pytest.raises(TypeError, match=r"takes an lvm\.PPCA; got Gaussian"):
        ppca_to_sklearn(Gaussian(3), PCA())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fills a scikit-learn PCA"):
        ppca_to_sklearn(PPCA(3, 1), ScikitMixture())


@pytest.mark.parametrize(("features", "latent"), [(3, 1), (6, 2), (20, 7)])
def test_pca_from_scikit_learn(features: int, latent: int, generator: Generator, record_measurement: Record) -> None:
    x = normal(generator, 100, features) @ normal(generator, features, features) + 5
    estimator = PCA(latent).fit(x.numpy())
    model = ppca_from_sklearn(estimator)
    log_p = torch.from_numpy(estimator.score_samples(x.numpy()))
    record_measurement("conversion: scikit-learn's PCA → PPCA", relative(log_p, model.log_prob(x)), BAR)
    # Their variances divide by n − 1 and ours by n: what a fit of ours finds is a little narrower.
    own = PPCA(features, latent)
    own.fit(x)
    ratio = model.principal_axes.variances / own.principal_axes.variances
    torch.testing.assert_close(ratio.detach(), torch.full_like(ratio, 100 / 99).detach(), rtol=1e-9, atol=0)
    assert own.log_prob(x).mean() > model.log_prob(x).mean()


@pytest.mark.parametrize(("features", "latent"), [(3, 1), (6, 2), (20, 7)])
def test_ppca_to_scikit_learn_and_back(
    features: int, latent: int, generator: Generator, record_measurement: Record
) -> None:
    model = randomise(PPCA(features, latent), generator, 0.7)
    x = 2 * normal(generator, 60, features)
    estimator = ppca_to_sklearn(model, PCA(whiten=True))
    log_p = model.log_prob(x)
    theirs = torch.from_numpy(estimator.score_samples(x.numpy()))
    record_measurement("conversion: PPCA → scikit-learn's PCA", relative(log_p, theirs), BAR)
    record_measurement(
        "conversion: PPCA → scikit-learn → PPCA", relative(log_p, ppca_from_sklearn(estimator).log_prob(x)), BAR
    )
    components = estimator.components_
    np.testing.assert_allclose(components @ components.T, np.eye(latent), atol=1e-12)
    assert estimator.transform(x.numpy()).shape == (60, latent)
    assert estimator.inverse_transform(estimator.transform(x.numpy())).shape == (60, features)
    assert estimator.explained_variance_ratio_.sum() < 1
    np.testing.assert_allclose(estimator.get_covariance(), as_covariance(model), rtol=1e-10, atol=1e-12)


def as_covariance(model: PPCA) -> np.ndarray:
    weight = model.decoder.weight.detach().numpy()
    return np.asarray(weight @ weight.T + model.noise_variance.item() * np.eye(model.features))


def test_why_whitened_pca_is_refused(generator: Generator) -> None:
    """scikit-learn's score depends on whiten, though the data and the fitted attributes are the same."""
    x = (normal(generator, 100, 4) @ normal(generator, 4, 4)).numpy()
    plain, whitened = PCA(2).fit(x), PCA(2, whiten=True).fit(x)
    np.testing.assert_allclose(plain.components_, whitened.components_)
    assert abs(plain.score(x) - whitened.score(x)) > 1e-3
    with pytest.raises(ValueError, match=r"with whiten=True, .* estimator\.set_params\(whiten=False\)"):
        ppca_from_sklearn(whitened)
    model = ppca_from_sklearn(whitened.set_params(whiten=False))
    assert model.log_prob(torch.from_numpy(x)).mean().item() == pytest.approx(plain.score(x), rel=1e-12)
