"""What a mixture is given by mistake, and a point that is too far for its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvm import EM, Full, GaussianMixture, Given, KMeansPlusPlus, StochasticEM


def test_the_elbo_of_a_far_point_is_its_log_density() -> None:
    """At 10¹⁸ in float32 the squared distance from the narrow component overflows, and its share is 0."""
    weights, means = torch.tensor([0.5, 0.5]), torch.tensor([[0.0], [1.0]])
    model = GaussianMixture.from_parameters(weights, means, torch.tensor([[[1.0]], [[1e-3]]]))
    x = torch.tensor([[1e18]])
    torch.testing.assert_close(model.elbo(x), model.log_prob(x))
    torch.testing.assert_close(model.elbo(x).item(), -5e35, rtol=1e-6, atol=0)


def test_settings_of_another_kind_are_refused() -> None:
    x = torch.randn(20, 2)
    model = GaussianMixture(2, 2)
    for em in (EM, StochasticEM):
        with pytest.raises(
            TypeError, match=rf"GaussianMixture\.fit expects .* as em; got the class {em.__name__}; make one"
        ):
            model.fit(x, em=em)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got the class EM; make one, EM\(\)"):
        model.observed.fit(x, EM)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"start must be .*; got the class KMeansPlusPlus; make one"):
        EM(start=KMeansPlusPlus)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"covariance must be .*; got the class Full; make one, Full\(\)"):
        GaussianMixture(2, 2, Full)  # type: ignore[arg-type]


def test_given_parameters_are_tensors() -> None:
    means = np.zeros((2, 3))
    with pytest.raises(TypeError, match=r"Given expects means to be a torch\.Tensor; got ndarray\. Convert with"):
        Given(means)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Given expects weights to be a torch\.Tensor; got list"):
        Given(torch.as_tensor(means), [0.5, 0.5])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Given expects means to be floating point; got torch\.int64"):
        Given(torch.zeros(2, 3, dtype=torch.int64))
    skew = torch.tensor([[1e6, 0, 0], [0, 1, 0.9], [0, 0.1, 1]]).expand(2, 3, 3)
    with pytest.raises(ValueError, match="given covariances must be symmetric"):
        GaussianMixture.from_parameters(torch.tensor([0.5, 0.5]), torch.zeros(2, 3), skew)
