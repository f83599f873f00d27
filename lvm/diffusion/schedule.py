"""Schedules: how noise grows along a diffusion."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.nn import functional as F

from density.checks import check_count
from density.rebuildable import Rebuildable


class Schedule(Rebuildable, nn.Module, ABC):
    r"""The noise of the latent z_t = α x + σ ε at times in [0, 1], as γ = log σ²/α², which grows with t.

    Variance is preserved, σ² + α² = 1, so that γ says both: σ² = sigmoid(γ). −γ is the log signal-to-noise ratio.

    >>> import torch
    >>> class Straight(Schedule):
    ...     def forward(self, t):
    ...         return 10 * t - 5
    >>> Straight().slope(torch.tensor([0.2, 0.7])).tolist()
    [10.0, 10.0]
    """

    @abstractmethod
    def forward(self, t: Tensor) -> Tensor:
        """γ at times, of the shape of t."""

    def slope(self, t: Tensor) -> Tensor:
        """dγ/dt at times, of the shape of t."""
        _, pull, *_ = vjp(self, t)
        slope: Tensor = pull(torch.ones_like(t))[0]
        return slope


class LinearSchedule(Schedule):
    r"""Noise whose rate grows linearly (Ho et al. 2020, arXiv:2006.11239; in continuous time Song et al. 2021).

    .. math:: -\log \alpha^2(t) = s + b_0 t + \tfrac12 (b_1 - b_0) t^2

    Args:
        least, most: the rates b₀ and b₁. The defaults are a thousand steps from 1e-4 to 0.02.
        start: s, what there is at t = 0.

    Raises:
        ValueError: not 0 < start, and not 0 ≤ least < most.

    >>> import torch
    >>> schedule = LinearSchedule(least=0.1, most=20.0)
    >>> alpha_squared = (-schedule(torch.tensor([0.0, 1.0]))).sigmoid()
    >>> [round(value, 4) for value in alpha_squared.tolist()]
    [0.9999, 0.0]
    """

    def __init__(self, least: float = 0.1, most: float = 20.0, start: float = 1e-4) -> None:
        super().__init__()
        if not (0 <= least < most < math.inf and 0 < start < math.inf):
            raise ValueError(f"LinearSchedule expects 0 ≤ least < most and start > 0; got {least}, {most} and {start}")
        self.least, self.most, self.start = float(least), float(most), float(start)

    def forward(self, t: Tensor) -> Tensor:
        noise = self.start + self.least * t + 0.5 * (self.most - self.least) * t.square()
        return noise + (-torch.expm1(-noise)).log()  # log(e^noise − 1)


class CosineSchedule(Schedule):
    r"""α falls as a cosine does (Nichol & Dhariwal 2021, arXiv:2102.09672), from one end to another.

    .. math:: \gamma(t) = 2 \log \tan\big(a_0 + (a_1 - a_0)\, t\big)

    Args:
        first, last: γ at t = 0 and t = 1.

    Raises:
        ValueError: the first is not below the last.

    >>> import torch
    >>> CosineSchedule()(torch.tensor([0.0, 0.5, 1.0])).round(decimals=3).abs().tolist()
    [10.0, 0.0, 10.0]
    """

    def __init__(self, first: float = -10.0, last: float = 10.0) -> None:
        super().__init__()
        _check_ends(first, last, type(self).__name__)
        self.first, self.last = float(first), float(last)

    def forward(self, t: Tensor) -> Tensor:
        low, high = (math.atan(math.exp(end / 2)) for end in (self.first, self.last))
        return 2 * (low + (high - low) * t).tan().log()


class LearnedSchedule(Schedule):
    r"""A monotone network from one end to another, both of them learned as well (Kingma et al. 2021, appendix H).

    .. math:: \gamma(t) = \gamma_0 + (\gamma_1 - \gamma_0) \frac{f(t) - f(0)}{f(1) - f(0)}, \qquad
              f(t) = w t + \textstyle\sum_j a_j \operatorname{sigmoid}(b_j t + c_j), \quad w, a, b > 0

    The ELBO of continuous time depends on the ends alone; what is between changes the variance of its estimate, and the
    ELBO of few steps, which are what learning it improves. It starts near the line between the ends.

    Args:
        first, last: γ at t = 0 and t = 1, to start with.
        hidden: number of sigmoids.

    Raises:
        ValueError: the first end is not below the last, or hidden is not a positive int.

    >>> schedule = LearnedSchedule(first=-8.0, last=4.0)
    >>> [round(end, 3) for end in schedule(torch.tensor([0.0, 1.0])).tolist()]
    [-8.0, 4.0]
    """

    def __init__(self, first: float = -10.0, last: float = 5.0, hidden: int = 32) -> None:
        super().__init__()
        _check_ends(first, last, type(self).__name__)
        hidden = check_count(hidden, f"{type(self).__name__}: hidden")
        self.first = nn.Parameter(torch.tensor(float(first)))
        self.log_range = nn.Parameter(torch.tensor(math.log(last - first)))
        self.linear = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.full((hidden,), -math.log(4 * hidden)))
        self.rates = nn.Parameter(torch.full((hidden,), math.log(math.expm1(8.0))))
        self.centres = nn.Parameter(torch.linspace(0, 1, hidden))

    def forward(self, t: Tensor) -> Tensor:
        low, high = self._raw(t.new_zeros(1)), self._raw(t.new_ones(1))
        share = (self._raw(t.reshape(-1)) - low) / (high - low)
        return (self.first + self.log_range.exp() * share).reshape(t.shape)

    def _raw(self, t: Tensor) -> Tensor:
        waves = torch.sigmoid(F.softplus(self.rates) * (t[:, None] - self.centres))
        return F.softplus(self.linear) * t + waves @ F.softplus(self.heights)


def _check_ends(first: float, last: float, owner: str) -> None:
    if not -math.inf < first < last < math.inf:
        raise ValueError(f"{owner} expects γ to grow from a first to a last value; got {first} and {last}")
