"""A function that knows log p(x) as a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bridge.adapters.adapted import Adapted, author
from bridge.adapters.calls import Calls
from density.checks import find_reference
from density.measure import Measure, ReferenceMeasure


class FromLogProb(Adapted):
    """The density whose log p(x) a function returns. Built by :func:`from_log_prob`, and by adapters of libraries.

    Args:
        function: maps points ``[n, D]`` to log p ``[n]``; with a context, points and contexts ``[n, C]``.
        features: D.
        sample: maps n to draws ``[n, D]``; with a context, m and contexts ``[m, C]`` to one draw of each, ``[m, D]``.
        context_features: C.
        measure: what log p is with respect to.
        method: how log p(x) comes about, in words.

    >>> density = FromLogProb(lambda x: -x.abs().sum(-1) - 0.6931 * x.shape[-1], 3, method="double exponential")
    >>> density.log_density(torch.ones(2, 3)).method, round(density.log_prob(torch.zeros(3)).item(), 3)
    ('double exponential', -2.079)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        features: int,
        sample: Callable[..., Any] | None = None,
        *,
        context_features: int = 0,
        measure: ReferenceMeasure = Measure.LEBESGUE,
        method: str | None = None,
    ) -> None:
        source = function if isinstance(function, nn.Module) else Calls(function)
        super().__init__(features, context_features, measure, find_reference(source))
        self.source = source
        self.sampler = sample if sample is None or isinstance(sample, nn.Module) else Calls(sample)
        self._method = f"{_name(function)}, as given" if method is None else method

    @property
    def method(self) -> str:
        return self._method

    def _rows_log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        value = self.source(x) if context is None else self.source(x, context)
        return value if isinstance(value, Tensor) else torch.as_tensor(value, device=x.device)

    def _draws(self, n: int, context: Tensor | None) -> Tensor:
        if self.sampler is None:
            raise TypeError(
                f"{type(self).__name__} cannot sample: it was given log p(x) alone. Pass "
                "sample=, a function of n that returns [n, features]"
            )
        if context is None:
            draws = self.sampler(n)
        else:
            draws = self.sampler(n * len(context), context.repeat(n, 1))
        return draws if isinstance(draws, Tensor) else torch.as_tensor(draws, device=self.anchor.device)


def from_log_prob(
    function: Callable[..., Any],
    features: int,
    sample: Callable[..., Any] | None = None,
    *,
    measure: ReferenceMeasure = Measure.LEBESGUE,
) -> FromLogProb:
    """Anything that knows log p(x) as a density.

    The claim is exact on the function's word, and names it; ``check_exact`` tries it.

    Args:
        function: maps points ``[n, D]`` to log p ``[n]``, a tensor or an array; a module, a method, or any function.
            Modules that it uses are parts of the density.
        features: D.
        sample: maps n to draws ``[n, D]``. It draws from torch's global random state where it is to follow a generator.
        measure: what log p is with respect to.

    >>> laplace = from_log_prob(lambda x: -(x.abs() + 0.6931).sum(-1), features=2)
    >>> laplace.log_density(torch.zeros(3, 2)).mean
    -1.3862
    """
    return FromLogProb(function, features, sample, measure=measure)


def as_word_of(library: str, model: object) -> str:
    """How the claim of a model of a library names it."""
    return f"log_prob of {type(model).__name__}, as {library} says"


def _name(function: object) -> str:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return f"{getattr(function, '__name__', 'log p')} of {type(owner).__name__} ({author(type(owner))})"
    return str(getattr(function, "__name__", type(function).__name__)).replace("<lambda>", "log p")
