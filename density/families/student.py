"""Student-t distributions."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count
from density.contract import Density

SHIFTS = 10  # steps by which the argument of the series is raised: its first term left out is then below 4e-14
SERIES = (-1 / 4, 1 / 24, -1 / 20, 17 / 112, -31 / 36)


class StudentT(Density):
    r"""Independent Student-t distributions of location 0 and scale 1, with degrees of freedom ν learned per feature.

    .. math:: \log p(x) = \sum_j \log\frac{\Gamma((ν_j+1)/2)}{\Gamma(ν_j/2)} - \tfrac12 \log(π ν_j)
              - \frac{ν_j+1}{2} \log\Big(1 + \frac{x_j^2}{ν_j}\Big)

    A base of flows whose log-density falls like (ν + 1) log|x| far out, where that of a normal falls like
    x²/2. For ν → ∞ it is :class:`~density.families.gaussian.StandardNormal`.

    Draws are pathwise, also in ν: T = √(ν(U^{−2/ν} − 1)) cos 2πV with uniform U and V (Bailey 1994, Math.
    Comp. 62, 779).

    Args:
        features: width D.
        degrees: ν at the start, of every feature.

    Raises:
        ValueError: features is not a positive int, or degrees not positive and finite.

    Cost: O(D) per point.

    >>> StudentT(1, degrees=1.0).log_prob(torch.zeros(1, 1)).item()  # Cauchy, −log π
    -1.1447
    """

    factorises = True

    def __init__(self, features: int, degrees: float = 20.0) -> None:
        super().__init__()
        owner = type(self).__name__
        self.features = features = check_count(features, f"{owner}: features")
        if not (math.isfinite(degrees) and degrees > 0):
            raise ValueError(f"{owner} expects positive finite degrees of freedom; got {degrees}")
        self.log_degrees = nn.Parameter(torch.full((features,), math.log(degrees)))

    @property
    def degrees(self) -> Tensor:
        """ν, shape ``[D]``."""
        return self.log_degrees.exp()

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._log_prob_by_feature(x, context).sum(-1)

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        return student_log_prob(x, self.log_degrees)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return student_noise(n, self.log_degrees, generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return torch.zeros_like(self.log_degrees).masked_fill(self.log_degrees <= 0, torch.nan)


def student_log_prob(t: Tensor, log_degrees: Tensor) -> Tensor:
    """log p(t) of location 0 and scale 1, elementwise: t and log ν of shapes that broadcast."""
    degrees = log_degrees.exp()
    return _log_constant(log_degrees, degrees) - 0.5 * (degrees + 1) * torch.log1p(t.square() / degrees)


def student_noise(n: int, log_degrees: Tensor, generator: Generator | None) -> Tensor:
    """n draws ``[n, *batch]`` of location 0 and scale 1 at log ν ``[*batch]``, pathwise also in it."""
    u, v = torch.rand(2, n, *log_degrees.shape, generator=generator, dtype=log_degrees.dtype, device=log_degrees.device)
    exponential = -torch.log1p(-u).clamp_max(-torch.finfo(u.dtype).tiny)  # of 0 the root has no derivative
    degrees = log_degrees.exp()
    grown = exponential / degrees
    radius = (-degrees * torch.expm1(-2 * grown)).sqrt() * torch.exp(grown)  # of the square, exp may overflow
    return radius * torch.cos(2 * math.pi * v)


def _log_constant(log_degrees: Tensor, degrees: Tensor) -> Tensor:
    """log Γ((ν+1)/2)/Γ(ν/2) − ½ log πν, where a difference of lgamma would leave no digit for large ν.

    Its series at ν + 20 (of Γ(z+½)/(√z Γ(z)) in 1/2z, whose coefficients are those of Bernoulli numbers), and
    Γ(z + 1) = z Γ(z) back to ν.
    """
    steps = degrees.unsqueeze(-1) + torch.arange(0, 2 * SHIFTS, 2, dtype=degrees.dtype, device=degrees.device)
    far = degrees + 2 * SHIFTS
    inverse = far.reciprocal()
    square = inverse.square()
    series = square * SERIES[-1]
    for coefficient in SERIES[-2:0:-1]:  # by Horner: numbers of Python go with a kernel, a tensor of them would wait
        series = (series + coefficient) * square
    series = (series + SERIES[0]) * inverse
    return series + 0.5 * (far.log() - log_degrees - math.log(2 * math.pi)) - steps.reciprocal().log1p().sum(-1)
