"""Monotone rational-quadratic splines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from density.contract import check_count
from flows.monotone import Monotone

SMALLEST = 1e-3  # width and height of a bin, as a share of the interval, and derivative at a knot
UNIT = math.log(math.expm1(1 - SMALLEST))  # softplus(UNIT) + SMALLEST = 1


@dataclass(frozen=True)
class RationalQuadratic(Monotone):
    r"""A spline of K rational-quadratic pieces on [−B, B], the identity outside (Durkan et al. 2019, arXiv:1906.04032,
    §3.1; the pieces are those of Gregory & Delbourgo 1982).

    In a bin of width w, height h and slope s = h/w, with derivatives δ₀ and δ₁ at its ends and ξ = (x − x₀)/w,

    .. math:: z = z_0 + h\,\frac{s ξ^2 + δ_0 ξ(1-ξ)}{s + (δ_0 + δ_1 - 2s) ξ(1-ξ)}.

    The derivative is 1 at ±B, so that it is continuous everywhere. The 3K − 1 parameters of a number are K logits of
    widths, K logits of heights, and one number a that makes the derivative 10⁻³ + softplus(a + log(e^{0.999} − 1)) of
    every inner knot; zeros make the identity. No bin is narrower or lower than 10⁻³ of the interval.

    The knots that a number is compared with are those that it is measured from, so rounding puts no number outside its
    bin. The inverse takes the root of the quadratic in the form that cancels no digits.

    Args:
        bins: K.
        bound: B.

    Raises:
        ValueError: bins is not one of 1 … 500, or bound not positive and finite.

    Cost: O(K) per number, either way.

    >>> spline = RationalQuadratic(bins=4, bound=3.0)
    >>> theta = torch.randn(spline.parameters, 5, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([-9.0, -3.0, 0.5, 3.0, 9.0])
    >>> z, log_derivative = spline.forward(x, theta)
    >>> z[[0, 1, 3, 4]].tolist()
    [-9.0, -3.0, 3.0, 9.0]
    >>> torch.allclose(spline.inverse(z, theta)[0], x)
    True
    """

    bins: int = 8
    bound: float = 5.0
    names = "logits of widths, logits of heights and then derivatives"

    def __post_init__(self) -> None:
        check_count(self.bins, "bins")
        if self.bins * SMALLEST > 0.5:
            raise ValueError(f"RationalQuadratic takes at most {0.5 / SMALLEST:.0f} bins; got {self.bins}")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"RationalQuadratic expects a positive finite bound; got {self.bound}")

    @property
    def parameters(self) -> int:  # type: ignore[override]
        return 3 * self.bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.bound, self.bound)
        (x0, z0), (width, height), slope, ends = self._bin(inside, theta, 0)
        xi = (inside - x0) / width
        fraction, log_derivative = _rise(xi, slope, ends)
        z = torch.addcmul(z0, height, fraction)
        outside = inside != x
        return x.where(outside, z), log_derivative.masked_fill(outside, 0.0)

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        inside = z.clamp(-self.bound, self.bound)
        (x0, z0), (width, height), slope, ends = self._bin(inside, theta, 1)
        eta = (inside - z0) / height
        # With the ends' derivatives α, β over the slope: a ξ² + b ξ = η, of whose root there are two forms. Each
        # cancels digits where the other one does not; a > 1 wherever b < 0.
        bent = eta * (ends.sum(0) - 2)
        a = 1 - ends[0] + bent
        b = ends[0] - bent
        root = torch.addcmul(b.square(), a, eta, value=4).clamp_min(torch.finfo(z.dtype).tiny).sqrt()
        negative = b < 0
        xi = torch.where(negative, root - b, 2 * eta) / torch.where(negative, 2 * a, b + root)
        x = torch.addcmul(x0, width, xi)
        outside = inside != z
        return z.where(outside, x), (-_rise(xi, slope, ends)[1]).masked_fill(outside, 0.0)

    def _bin(self, at: Tensor, theta: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the bin that each number is in: (x₀, z₀), (width, height), slope, and (δ₀, δ₁) over the slope.

        ``axis`` 0 looks the numbers up among the knots of x, 1 among those of z.
        """
        bins, bound = self.bins, self.bound
        logits, raw = theta.split([2 * bins, bins - 1])
        shares = logits.unflatten(0, (2, bins)).softmax(1).cumsum(1)[:, :-1]
        least = torch.arange(1, bins, dtype=theta.dtype, device=theta.device) * (2 * bound * SMALLEST) - bound
        inner = torch.add(least.reshape(-1, *[1] * at.ndim), shares, alpha=2 * bound * (1 - bins * SMALLEST))
        index = (at >= inner[axis]).sum(0)
        last = torch.cat([theta.new_full((2, 1, *at.shape), bound), theta.new_zeros(1, 1, *at.shape)])
        knots = torch.cat([-last, torch.cat([inner, raw[None]]), last], 1)
        chosen = knots.gather(1, torch.stack([index, index + 1]).expand(3, 2, *at.shape))
        corners, chosen_raw = chosen.split([2, 1])
        start, stop = corners.unbind(1)
        sizes = stop - start
        slope = sizes[1] / sizes[0]
        return start, sizes, slope, (F.softplus(chosen_raw[0] + UNIT) + SMALLEST) / slope


def _rise(xi: Tensor, slope: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """(z − z₀)/h at ξ and log dz/dx; every sum but the denominator's is one of positive terms."""
    alpha, beta = ends.unbind(0)
    rest = 1 - xi
    mixed, square = xi * rest, xi.square()
    below = 1 + (ends.sum(0) - 2) * mixed
    above = torch.addcmul(torch.addcmul(2 * mixed, beta, square), alpha, rest.square())
    return torch.addcmul(square, alpha, mixed) / below, torch.log(slope * above / below.square())
