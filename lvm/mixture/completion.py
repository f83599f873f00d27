"""The Gaussian components of a mixture given the observed entries of a row (Ghahramani & Jordan 1994)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lvm.missing.patterns import Block, Patterns
from lvm.mixture.parameters import MixtureParameters

Complete = Callable[[Block, Tensor], "Completion"]


def completing(at: MixtureParameters) -> Complete:
    """The completion of rows ``[B, R, D]`` of a block under a mixture: every component given the observed entries."""
    structure, means, covariances = at.structure, at.means, at.covariances
    if structure.dense:
        matrices = covariances.reshape(-1, *[means.shape[1]] * 2)  # one for all components where they are tied
        return partial(DenseCompletion, at.log_weights, means, matrices)
    return partial(DiagonalCompletion, at.log_weights, means, structure.variances(covariances).expand_as(means))


class Completion(ABC):
    r"""N(μ_k, Σ_k) given x_o, for every component k and the rows of a block.

    Attributes:
        log_joint: log π_k + log N(x_o; μ_k, Σ_k), ``[K, B, R]``, nats.
        white: S_k⁻¹(x_o − μ_k,o), whose square that is the density of, ``[K, B, R, D]``, 0 where x is missing.
        deviation: E[x|x_o, k] − μ_k, ``[K, B, R, D]``: that of x itself where it is observed.
    """

    log_joint: Tensor
    white: Tensor
    deviation: Tensor
    _constant: Tensor  # the log-joint at the mean, [K, B]

    def responsibilities(self) -> Tensor:
        """p(k|x_o), ``[K, B, R]``.

        Where every square overflows, so that log p(x_o) is −inf, they follow from distances in units of the largest
        entry, as those of a complete row that is so far away.
        """
        return self._comparable().softmax(0)

    def log_responsibilities(self) -> Tensor:
        """Their logarithms, finite where they underflow."""
        return self._comparable().log_softmax(0)

    def _comparable(self) -> Tensor:
        """The log-joints, or where all of them are −inf what their differences are, ``[K, B, R]``."""
        log_joint = self.log_joint
        lost = log_joint.amax(0) == -torch.inf
        if bool(lost.any()):
            unit = self.white.detach().abs().amax((0, -1)).clamp_min(1)
            distance = (self.white / unit.unsqueeze(-1)).square().sum(-1)
            further = (distance - distance.amin(0)) * unit * unit
            log_joint = torch.where(lost, self._constant.unsqueeze(-1) - 0.5 * further, log_joint)
        return log_joint

    @abstractmethod
    def variance(self) -> Tensor:
        """The diagonal of Cov(x|x_o, k), 0 where x is observed; broadcasts to ``[K, B, D]``."""

    @abstractmethod
    def scatter(self, count: Tensor) -> Tensor:
        """Σ_b count_kb Cov(x|x_o, k), ``[K, D, D]`` or its diagonal ``[K, D]``, for counts ``[K, B]``."""

    @abstractmethod
    def remainder(self, noise: Tensor) -> Tensor:
        """Draws of x − E[x|x_o, k] for standard normal noise ``[K, B, R, D]``; 0 where x is observed."""


class DenseCompletion(Completion):
    r"""With full covariances, where the observed entries say something of the others.

    .. math:: E[x_m|x_o] = \mu_m + \Sigma_{mo}\Sigma_{oo}^{-1}(x_o - \mu_o), \qquad
              \operatorname{Cov}(x_m|x_o) = \Sigma_{mm} - \Sigma_{mo}\Sigma_{oo}^{-1}\Sigma_{om}

    Σ_oo is factored inside a D × D matrix that is I elsewhere, so that all patterns of a block and all components are
    one batch. O(KD³) a pattern and O(KD²) a row.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, covariances: Tensor, block: Block, rows: Tensor) -> None:
        seen = block.mask.double()
        hidden = 1 - seen
        covariances = covariances.unsqueeze(1)
        inside = covariances * (seen.unsqueeze(-1) * seen.unsqueeze(-2)) + torch.diag_embed(hidden)
        factor = torch.linalg.cholesky(inside)
        across = covariances * (seen.unsqueeze(-1) * hidden.unsqueeze(-2))
        cross = torch.linalg.solve_triangular(factor, across, upper=False)
        residual = torch.where(block.mask.unsqueeze(1), rows - means[:, None, None], 0.0)
        self.white = white = torch.linalg.solve_triangular(factor, residual.mT, upper=False).mT
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + seen.sum(-1) * 0.5 * math.log(2 * math.pi)
        self._constant = log_weights[:, None] - log_det
        self.log_joint = self._constant.unsqueeze(-1) - 0.5 * white.square().sum(-1)
        self.deviation = residual + white @ cross
        self._covariances, self._factor, self._cross, self._hidden = covariances, factor, cross, hidden

    def variance(self) -> Tensor:
        diagonal = self._covariances.diagonal(dim1=-2, dim2=-1)
        return self._hidden * (diagonal - self._cross.square().sum(-2)).clamp_min(0)

    def scatter(self, count: Tensor) -> Tensor:
        hidden = self._hidden.unsqueeze(-1) * self._hidden.unsqueeze(-2)
        left = self._covariances * hidden - self._cross.mT @ self._cross
        return (count[:, None] @ left.flatten(2).expand(count.shape[0], -1, -1)).reshape(-1, *left.shape[2:])

    def remainder(self, noise: Tensor) -> Tensor:
        # A draw of x, less what its own observed entries say of the others (Matheron's rule).
        drawn = noise @ torch.linalg.cholesky(self._covariances).mT
        hidden = self._hidden.unsqueeze(1)
        white = torch.linalg.solve_triangular(self._factor, (drawn * (1 - hidden)).mT, upper=False).mT
        return hidden * drawn - white @ self._cross


class DiagonalCompletion(Completion):
    """With diagonal covariances: the entries that are missing are as they would be without the others. O(KD) a row."""

    def __init__(self, log_weights: Tensor, means: Tensor, variances: Tensor, block: Block, rows: Tensor) -> None:
        std = variances.sqrt()
        self.deviation = torch.where(block.mask.unsqueeze(1), rows - means[:, None, None], 0.0)
        self.white = self.deviation / std[:, None, None]
        log_det = (std.log() + 0.5 * math.log(2 * math.pi)) @ block.mask.double().mT
        self._constant = log_weights[:, None] - log_det
        self.log_joint = self._constant.unsqueeze(-1) - 0.5 * self.white.square().sum(-1)
        self._variances = variances
        self._hidden = (~block.mask).double()

    def variance(self) -> Tensor:
        return self._hidden * self._variances.unsqueeze(1)

    def scatter(self, count: Tensor) -> Tensor:
        return (count @ self._hidden) * self._variances

    def remainder(self, noise: Tensor) -> Tensor:
        return noise * self.variance().sqrt().unsqueeze(2)


def conditioned(at: MixtureParameters, row: Tensor) -> MixtureParameters:
    """The mixture of the entries that a row ``[D]`` leaves open, marked by nan, given the others. O(KD³) if dense.

    Components keep their number: their weights are the responsibilities, their means and covariances the conditional
    ones. Variances that are no matrices stay what they are.
    """
    rows, structure = row.unsqueeze(0), at.structure
    hidden = row.isnan().nonzero().squeeze(1).tolist()
    (block,) = Patterns.of(~rows.isnan(), 1, 1).blocks
    completion = completing(at)(block, block.rows(rows))
    covariances = at.covariances
    if structure.dense:
        covariances = completion.scatter(torch.ones_like(at.logits).unsqueeze(1))
        covariances = covariances[0] if structure.shared else covariances
    return MixtureParameters(
        structure,
        completion.log_responsibilities()[:, 0, 0],
        (at.means + completion.deviation[:, 0, 0])[:, hidden],
        structure.pack(structure.of_columns(covariances, hidden)),
    )
