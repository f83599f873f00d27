"""What families on the unit interval have in common: their values, and how an encoder sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.families.likelihoods.inputs import Recentred
from density.families.likelihoods.univariate import UnivariateLikelihood
from density.support import Region

CLOSED = Region(
    "values in [0, 1]",
    lambda x: (x < 0) | (x > 1),
    "Divide grey values by the largest that is possible, or take a likelihood of levels, of counts or of real numbers",
)
OPEN = Region(
    "values in (0, 1), ends excluded",
    lambda x: (x <= 0) | (x >= 1),
    "Where 0 and 1 occur, take ContinuousBernoulli, or a likelihood of levels",
)


class UnitInterval(UnivariateLikelihood):
    """A family of densities on the unit interval; an encoder sees 2x − 1."""

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module:
        return Recentred(features, 0.0, 1.0)


def inside(x: Tensor) -> Tensor:
    """Draws that rounding may have brought to an end of the interval, in its interior."""
    kind = torch.finfo(x.dtype)
    return x.clamp(kind.tiny, 1 - kind.eps / 2)
