"""Categorical distributions over one-hot vectors: the discrete latent of a mixture."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, free_to_look
from density.contract import Density
from density.data.states import Alphabet
from density.families.conditional import Conditional
from density.families.network import network_output
from density.measure import Measure


class CategoricalFamily(Density, ABC):
    """A categorical distribution Cat(π(c)) over the K one-hot vectors of size K, π = softmax(logits). O(K) a point.

    >>> from density import Categorical, CategoricalFamily
    >>> three = Categorical(3)
    >>> isinstance(three, CategoricalFamily), three.enumerate().tolist()
    (True, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> round(three.log_prob(three.enumerate()).exp().sum().item(), 4)
    1.0
    """

    measure = Measure.COUNTING

    @abstractmethod
    def logits_at(self, context: Tensor | None) -> Tensor:
        """Unnormalised log-probabilities ``[*context_batch, K]``."""

    def enumerate(self) -> Tensor:
        """All values, ``[K, K]``: with them, sums over the latent are exact."""
        return torch.eye(self.features, dtype=self.reference.dtype, device=self.reference.device)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return (Alphabet((*range(self.features),), self.enumerate()),)

    def check_support(self, x: Tensor) -> None:
        if not bool((((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1)).all()):
            raise ValueError(f"{type(self).__name__} is a distribution over one-hot vectors of size {self.features}")

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return _pick(self.logits_at(context).log_softmax(-1), x)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self._sample_with_log_prob(n, context, generator)[0]

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        log_probs = self.logits_at(context).log_softmax(-1)
        index = draw_classes(n, log_probs, generator, type(self).__name__)
        values = torch.arange(self.features, device=index.device)
        x = (index.unsqueeze(-1) == values).to(log_probs.dtype)  # one_hot looks at the indices, which vmap cannot
        return x, _pick(log_probs, x)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.logits_at(context).softmax(-1)


class Categorical(CategoricalFamily):
    """Cat(π) with learnable logits ``[K]``.

    >>> prior = Categorical(2)
    >>> prior.log_prob(prior.enumerate()).exp()
    tensor([0.5000, 0.5000], grad_fn=<ExpBackward0>)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = features
        self.logits = nn.Parameter(torch.zeros(features))

    def logits_at(self, context: Tensor | None) -> Tensor:
        return self.logits


class ConditionalCategorical(Conditional, CategoricalFamily):
    """Cat(π(c)) whose logits a network computes from the context.

    Args:
        network: any module that maps rows ``[n, C]`` to logits ``[n, K]``; it sees contexts of any batch shape as rows.
        features: K.
        context_features: C.

    >>> network = nn.Linear(2, 3)
    >>> density = ConditionalCategorical(network, features=3, context_features=2)
    >>> density.expectation(torch.zeros(2)).allclose(network(torch.zeros(2)).softmax(-1))
    True
    """

    def logits_at(self, context: Tensor | None) -> Tensor:
        return network_output(self.network, context, self.features, type(self).__name__, "logits")


def draw_classes(n: int, log_probs: Tensor, generator: Generator | None, owner: str) -> Tensor:
    """n classes ``[n, *batch]`` for each row of log-probabilities ``[*batch, K]``, as integers without gradients."""
    flat = log_probs.detach().exp().reshape(-1, log_probs.shape[-1])
    if n == 1 and not free_to_look(flat):  # multinomial would look whether these are probabilities
        noise = torch.empty_like(flat).exponential_(generator=generator)
        return (flat / noise).argmax(-1).reshape(1, *log_probs.shape[:-1])
    try:
        index = torch.multinomial(flat, n, replacement=True, generator=generator)
    except RuntimeError as error:
        if bool(flat.isfinite().all()):
            raise
        raise ValueError(
            f"{owner} cannot draw: some probabilities are nan. Look for nan or inf in the context, "
            "or for values so far out that densities there overflow (compute in float64, or rescale the data)"
        ) from error
    return index.mT.reshape(n, *log_probs.shape[:-1])


def _pick(log_probs: Tensor, one_hot: Tensor) -> Tensor:
    """Σ_k x_k log π_k by indexing, since 0 · (−∞) must not be nan; batch shapes broadcast."""
    index = one_hot.argmax(-1, keepdim=True)
    shape = torch.broadcast_shapes(index.shape[:-1], log_probs.shape[:-1])
    log_probs = log_probs.expand(*shape, log_probs.shape[-1])
    return log_probs.gather(-1, index.expand(*shape, 1)).squeeze(-1)
