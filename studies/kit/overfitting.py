"""What a model says of the rows that it was fitted to, beside what it says of others."""

from __future__ import annotations

import math

from torch import Generator, Tensor

from density import Bound, ExactModel, Model
from lvm import PPCA, GaussianMixture
from lvm.evidence import gap
from studies.kit.rows import Row


def train_less_test(model: Model, train: Tensor, test_values: Tensor, draws: int, generator: Generator | None) -> Row:
    """By how much more a model says of training rows ``[m, D]`` than of test rows, and the error of that.

    Like is compared with like, in the coordinates of the fit: log p where the model knows it (of what is there, where
    values are missing), else the ELBO.

    Args:
        test_values: log p, or the ELBO, of each test row ``[n]``.
        draws: latent draws for each row of the ELBO.
    """
    if isinstance(model, PPCA | GaussianMixture) and bool(train.isnan().any()):
        values = model.observed.log_density(train).value
    elif isinstance(model, ExactModel):
        values = model.log_density(train).value
    else:
        assert isinstance(model, Bound)
        values = gap(model, train, draws=draws, generator=generator).elbo.value
    ours, theirs = values.double(), test_values.double()
    error = math.sqrt(ours.var().item() / len(ours) + theirs.var().item() / len(theirs))
    return {"overfitting": ours.mean().item() - theirs.mean().item(), "overfitting_error": error}
