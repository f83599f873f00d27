"""Markov chains of densities: several vectors, of which each depends on the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn

from density.contract import Density
from density.data.states import Alphabet
from density.initialisation import UNKNOWN, StartingPoints
from density.support import Support


class MarkovChain(Density):
    r"""A density over several vectors side by side, of which each depends on its neighbour alone.

    .. math:: \log p(v_1, \dots, v_K | c) = \log p(v_1|c) + \sum_{k>1} \log p(v_k | v_{k-1})

    With ``from_last`` it runs the other way, :math:`p(v_K|c) \prod_{k<K} p(v_k|v_{k+1})`. The latents of a hierarchical
    VAE are such a chain twice: from the first for its encoder, and from the last for its prior.

    Args:
        parts: the densities in the order of their vectors, at least one. That which the chain starts from is
            unconditional or of a context, which becomes the chain's; the others are conditional on their neighbour.
        from_last: start from the last part instead of the first.

    Raises:
        TypeError: a part is not a Density.
        ValueError: there is none, neighbours do not fit, or measures differ; the message names the parts.

    Cost: the sum over the parts.

    >>> from density.families.conditional_gaussian import ConditionalGaussian
    >>> from density.families.gaussian import StandardNormal
    >>> chain = MarkovChain(StandardNormal(2), ConditionalGaussian(nn.Linear(2, 6), 3, 2))
    >>> chain.sample(7).shape, chain.log_prob(torch.zeros(4, 5)).shape
    (torch.Size([7, 5]), torch.Size([4]))
    """

    def __init__(self, *parts: Density, from_last: bool = False) -> None:
        super().__init__()
        if not parts:
            raise ValueError("MarkovChain needs at least one density")
        for position, part in enumerate(parts):
            if not isinstance(part, Density):
                raise TypeError(f"MarkovChain is made of Densities; part {position} is a {type(part).__name__}")
        self.from_last = from_last
        self.densities = nn.ModuleList(parts)
        self.widths = [part.features for part in parts]
        self.features = sum(self.widths)
        first, *_ = order = self._order
        self.context_features = parts[first].context_features
        self.measure = parts[first].measure
        for before, position in pairwise(order):
            part, given = parts[position], parts[before]
            if part.context_features != given.features:
                raise ValueError(
                    f"MarkovChain: part {position} ({type(part).__name__}) is conditioned on {part.context_features} "
                    f"features, but part {before} ({type(given).__name__}), which it follows, has {given.features}"
                )
            if part.measure != self.measure:
                raise ValueError(
                    f"MarkovChain: its parts must be densities with respect to one measure; part {position} "
                    f"({type(part).__name__}) is one with respect to {part.measure.value} measure, part {first} to "
                    f"{self.measure.value}"
                )

    @property
    def parts(self) -> list[Density]:
        """The densities, in the order of their vectors."""
        return cast("list[Density]", list(self.densities))

    @property
    def _order(self) -> list[int]:
        """Positions in the order in which they are drawn."""
        positions = list(range(len(self.widths)))
        return positions[::-1] if self.from_last else positions

    @property
    def support(self) -> Support | None:
        supports = [part.support for part in self.parts]
        everywhere = all(support is None for support in supports)
        return None if everywhere else _SideBySide(self.widths, supports)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        columns = torch.arange(self.features).split(self.widths)
        pairs = zip(self.parts, columns, strict=True)
        return tuple(alphabet.among(own.tolist()) for part, own in pairs for alphabet in part.alphabets)

    def check_support(self, x: Tensor) -> None:
        for part, value in zip(self.parts, x.split(self.widths, -1), strict=True):
            part.check_support(value)

    def log_probs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The terms of log p(x|c), part by part: ``[K, *batch]`` for x ``[*batch, D]``; batch shapes broadcast."""
        values, terms = x.split(self.widths, -1), {}
        for position in self._order:
            terms[position] = self.parts[position].log_prob(values[position], context)
            context = values[position]
        return torch.stack(torch.broadcast_tensors(*(terms[position] for position in range(len(values)))))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        values, total = x.split(self.widths, -1), x.new_zeros(())
        for position in self._order:
            total = total + self.parts[position]._log_prob(values[position], context)
            context = values[position]
        return total

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        values: dict[int, Tensor] = {}
        given = context
        for position in self._order:
            value = self.parts[position]._sample(1 if values else n, given, generator)
            values[position] = given = value.squeeze(0) if values else value
        return self._side_by_side(values, context)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        values: dict[int, Tensor] = {}
        terms: list[Tensor] = []
        given = context
        for position in self._order:
            value, term = self.parts[position]._sample_with_log_prob(1 if values else n, given, generator)
            terms.append(term.squeeze(0) if values else term)
            values[position] = given = value.squeeze(0) if values else value
        return self._side_by_side(values, context), sum(terms[1:], terms[0])

    def _side_by_side(self, values: dict[int, Tensor], context: Tensor | None) -> Tensor:
        """Draws by their positions as one tensor, with gradients where there is a path through all of them."""
        draws = torch.cat([values[position] for position in range(len(values))], -1)
        return draws if self._pathwise(values, context) else draws.detach()

    def _pathwise(self, values: dict[int, Tensor], context: Tensor | None) -> bool:
        """Whether no part cuts the path: gradients through the others alone would be a part of the gradient."""
        if not torch.is_grad_enabled():
            return True
        for position in self._order:
            due = [*self.parts[position].parameters(), *([] if context is None else [context])]
            context = values[position]
            if not context.requires_grad and any(tensor.requires_grad for tensor in due):
                return False
        return True

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        for position in self._order:
            value = x.mapped(lambda x, position=position: x.split(self.widths, -1)[position])  # type: ignore[misc]
            part = self.parts[position]
            part._initialise(value, context if part.context_features else UNKNOWN)
            context = value


@dataclass(frozen=True, eq=False)
class _SideBySide(Support):
    """The points whose parts each lie in a support, None for everywhere."""

    widths: Sequence[int]
    supports: Sequence[Support | None]

    def check(self, x: Tensor, owner: str, first: int = 0, columns: Sequence[int] | None = None) -> None:
        start = 0
        for number, (support, value) in enumerate(zip(self.supports, x.split(list(self.widths), -1), strict=True)):
            if support is not None:
                own = None if columns is None else columns[start : start + value.shape[-1]]
                support.check(value, f"{owner}: part {number}", first, own)
            start += value.shape[-1]
