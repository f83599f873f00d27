"""What is integrated: the log-joint of a model, in coordinates of the latent whose prior all points share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density.contract import Density
from density.families.gaussian import GaussianFamily, StandardNormal
from density.families.scale import Scale
from lvm.evidence.quadrature.latents import Latents


class Joint:
    r"""log p(x, z) at rows, as a function of coordinates u of the latents z that are integrated.

    They are z itself where the prior is unconditional. Where it is N(μ(c), S(c) S(c)ᵀ), the region to search would be
    another one for every context, and in whitened coordinates it is not:

    .. math:: p(x|c) = \int N(u; 0, I)\, p(x \mid \mu(c) + S(c)\, u, c)\, du

    Where the other latents have a state s, it is log p(x, s, u).

    Attributes:
        prior: of u.
        apart: whether equal u are other latents, or meet another decoder, for every row.

    Args:
        latents: of a model with an unconditional prior, a conditional Gaussian one, or one that is counted.
        state: of the columns that are counted, ``[w]``; None where there are none, or where u is all of them.
    """

    def __init__(self, latents: Latents, state: Tensor | None = None) -> None:
        self.model = latents.model
        self.apart = self.model.context_features > 0
        self.prior: Density = latents.prior
        self.integrated = list(latents.integrated)
        self.state = state
        self._whitener: GaussianFamily | None = None
        if state is not None:
            assert latents.states is not None
            places = [*latents.states.columns, *latents.integrated]
            self._order = sorted(range(len(places)), key=places.__getitem__)
        elif isinstance(self.prior, GaussianFamily) and self.prior.context_features:
            self._whitener = self.prior
            self.prior = StandardNormal(self.prior.features).to(self.prior.reference)

    def __call__(self, rows: Tensor, u: Tensor) -> Tensor:
        """Batch shapes of rows and of u ``[*, d]`` broadcast."""
        if self.state is not None:
            u = torch.cat([self.state.expand(*u.shape[:-1], -1), u], -1)[..., self._order]
        if self._whitener is None:
            return self.model._log_joint(rows, u)
        mean, scale = self._frame(self._whitener, rows)
        return self.prior.log_prob(u) + self.model._log_likelihood(rows, mean + scale.color(u))

    def encoded(self, rows: Tensor, draws: int, generator: Generator | None) -> Tensor:
        """Draws of the encoder ``[draws, n, d]`` for rows ``[n, *]``."""
        z = self.model.encoder.sample(draws, context=rows, generator=generator)
        if self.state is not None:
            return z[..., self.integrated]
        if self._whitener is None:
            return z
        mean, scale = self._frame(self._whitener, rows)
        return scale.whiten(z - mean)

    def _frame(self, prior: GaussianFamily, rows: Tensor) -> tuple[Tensor, Scale]:
        return prior.at(self.model._prior_context(rows))
