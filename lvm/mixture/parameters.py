"""The parameters of a Gaussian mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lvm.mixture.covariance import Covariance


@dataclass(frozen=True, eq=False)
class MixtureParameters:
    """Weights ``[K]``, means ``[K, D]`` and covariances in their structure's shape."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Log-weights log π ``[K]``, means ``[K, D]`` and covariance factors of K Gaussians, in float64."""

    structure: Covariance
    log_weights: Tensor
    means: Tensor
    factor: Tensor

    @property
    def constant(self) -> Tensor:
        """log π_k − log det S_k − D/2 log 2π, ``[K]``."""
        features = self.means.shape[1]
        return self.log_weights - self.structure.log_det(self.factor, features) - 0.5 * features * math.log(2 * math.pi)
