"""PPCA of data with missing entries: density, posterior, imputation and fit (Ilin & Raiko 2010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from density.checks import check_settings
from density.data.chunks import Source
from density.data.rows import Rows
from density.history import History
from lvm.linear_gaussian import LinearGaussian
from lvm.missing.observed import Observed
from lvm.ppca.observed_em import MissingEM
from lvm.ppca.observed_posterior import Coordinates
from lvm.ppca.parameters import PPCAParameters

DEFAULT = MissingEM()


class Model(Protocol):
    """A PPCA as its view of incomplete rows needs it: a decoder to read, and parameters to set."""

    features: int
    latent_features: int
    decoder: LinearGaussian

    def parameters_on(self, device: torch.device) -> PPCAParameters:
        """A copy of the parameters."""

    def take(self, parameters: PPCAParameters, like: Tensor) -> None:
        """Move to the dtype and device of the data, and take over the parameters."""


@dataclass(frozen=True, eq=False)
class ObservedPosterior:
    """p(z|x_o): means ``[*batch, q]`` and covariances ``[*batch, q, q]``, which depend on what is observed."""

    mean: Tensor
    covariance: Tensor


class ObservedPPCA(Observed):
    r"""What PPCA says of rows with missing entries, marked by nan.

    .. math:: p(x_o) = N(\mu_o,\ W_o W_o^\top + \sigma^2 I), \qquad
              E[x_m|x_o] = W_m E[z|x_o] + \mu_m, \qquad
              \operatorname{Var}[x_m|x_o] = W_m \operatorname{Cov}(z|x_o) W_m^\top + \sigma^2 I

    O(nDq) and O(Dq² + q³) a pattern.

    Args:
        model: the PPCA; ``model.observed`` is the short way to it.

    >>> from lvm.ppca.model import PPCA
    >>> model = PPCA(3, 1)
    >>> with torch.no_grad():
    ...     _ = model.decoder.weight.copy_(torch.tensor([[2.0], [1.0], [0.0]]))
    >>> x = torch.tensor([[5.0, torch.nan, torch.nan]])  # x₀ ~ N(0, 5), and x₁ is 2/5 x₀ on average
    >>> model.observed.log_prob(x).item()
    -4.223658
    >>> model.observed.impute(x).mean.tolist()
    [[5.0, 2.0, 0.0]]
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.features = model.features

    @property
    def reference(self) -> Tensor:
        return self.model.decoder.weight

    def fit(self, x: Source, em: MissingEM = DEFAULT, *, weights: Tensor | None = None) -> History:
        """Maximum likelihood of the observed entries of x ``[n, D]``, by EM.

        On several processes each is given the same data, works on its share, and ends with the same parameters.

        Args:
            x: a tensor, or data in chunks: whatever :class:`~density.data.chunks.Chunks` reads.
            em: settings; see there for what is maximised how, and for the pitfalls.
            weights: of the rows, ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.

        Returns:
            History of the mean log p(x_o) before every M-step and after the last, nats per row that has an entry; it
            never decreases.

        Raises:
            TypeError, ValueError: x is no floating-point data ``[n, D]``, or is infinite somewhere, or a column has no
                entry at all; or the weights do not fit it.
            ValueError: the entries vary along no more than q axes, so that the likelihood has no maximum. The model is
                then left as it was.
        """
        check_settings(em, MissingEM, "em", "lvm.ppca.MissingEM()", "PPCA.observed.fit")
        rows = Rows(x, self.features, "PPCA", weights, incomplete=True)
        present = self.model.parameters_on(rows.like.device)
        present.require_free("PPCA")
        parameters, history = em.solve(rows, present)
        self.model.take(parameters, rows.like)
        return history

    def posterior(self, x: Tensor) -> ObservedPosterior:
        """p(z|x_o) for x ``[*batch, D]``; the prior where nothing is observed."""
        rows = self._rows(x)
        at = Coordinates.of(self.model.decoder)
        patterns = at.patterns(~rows.isnan(), self.model.latent_features)
        means, covariances = [], []
        for block in patterns.blocks:
            posterior = at.posterior(block, block.rows(rows))
            spread = at.spread(posterior.root)
            means.append(posterior.mean)
            covariances.append((spread.mT @ spread).unsqueeze(1).expand(*block.index.shape, -1, -1))
        q = self.model.latent_features
        mean, covariance = patterns.collect(means).to(x.dtype), patterns.collect(covariances).to(x.dtype)
        return ObservedPosterior(mean.reshape(*x.shape[:-1], q), covariance.reshape(*x.shape[:-1], q, q))

    def _log_prob(self, rows: Tensor) -> Tensor:
        at = Coordinates.of(self.model.decoder)
        patterns = at.patterns(~rows.isnan(), self.model.latent_features)
        return patterns.collect([at.posterior(block, block.rows(rows)).log_prob for block in patterns.blocks])

    def _impute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = Coordinates.of(self.model.decoder)
        patterns = at.patterns(~rows.isnan(), self.model.latent_features)
        means, variances = [], []
        for block in patterns.blocks:
            posterior = at.posterior(block, block.rows(rows))
            variance = (at.weight @ at.spread(posterior.root).mT).square().sum(-1) + at.std.square()
            means.append(posterior.mean @ at.weight.mT + at.mean)
            variances.append(torch.where(block.mask, 0.0, variance).unsqueeze(1).expand_as(means[-1]))
        return patterns.collect(means), patterns.collect(variances)

    def _draw(self, rows: Tensor, n: int, generator: Generator | None) -> Tensor:
        at = Coordinates.of(self.model.decoder)
        patterns = at.patterns(~rows.isnan(), self.model.latent_features)
        drawn = []
        for block in patterns.blocks:
            posterior = at.posterior(block, block.rows(rows))
            shape = (*block.index.shape, n)
            latent = torch.randn(*shape, at.lower.shape[0], generator=generator, dtype=rows.dtype, device=rows.device)
            noise = torch.randn(*shape, self.features, generator=generator, dtype=rows.dtype, device=rows.device)
            z = posterior.mean.unsqueeze(2) + latent.double() @ at.spread(posterior.root).unsqueeze(1)
            drawn.append(z @ at.weight.mT + at.mean + at.std * noise.double())
        return patterns.collect(drawn).movedim(1, 0)
