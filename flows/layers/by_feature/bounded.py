"""Maps of bounded supports to the reals, each feature by itself: from a box, from a half-line, from a mixture of them.

A flow on a box is ``Flow(real_nvp(D), on_box(low, high))``: the base of a flow may be any density, another flow too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from density.support import Region
from flows.chain import Chain
from flows.layers.by_feature.elementwise import per_feature
from flows.layers.on_features import OnFeatures
from flows.transform import Transform


class BoxLogit(Transform):
    r"""The logit of a box, z = log(x − low) − log(high − x), from (low, high) to the reals.

    .. math:: \log|\det \partial z/\partial x| = \sum \log(high - low) - \log(x - low) - \log(high - x)

    Distances to both ends are taken in the data's own units, so that neither end loses digits to the other, and an
    inverse that would round to an end gives the nearest number inside. Outside the log-determinant is −∞.

    Args:
        low, high: numbers, or tensors ``[D]``. Two numbers make a transform of any width.

    Raises:
        ValueError: a shape is neither of these, a number is not finite, or there is no number between two ends.

    Cost: O(D) per point.

    >>> z, log_det = BoxLogit(0.0, 16.0)(torch.tensor([8.0]))
    >>> z.item(), log_det.exp().item()
    (0.0, 0.25)
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float | Tensor, high: float | Tensor) -> None:
        super().__init__()
        owner = type(self).__name__
        (low, high), self.features = per_feature(owner, low=low, high=high)
        if not ((high - low).isfinite().all() and (low.nextafter(high) < high).all()):
            raise ValueError(
                f"{owner} expects finite ends with numbers between them; got {low.tolist()} and {high.tolist()}. "
                "on_box takes infinite ends too"
            )
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @property
    def domain(self) -> Region:
        ends = "({}, {})".format(*(_in_words(end) for end in (self.low, self.high)))
        return Region(f"values in {ends}", self._outside, "Take a larger box, or leave such rows out")

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        outside, width = self._outside(x), self.high - self.low
        inside = torch.where(outside, self.low + width / 2, x)
        below, above = (inside - self.low).log(), (self.high - inside).log()
        log_det = (width.log() - below - above).sum(-1)
        return below - above, log_det.masked_fill(outside.any(-1), -math.inf)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        to_nearer_end = width * torch.sigmoid(-z.abs())
        x = torch.where(z < 0, self.low + to_nearer_end, self.high - to_nearer_end)
        x = torch.clamp(x, self.low.nextafter(self.high), self.high.nextafter(self.low))
        return x, (width.log() + F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)

    def _outside(self, x: Tensor) -> Tensor:
        return (x <= self.low) | (x >= self.high)


class HalfLineLog(Transform):
    r"""The logarithm of the distance to an end, increasing: z = log(x − end), or z = −log(end − x) below one.

    .. math:: \log|\det \partial z/\partial x| = -\sum \log|x - end|

    Outside the log-determinant is −∞. An inverse that would round to the end or to infinity gives the nearest number
    inside.

    Args:
        end: a number, or a tensor ``[D]``. A number makes a transform of any width.
        below: whether the support lies below the end.

    Raises:
        ValueError: a shape is neither of these, or a number is not finite.

    Cost: O(D) per point.

    >>> HalfLineLog(1.0)(torch.tensor([2.0, 3.0]))[0].tolist()
    [0.0, 0.6931]
    """

    end: Tensor

    def __init__(self, end: float | Tensor = 0.0, below: bool = False) -> None:
        super().__init__()
        owner = type(self).__name__
        (end,), self.features = per_feature(owner, end=end)
        if not end.isfinite().all():
            raise ValueError(f"{owner} expects a finite end; got {end.tolist()}")
        self.register_buffer("end", end)
        self.below = below

    @property
    def domain(self) -> Region:
        words = f"finite values {'below' if self.below else 'above'} {_in_words(self.end)}"
        return Region(words, self._outside, "Take a further end, or leave such rows out")

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        outside = self._outside(x)
        log_distance = self._distance(x).masked_fill(outside, 1.0).log()
        log_det = -log_distance.sum(-1)
        return -log_distance if self.below else log_distance, log_det.masked_fill(outside.any(-1), -math.inf)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_distance = -z if self.below else z
        largest = torch.full_like(self.end, torch.finfo(z.dtype).max)
        if self.below:
            x = torch.clamp(self.end - log_distance.exp(), -largest, self.end.nextafter(-largest))
        else:
            x = torch.clamp(self.end + log_distance.exp(), self.end.nextafter(largest), largest)
        return x, log_distance.sum(-1)

    def _distance(self, x: Tensor) -> Tensor:
        return self.end - x if self.below else x - self.end

    def _outside(self, x: Tensor) -> Tensor:
        return (self._distance(x) <= 0) | x.isinf()


def on_half_line(low: float | Tensor = 0.0) -> HalfLineLog:
    """The map of numbers above an end to the reals, z = log(x − low); of positive numbers by default.

    >>> on_half_line().inverse(torch.tensor([0.0]))[0].item()
    1.0
    """
    return HalfLineLog(low)


def on_box(low: float | Tensor, high: float | Tensor) -> Transform:
    """The map of a box to the reals, with ends of each feature that may be infinite.

    A feature between two ends takes the logit of :class:`BoxLogit`, one with a single end the logarithm of
    :class:`HalfLineLog`, and one without passes: a table of shares, sizes and differences is one call.

    Args:
        low, high: numbers, or tensors ``[D]``.

    Raises:
        TypeError, ValueError: a shape is neither of these, no end is finite, or there is no number between two ends.

    Cost: O(D) per point.

    >>> inf = float("inf")
    >>> to_reals = on_box(torch.tensor([0.0, 1.0, -inf]), torch.tensor([1.0, inf, inf]))
    >>> to_reals(torch.tensor([0.5, 2.0, 7.0]))[0].tolist()
    [0.0, 0.0, 7.0]
    """
    owner = "on_box"
    ends, _ = per_feature(owner, low=low, high=high)
    lows, highs = torch.broadcast_tensors(*ends)
    lower, upper = lows.isfinite(), highs.isfinite()
    if not bool((lower | upper).any()) or not bool((lows < highs).all()):
        raise ValueError(
            f"{owner} expects low below high, and at least one finite end; got {lows.tolist()} and {highs.tolist()}"
        )
    kinds: tuple[tuple[Tensor, Callable[[Tensor, Tensor], Transform]], ...] = (
        (lower & upper, BoxLogit),
        (lower & ~upper, lambda low, high: HalfLineLog(low)),
        (~lower & upper, lambda low, high: HalfLineLog(high, below=True)),
    )
    parts: list[Transform] = []
    for which, made in kinds:
        if bool(which.all()):
            return made(lows, highs)
        if bool(which.any()):
            parts.append(OnFeatures(len(lows), which.nonzero()[:, 0].tolist(), made(lows[which], highs[which])))
    return Chain(*parts)


def _in_words(end: Tensor) -> str:
    """An end, or the ends of several features."""
    return f"{end.item():.6g}" if end.ndim == 0 else f"[{', '.join(f'{value:.6g}' for value in end.tolist())}]"
