"""Mixtures and PPCA from and to scikit-learn's ``GaussianMixture`` and ``PCA``, by their fitted attributes.

scikit-learn is not imported: estimators are read and filled by the names that its documentation gives. To fill one,
pass one in: ``mixture_to_sklearn(model, sklearn.mixture.GaussianMixture())``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lvm.mixture.covariance import Covariance, Diagonal, Full, Spherical, Tied
from lvm.mixture.model import GaussianMixture
from lvm.ppca.model import PPCA

STRUCTURES: dict[str, Covariance] = {"full": Full(), "tied": Tied(), "diag": Diagonal(), "spherical": Spherical()}
Estimator = TypeVar("Estimator")


def mixture_from_sklearn(estimator: Any) -> GaussianMixture:  # noqa: ANN401  # duck-typed
    """The mixture with the parameters of a fitted ``sklearn.mixture.GaussianMixture``: log_prob is ``score_samples``.

    Raises:
        TypeError: a ``BayesianGaussianMixture``, or something with other attributes.
        ValueError: the estimator is not fitted, or a weight is 0.
    """
    owner = "mixture_from_sklearn"
    if hasattr(estimator, "weight_concentration_prior"):
        raise TypeError(
            f"{owner}: {type(estimator).__name__} scores points with an average over its posterior of parameters, "
            "which is no mixture of Gaussians. That of its point estimates is "
            "GaussianMixture.from_parameters(weights_, means_, covariances_, ...)"
        )
    if not hasattr(estimator, "covariance_type"):
        raise TypeError(f"{owner} takes a scikit-learn GaussianMixture; got {type(estimator).__name__}")
    weights, means, covariances = (_fitted(estimator, name, owner) for name in ("weights_", "means_", "covariances_"))
    return GaussianMixture.from_parameters(weights, means, covariances, STRUCTURES[estimator.covariance_type])


def mixture_to_sklearn(model: GaussianMixture, estimator: Estimator) -> Estimator:
    """Fill a ``sklearn.mixture.GaussianMixture`` with a mixture's parameters, in float64; returns the estimator.

    Its ``n_components`` and ``covariance_type`` become the model's. It can then score, predict and sample; what only a
    fit knows (``n_iter_``, ``lower_bound_``) is not set.

    Raises:
        TypeError: not a GaussianMixture, or an estimator of another kind.

    >>> from sklearn.mixture import GaussianMixture as Theirs
    >>> mixture = GaussianMixture(2, components=3).double()
    >>> x = torch.randn(5, 2, dtype=torch.float64)
    >>> theirs = mixture_to_sklearn(mixture, Theirs())
    >>> bool(abs(theirs.score_samples(x.numpy()) - mixture.log_prob(x).detach().numpy()).max() < 1e-9)
    True
    """
    owner = "mixture_to_sklearn"
    if not isinstance(model, GaussianMixture):
        raise TypeError(f"{owner} takes an lvm.GaussianMixture; got {type(model).__name__}")
    if not hasattr(estimator, "covariance_type") or hasattr(estimator, "weight_concentration_prior"):
        raise TypeError(f"{owner} fills a scikit-learn GaussianMixture(); got {type(estimator).__name__}")
    structure, factor = model.covariance, model.decoder.factor.detach().double()
    (name,) = (name for name, known in STRUCTURES.items() if known == structure)
    root = structure.precision(factor)
    root = root.mT if structure.dense else root  # theirs is the upper factor U of the precision UUᵀ
    _fill(
        estimator,
        {"n_components": model.components, "covariance_type": name},
        {
            "weights_": model.prior.logits.detach().double().softmax(-1),
            "means_": model.means,
            "covariances_": structure.unpack(factor),
            "precisions_cholesky_": root,
            "precisions_": root @ root.mT if structure.dense else root.square(),
        },
        model.features,
    )
    return estimator


def ppca_from_sklearn(estimator: Any) -> PPCA:  # noqa: ANN401  # duck-typed
    r"""The PPCA that a fitted ``sklearn.decomposition.PCA`` scores points with: log_prob is ``score_samples``.

    .. math:: W = V \operatorname{diag}(\lambda_i - \sigma^2)^{1/2}, \quad \sigma^2 = \text{noise\_variance\_}

    scikit-learn's variances λ divide by n − 1. So this is not quite ``PPCA.fit`` on the same data, which is maximum
    likelihood and divides by n.

    Raises:
        TypeError: an estimator with other attributes, such as FactorAnalysis.
        ValueError: not fitted, no noise left over, or ``whiten=True``.

    >>> from sklearn.decomposition import PCA
    >>> x = torch.randn(50, 3, dtype=torch.float64)
    >>> theirs = PCA(1).fit(x.numpy())
    >>> bool(abs(theirs.score_samples(x.numpy()) - ppca_from_sklearn(theirs).log_prob(x).detach().numpy()).max() < 1e-9)
    True
    """
    owner = "ppca_from_sklearn"
    if not hasattr(estimator, "svd_solver") or not hasattr(estimator, "whiten"):
        raise TypeError(f"{owner} takes a scikit-learn PCA; got {type(estimator).__name__}")
    components, variances, mean, noise = (
        _fitted(estimator, name, owner) for name in ("components_", "explained_variance_", "mean_", "noise_variance_")
    )
    latent, features = components.shape
    if latent >= features or not bool(noise > 0):
        raise ValueError(
            f"{owner}: with {latent} components of {features} features and a noise variance of {noise.item():g} there "
            "is no noise left for PPCA. Refit with fewer components, or use density.Gaussian"
        )
    if estimator.whiten:
        raise ValueError(
            f"{owner}: with whiten=True, scikit-learn scores with components that are scaled once more, and "
            "not with the density of the data. The attributes are the same without: estimator.set_params(whiten=False)"
        )
    model = PPCA(features, latent).to(components)
    with torch.no_grad():
        model.decoder.weight.copy_(components.mT * (variances - noise).clamp_min(0).sqrt())
        model.decoder.mean.copy_(mean)
        model.decoder.log_std.copy_(0.5 * noise.log())
    return model


def ppca_to_sklearn(model: PPCA, estimator: Estimator) -> Estimator:
    """Fill a ``sklearn.decomposition.PCA`` with the principal axes and variances, in float64; returns the estimator.

    Its ``n_components`` becomes q and ``whiten`` False. It can then transform and score; what depends on the number of
    rows (``n_samples_``, ``singular_values_``) is not set. The axes are those of W: a rotation of the latent is lost,
    which the density does not feel.

    Raises:
        TypeError: not a PPCA, or an estimator of another kind.

    >>> from sklearn.decomposition import PCA
    >>> model = PPCA(3, latent_features=1).double()
    >>> x = torch.randn(5, 3, dtype=torch.float64)
    >>> theirs = ppca_to_sklearn(model, PCA())
    >>> bool(abs(theirs.score_samples(x.numpy()) - model.log_prob(x).detach().numpy()).max() < 1e-9)
    True
    """
    owner = "ppca_to_sklearn"
    if not isinstance(model, PPCA):
        raise TypeError(f"{owner} takes an lvm.PPCA; got {type(model).__name__}")
    if not hasattr(estimator, "svd_solver") or not hasattr(estimator, "whiten"):
        raise TypeError(f"{owner} fills a scikit-learn PCA(); got {type(estimator).__name__}")
    principal, noise = model.principal_axes, model.noise_variance
    total = principal.variances.sum() + (model.features - model.latent_features) * noise
    _fill(
        estimator,
        {"n_components": model.latent_features, "whiten": False},
        {
            "components_": principal.axes.mT,
            "explained_variance_": principal.variances,
            "explained_variance_ratio_": principal.variances / total,
            "mean_": model.decoder.mean,
        },
        model.features,
    )
    vars(estimator).update(n_components_=model.latent_features, noise_variance_=noise.item())
    return estimator


def _fitted(estimator: object, name: str, owner: str) -> Tensor:
    """A copy of a fitted attribute."""
    if not hasattr(estimator, name):
        raise ValueError(f"{owner}: {type(estimator).__name__} has no {name}; fit it first")
    return torch.as_tensor(np.array(getattr(estimator, name)))


def _fill(estimator: Any, parameters: dict[str, Any], fitted: dict[str, Tensor], features: int) -> None:  # noqa: ANN401
    estimator.set_params(**parameters)
    for name, value in fitted.items():
        setattr(estimator, name, value.detach().double().cpu().numpy().copy())
    estimator.n_features_in_ = features
