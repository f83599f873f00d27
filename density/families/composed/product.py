"""Products of densities over groups of columns: tables whose columns are of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate, chain, pairwise
from operator import add

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count
from density.contract import Density
from density.data.states import Alphabet
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import in_ranges, product
from density.support import Support


class Product(Density):
    r"""A product of densities, each of its own columns, independent given the context.

    .. math:: p(x|c) = \prod_g p_g(x_g | c_g)

    The context is that of all parts side by side, c = (c_1, …, c_G), so that one network computes the parameters of all
    of them: ``Featured(network, product, C)`` is the decoder of a table. Parts without a context have no share in it.
    The measure is the product of the parts' measures: of numbers and categories neither Lebesgue nor counting, but one
    that says which columns are which (:class:`~density.measure.ProductMeasure`).

    Args:
        parts: densities of x_1, …, x_G.
        columns: of x, from 0, that each part is about, in its order; one part after the other if None.

    Raises:
        TypeError: a part is no Density.
        ValueError: there are none, a part is about another number of columns, or a column belongs to none or to two.

    Cost: that of the parts, and O(D) a point where columns are not in order.

    >>> from density.families.bernoulli import Bernoulli
    >>> from density.families.gaussian import StandardNormal
    >>> table = Product([StandardNormal(2), Bernoulli(1)], columns=[[0, 2], [1]])
    >>> table.measure.value
    'Lebesgue (columns 0, 2) × counting (column 1)'
    >>> round(table.log_prob(torch.tensor([0.0, 1.0, 0.0])).item(), 4)  # −log 2π − log 2
    -2.531
    """

    order: Tensor
    places: Tensor
    anchor: Tensor

    def __init__(self, parts: Sequence[Density], columns: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        parts = list(parts)
        for part in parts:
            if not isinstance(part, Density):
                raise TypeError(f"Product takes densities; got {type(part).__name__}")
        self.columns = _checked(parts, columns)
        order = list(chain.from_iterable(self.columns))
        self.features = len(order)
        self.context_features = sum(part.context_features for part in parts)
        of_parts = [part.measure.columns(part.features) for part in parts]
        measures = dict(zip(order, chain.from_iterable(of_parts), strict=True))
        self.measure = product([measures[column] for column in range(len(order))])
        self.factorises = all(part.factorises for part in parts)
        self.parts = nn.ModuleList(parts)
        self._in_order = order == sorted(order)
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.register_buffer("places", self.order.argsort(), persistent=False)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # parts may hold no tensor

    @property
    def support(self) -> Support | None:
        parts = [(type(part).__name__, own, part.support) for part, own in zip(self.factors, self.columns, strict=True)]
        return None if all(support is None for _, _, support in parts) else _OfColumns(parts)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        pairs = zip(self.factors, self.columns, strict=True)
        return tuple(alphabet.among(columns) for part, columns in pairs for alphabet in part.alphabets)

    def check_support(self, x: Tensor) -> None:
        super().check_support(x)
        for part, columns, own in zip(self.factors, self.columns, self.split(x), strict=True):
            if part.support is None:
                try:
                    part.check_support(own)
                except ValueError as error:
                    raise ValueError(f"{type(self).__name__}, of {_refused(part, columns, own)}: {error}") from error

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        for number, part in enumerate(self.factors):
            own, share = x.mapped(partial(self._own, number)), UNKNOWN
            if part.context_features:
                share = context.mapped(partial(self._share, number))
            part._initialise(own, share)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        triples = zip(self.factors, self.split(x), self._shares(context), strict=True)
        return reduce(add, (part._log_prob(own, share) for part, own, share in triples))

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        triples = zip(self.factors, self.split(x), self._shares(context), strict=True)
        return reduce(add, (_at_each(part, own, share, len(context)) for part, own, share in triples))

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        triples = zip(self.factors, self.split(x), self._shares(context), strict=True)
        each = [part._log_prob_by_feature(own, share) for part, own, share in triples]
        batch = torch.broadcast_shapes(*(terms.shape[:-1] for terms in each))
        return self._joined([terms.expand(*batch, -1) for terms in each])

    def _inside(self) -> Tensor:
        return self._joined([part._inside() for part in self.factors])

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        drawn = []
        for part, share in zip(self.factors, self._shares(context), strict=True):
            alike = n if share is not None or context is None else n * context.shape[:-1].numel()
            drawn.append(self._in_batch(part._sample(alike, share, generator), n, context))
        return self._joined(drawn)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        drawn, log_probs = [], []
        for part, share in zip(self.factors, self._shares(context), strict=True):
            alike = n if share is not None or context is None else n * context.shape[:-1].numel()
            x, log_prob = part._sample_with_log_prob(alike, share, generator)
            drawn.append(self._in_batch(x, n, context))
            log_probs.append(log_prob.reshape(drawn[-1].shape[:-1]))
        return self._joined(drawn), reduce(add, log_probs)

    def _expectation(self, context: Tensor | None) -> Tensor:
        batch = () if context is None else context.shape[:-1]
        pairs = zip(self.factors, self._shares(context), strict=True)
        return self._joined([part._expectation(share).expand(*batch, part.features) for part, share in pairs])

    @property
    def factors(self) -> list[Density]:
        """The densities, in the order of their :attr:`columns`."""
        return [part for part in self.parts if isinstance(part, Density)]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The columns of each part, of points ``[*batch, D]``."""
        return (x if self._in_order else x[..., self.order]).split([len(own) for own in self.columns], -1)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Inverse of :meth:`split`."""
        x = torch.cat(list(parts), -1)
        return x if self._in_order else x[..., self.places]

    def _shares(self, context: Tensor | None) -> list[Tensor | None]:
        """The context of each part; None for a part that has none."""
        widths = [part.context_features for part in self.factors]
        if context is None:
            return [None] * len(widths)
        return [share if width else None for share, width in zip(context.split(widths, -1), widths, strict=True)]

    def _own(self, number: int, x: Tensor) -> Tensor:
        return self.split(x)[number]

    def _share(self, number: int, context: Tensor) -> Tensor:
        return context.split([part.context_features for part in self.factors], -1)[number]

    def _in_batch(self, x: Tensor, n: int, context: Tensor | None) -> Tensor:
        """n draws of a part ``[n, *batch, d]``, also of one that has no share in the context."""
        return x if context is None else x.reshape(n, *context.shape[:-1], x.shape[-1])


def _at_each(part: Density, own: Tensor, share: Tensor | None, contexts: int) -> Tensor:
    if share is None:
        return part._log_prob(own, None).unsqueeze(-1).expand(-1, contexts)
    return part._log_prob_at_each(own, share)


@dataclass(frozen=True, eq=False)
class _OfColumns(Support):
    """The points whose columns lie each in the support of its part: names, columns and supports of all parts."""

    parts: Sequence[tuple[str, Sequence[int], Support | None]]

    def check(self, x: Tensor, owner: str, first: int = 0, columns: Sequence[int] | None = None) -> None:
        for name, own, support in self.parts:
            if support is not None:
                called = own if columns is None else [columns[column] for column in own]
                support.check(x[..., list(own)], f"{owner}: {name}", first, called)


def _refused(part: Density, columns: Sequence[int], x: Tensor) -> str:
    """Which columns hold what a part refuses: of independent features each by itself, else all of them."""
    found = []
    for place, column in enumerate(columns):
        try:
            part.check_support(x[..., place : place + 1].expand_as(x))
        except ValueError:
            found.append(column)
    return f"column{'s' if len(found) != 1 else ''} {in_ranges(sorted(found or columns))}"


def _checked(parts: Sequence[Density], columns: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
    """The columns of each part, as ints."""
    if not parts:
        raise ValueError("Product expects at least one part; got none")
    if columns is None:
        ends = list(accumulate((part.features for part in parts), initial=0))
        columns = [range(first, last) for first, last in pairwise(ends)]
    found = tuple(tuple(check_count(c, "Product: a column", least=0) for c in own) for own in columns)
    if [len(own) for own in found] != [part.features for part in parts]:
        names = ", ".join(f"{type(part).__name__} ({part.features})" for part in parts)
        raise ValueError(
            f"Product expects for each part as many columns as it has features, {names}; got {list(map(list, found))}"
        )
    every = sorted(chain.from_iterable(found))
    if every != list(range(len(every))):
        raise ValueError(
            f"Product expects each of the columns 0 ... {len(every) - 1} in one part and no other; got "
            f"{list(map(list, found))}"
        )
    return found
