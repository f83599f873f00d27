"""Independent features of one family each, with the numbers that are its parameters from a network, or learnable."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, in_words
from density.contract import Density
from density.data.blocks import in_blocks
from density.data.states import Alphabet
from density.families.bounded import bounded
from density.families.conditional import Conditional
from density.families.likelihoods.likelihood import Likelihood
from density.families.network import network_output
from density.initialisation import StartingPoints
from density.measure import Measure
from density.support import Region, Support

LOG_SCALE_BOUND = 7.0  # as that of NetworkScale
NUMBERS_AT_ONCE = 2**26  # that a network returns, where no gradient needs all: 256 levels of 784 features are 2e5


class UnivariateLikelihood(Likelihood):
    """A family p(x|θ) of densities of one number, whose parameters may be any real numbers; features are independent.

    A subclass writes the formulas, elementwise: x ``[*batch, D]`` beside the parameters ``[*batch, numbers, D]``. The
    last ``log_scales`` of these are logarithms of scales, which the densities bound smoothly to ±7, as
    :class:`~density.families.conditional_gaussian.NetworkScale` does. Parameters are near 0 at the start.

    Attributes:
        names: what the numbers are, for errors.
        from_data: whether the parameters start from data (:meth:`start`), and not from 0.
        interior: a value that x may have, wherever ``region`` is not None.

    >>> from density import Poisson
    >>> Poisson().numbers, round(Poisson().log_prob(torch.tensor([2.0]), torch.zeros(1, 1)).exp().item(), 4)  # e⁻¹/2
    (1, 0.1839)
    """

    names: str = "parameters"
    from_data: bool = False
    interior: float = 0.5

    @property
    def log_scales(self) -> int:
        """How many of the numbers, the last ones, are logarithms of scales."""
        return 0

    @property
    def region(self) -> Region | None:
        """The values that x may have; None for all real numbers."""
        return None

    @property
    def count(self) -> int | None:
        """How many values x may have, 0, 1, …; None where they cannot be counted."""
        return None

    @abstractmethod
    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_j|θ_j) for x ``[*batch, D]`` and parameters ``[*batch, numbers, D]``: ``[*batch, D]``, nats."""

    def log_prob_at_each(self, x: Tensor, parameters: Tensor) -> Tensor | None:
        """log p(xᵢ|θ_k) of all pairs, summed over features: ``[n, K]``, for x ``[n, D]`` and parameters ``[K, numbers,
        D]``; None where there is no shorter way than :meth:`log_prob`.
        """
        return None

    @abstractmethod
    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        """n draws ``[n, *batch, D]`` for parameters ``[*batch, numbers, D]``, pathwise where they can be."""

    def mean(self, parameters: Tensor) -> Tensor | None:
        """E[x_j|θ_j], ``[*batch, D]``; None where it has no closed form."""
        return None

    def kl(self, q: Tensor, p: Tensor) -> Tensor | None:
        """KL(p(·|θ_q) ‖ p(·|θ_p)) of each feature, ``[*batch, D]``, nats; None where it has no closed form."""
        return None

    def start(self, x: Tensor) -> Tensor:
        """The parameters ``[numbers, D]`` that numbers 0 of a network stand for, from data ``[n, D]``."""
        return x.new_zeros(self.numbers, x.shape[-1])

    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        return ConditionallyIndependent(network, features, context_features, self)


class IndependentFamily(Density, ABC):
    r"""Independent features of one family, :math:`\log p(x|c) = \sum_j \log p(x_j \,|\, θ_j(c))`.

    Measure and support are the family's. O(numbers · D) a point.

    >>> from density import Independent, IndependentFamily, Laplace
    >>> density = Independent(3, Laplace())
    >>> isinstance(density, IndependentFamily), density.parameters_at(None).shape
    (True, torch.Size([2, 3]))
    """

    likelihood: UnivariateLikelihood
    offset: Tensor
    started: Tensor

    def _take(self, likelihood: UnivariateLikelihood) -> None:
        """Be of this family; the number of features is known."""
        if not isinstance(likelihood, UnivariateLikelihood):
            raise TypeError(
                f"{type(self).__name__} takes a family of one number, such as DiscretisedLogistic(levels=256); got "
                f"{in_words(likelihood)}"
            )
        self.likelihood = likelihood
        self.measure = likelihood.measure
        if likelihood.from_data:
            self.register_buffer("offset", torch.zeros(likelihood.numbers, self.features))
            self.register_buffer("started", torch.tensor(False))

    @abstractmethod
    def raw_at(self, context: Tensor | None) -> Tensor:
        """The numbers ``[*context_batch, numbers, D]`` as they come, at contexts ``[*context_batch, C]``."""

    def parameters_at(self, context: Tensor | None) -> Tensor:
        """θ ``[*context_batch, numbers, D]``: scales bounded, and moved to where the data are."""
        likelihood, raw = self.likelihood, self.raw_at(context)
        if likelihood.log_scales:
            free, logs = raw.split([likelihood.numbers - likelihood.log_scales, likelihood.log_scales], -2)
            raw = torch.cat([free, bounded(logs, LOG_SCALE_BOUND)], -2)
        return raw + self.offset if likelihood.from_data else raw

    @property
    def support(self) -> Support | None:
        return self.likelihood.region if self.measure is Measure.LEBESGUE else None

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        count = self.likelihood.count
        return () if count is None else Alphabet.of_levels(count, self.features, self.reference)

    def check_support(self, x: Tensor) -> None:
        if (region := self.likelihood.region) is not None:
            region.check(x, type(self.likelihood).__name__)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        super()._initialise(x, context)
        if self.likelihood.from_data and x.known and not bool(self.started):
            self.offset.copy_(self.likelihood.start(x.rows))
            self.started.fill_(True)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._log_prob_at(x, self.parameters_at(context))

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        parameters = self.parameters_at(context)
        found = self.likelihood.log_prob_at_each(x, parameters)
        return self._log_prob_at(x.unsqueeze(1), parameters) if found is None else found

    def _log_prob_at(self, x: Tensor, parameters: Tensor) -> Tensor:
        region = self.likelihood.region
        if region is None or self.measure is not Measure.LEBESGUE:
            return self.likelihood.log_prob(x, parameters).sum(-1)
        inside = x.masked_fill(region.outside(x), self.likelihood.interior)  # so that no gradient is nan
        return region.vanishing(x, self.likelihood.log_prob(inside, parameters).sum(-1))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.likelihood.sample(n, self.parameters_at(context), generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        parameters = self.parameters_at(context)
        x = self.likelihood.sample(n, parameters, generator)
        return x, self._log_prob_at(x, parameters)

    def _expectation(self, context: Tensor | None) -> Tensor:
        mean = self.likelihood.mean(self.parameters_at(context))
        return super()._expectation(context) if mean is None else mean


class Independent(IndependentFamily):
    """Independent features of one family with learnable parameters.

    Args:
        features: D.
        likelihood: the family.

    >>> from density.families.levels.categorical_levels import CategoricalLevels
    >>> Independent(2, CategoricalLevels(4)).log_prob(torch.tensor([0.0, 3.0])).exp()
    tensor(0.0625, grad_fn=<ExpBackward0>)
    """

    def __init__(self, features: int, likelihood: UnivariateLikelihood) -> None:
        super().__init__()
        self.features = check_count(features, "features")
        self._take(likelihood)
        self.raw = nn.Parameter(torch.zeros(likelihood.numbers, self.features))

    def raw_at(self, context: Tensor | None) -> Tensor:
        return self.raw


class ConditionallyIndependent(Conditional, IndependentFamily):
    """Independent features of one family, whose parameters a network computes from the context.

    Args:
        network: maps rows ``[n, C]`` to ``[n, numbers · D]``, the first number of every feature, then the second of
            every feature, and so on; or to n events of as many numbers, such as images ``[n, numbers · channels, H,
            W]``. It sees contexts of any batch shape as rows.
        features: D.
        context_features: C.
        likelihood: the family.

    >>> from density.families.levels.discretised_logistic import DiscretisedLogistic
    >>> decoder = ConditionallyIndependent(nn.Linear(2, 2 * 64), 64, 2, DiscretisedLogistic(levels=17))
    >>> decoder.log_prob(torch.full((5, 64), 16.0), context=torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self, network: nn.Module, features: int, context_features: int, likelihood: UnivariateLikelihood
    ) -> None:
        super().__init__(network, features, context_features)
        self._take(likelihood)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        most = max(1, NUMBERS_AT_ONCE // (self.likelihood.numbers * self.features))
        if context is None or torch.is_grad_enabled() or context.shape[:-1].numel() <= most:
            return super()._log_prob(x, context)
        batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        points, contexts = (t.expand(*batch, -1).flatten(0, -2) for t in (x, context))
        return in_blocks(super()._log_prob, points, contexts, most).reshape(batch)

    def raw_at(self, context: Tensor | None) -> Tensor:
        family, D = self.likelihood, self.features
        owner, numbers = f"{type(self).__name__} of {type(family).__name__}", f"{family.names}, each of all features"
        return network_output(self.network, context, family.numbers * D, owner, numbers).unflatten(-1, (-1, D))
