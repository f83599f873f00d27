"""Independent Bernoulli features: the decoder of binary data."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from density.checks import check_count
from density.contract import Density
from density.data.states import Alphabet
from density.families.conditional import Conditional
from density.families.network import network_output
from density.measure import Measure


class BernoulliFamily(Density, ABC):
    r"""A mass function of independent bits with log-odds ℓ(c); its measure is counting.

    .. math:: \log p(x|c) = \sum_j x_j \ell_j - \operatorname{softplus}(\ell_j)

    O(D) a point. Draws are not reparametrised.

    >>> from density import Bernoulli, BernoulliFamily
    >>> bits = Bernoulli(2)  # log-odds 0
    >>> isinstance(bits, BernoulliFamily), round(bits.log_prob(torch.tensor([1.0, 0.0])).exp().item(), 4)
    (True, 0.25)
    """

    measure = Measure.COUNTING
    factorises = True

    @abstractmethod
    def logits_at(self, context: Tensor | None) -> Tensor:
        """Log-odds ``[*context_batch, D]`` at a context ``[*context_batch, C]``."""

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return Alphabet.of_levels(2, self.features, self.reference)

    def check_support(self, x: Tensor) -> None:
        if not bool(((x == 0) | (x == 1)).all()):
            raise ValueError(
                f"{type(self).__name__} is a distribution over {{0, 1}}; got other values, for example "
                f"{x[(x != 0) & (x != 1)][0].item():.4g}. Binarise the data, or take a likelihood of what they are: "
                "ContinuousBernoulli of grey values in [0, 1], DiscretisedLogistic or CategoricalLevels of levels "
                "0 ... L-1, NegativeBinomial of counts, GaussianLikelihood of real numbers"
            )

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return _log_mass(x, self.logits_at(context))

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        """One product: Σ_j x_j log σ(ℓ_j) + (1 − x_j) log σ(−ℓ_j), of bits a sum of terms of one sign."""
        logits = self.logits_at(context)
        both = torch.cat([functional.logsigmoid(logits), functional.logsigmoid(-logits)], -1)
        return torch.cat([x, 1 - x], -1) @ both.mT

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        logits = self.logits_at(context)
        rest, log_mass = _nearest(x, logits)
        return log_mass + rest * logits

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self._toss(n, self.logits_at(context), generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        logits = self.logits_at(context)
        x = self._toss(n, logits, generator)
        return x, _log_mass(x, logits)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.logits_at(context).sigmoid()

    def _toss(self, n: int, logits: Tensor, generator: Generator | None) -> Tensor:
        """n bits ``[n, *batch, D]`` for each of the log-odds ``[*batch, D]``."""
        try:
            return torch.bernoulli(logits.sigmoid().expand(n, *logits.shape), generator=generator)
        except RuntimeError as error:
            if bool(logits.isfinite().all()):
                raise
            raise ValueError(
                f"{type(self).__name__} cannot draw: some log-odds are not finite. Look for nan or inf in the context"
            ) from error


class Bernoulli(BernoulliFamily):
    """Independent bits with learnable log-odds ``[D]``.

    >>> Bernoulli(3).log_prob(torch.tensor([0.0, 1.0, 1.0])).exp()
    tensor(0.1250, grad_fn=<ExpBackward0>)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = features
        self.logits = nn.Parameter(torch.zeros(features))

    def logits_at(self, context: Tensor | None) -> Tensor:
        return self.logits


class ConditionalBernoulli(Conditional, BernoulliFamily):
    """Independent bits whose log-odds a network computes from the context: the decoder of a VAE for binary data.

    Args:
        network: any module that maps rows ``[n, C]`` to log-odds ``[n, D]``, or to n events of D log-odds, such as
            images; it sees contexts of any batch shape as rows.
        features: D.
        context_features: C.

    >>> decoder = ConditionalBernoulli(nn.Linear(2, 5), features=5, context_features=2)
    >>> decoder.log_prob(torch.ones(7, 5), torch.zeros(7, 2)).shape, decoder.measure.value
    (torch.Size([7]), 'counting')
    """

    def logits_at(self, context: Tensor | None) -> Tensor:
        return network_output(self.network, context, self.features, type(self).__name__, "log-odds")


def _log_mass(x: Tensor, logits: Tensor) -> Tensor:
    """Σ_j x_j ℓ_j − softplus(ℓ_j), as log σ(±ℓ) of the bits next to x: the difference itself cancels at large ℓ."""
    rest, log_mass = _nearest(x, logits)
    return log_mass.sum(-1) + torch.linalg.vecdot(rest, logits)


def _nearest(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """What x has beyond the bits next to it, and the log-mass of each of these, log σ(±ℓ)."""
    bits = (x >= 0.5).to(logits.dtype)
    rest = x - bits
    signs = bits.mul_(2).sub_(1)  # in place: with images, memory touched for the first time costs more than arithmetic
    return rest, functional.logsigmoid(signs * logits)
