"""What is integrated: the log-joint of a model, in coordinates of the latent whose prior all points share."""

from __future__ import annotations

from torch import Generator, Tensor

from density.contract import Density
from density.families.gaussian import GaussianFamily, StandardNormal
from density.families.scale import Scale
from lvm.latent import LatentVariableModel


class Joint:
    r"""log p(x, z) at rows, as a function of coordinates u of the latent z.

    They are z itself where the prior is unconditional. Where it is N(μ(c), S(c) S(c)ᵀ), the region to search would be
    another one for every context, and in whitened coordinates it is not:

    .. math:: p(x|c) = \int N(u; 0, I)\, p(x \mid \mu(c) + S(c)\, u, c)\, du

    Attributes:
        prior: of u.
        apart: whether equal u are other latents, or meet another decoder, for every row.

    Args:
        model: with an unconditional prior, a conditional Gaussian one, or one that is enumerated.
    """

    def __init__(self, model: LatentVariableModel) -> None:
        self.model = model
        self.apart = model.context_features > 0
        self.prior: Density = model.prior
        self._whitener: GaussianFamily | None = None
        if isinstance(model.prior, GaussianFamily) and model.prior.context_features:
            self._whitener = model.prior
            self.prior = StandardNormal(model.prior.features).to(model.prior.reference)

    def __call__(self, rows: Tensor, u: Tensor) -> Tensor:
        """Batch shapes of rows and of u ``[*, d]`` broadcast."""
        if self._whitener is None:
            return self.model._log_joint(rows, u)
        mean, scale = self._frame(self._whitener, rows)
        return self.prior.log_prob(u) + self.model._log_likelihood(rows, mean + scale.color(u))

    def encoded(self, rows: Tensor, draws: int, generator: Generator | None) -> Tensor:
        """Draws of the encoder ``[draws, n, d]`` for rows ``[n, *]``."""
        z = self.model.encoder.sample(draws, context=rows, generator=generator)
        if self._whitener is None:
            return z
        mean, scale = self._frame(self._whitener, rows)
        return scale.whiten(z - mean)

    def _frame(self, prior: GaussianFamily, rows: Tensor) -> tuple[Tensor, Scale]:
        return prior.at(self.model._prior_context(rows))
