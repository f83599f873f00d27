"""Monotone rational-quadratic splines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from density.checks import settle_counts
from flows.monotone.monotone import Monotone
from flows.monotone.spline_gradient import Piece, evaluate_with_gradient

STEPS = 1000
SMALLEST = 1 / STEPS  # width and height of a bin, as a share of the interval, and derivative at a knot
UNIT = math.log(math.expm1(1 - SMALLEST))  # softplus(UNIT) + SMALLEST = 1


@dataclass(frozen=True)
class RationalQuadratic(Monotone):
    r"""A spline of K rational-quadratic pieces on [−B, B], and the identity outside.

    Durkan et al. 2019, arXiv:1906.04032, §3.1; the pieces are those of Gregory & Delbourgo 1982.

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
        owner = type(self).__name__
        settle_counts(self, "bins", prefix=f"{owner}: ")
        if self.bins * SMALLEST > 0.5:
            raise ValueError(f"{owner} takes at most {0.5 / SMALLEST:.0f} bins; got {self.bins}")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"{owner} expects a positive finite bound; got {self.bound}")

    @property
    def parameters(self) -> int:  # type: ignore[override]
        return 3 * self.bins - 1

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return evaluate_with_gradient(self._evaluate, x, theta, False, self._span)

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return evaluate_with_gradient(self._evaluate, z, theta, True, self._span)

    def through(self, x: Tensor, z: Tensor) -> Tensor:
        """The parameters ``[P, *batch]`` of splines through inner knots (x, z), each increasing, ``[K − 1, *batch]``.

        Knots that lie outside the bound or too close for a bin are moved to where a bin fits. Derivatives at the knots
        are harmonic means of the slopes beside them (Fritsch & Butland 1984), so that no piece swings.
        """
        least = 2 * self.bound * SMALLEST
        ends = x.new_full((1, *x.shape[1:]), self.bound)
        sizes = [torch.cat([-ends, knots, ends]).diff(dim=0).clamp_min(2 * least) for knots in (x, z)]
        widths, heights = (2 * self.bound * size / size.sum(0) for size in sizes)
        slopes = heights / widths
        derivatives = 2 / (1 / slopes[1:] + 1 / slopes[:-1])
        raw = torch.log(torch.expm1((derivatives - SMALLEST).clamp_min(SMALLEST))) - UNIT
        logits = [((size - least).clamp_min(SMALLEST * least) / self._span).log() for size in (widths, heights)]
        return torch.cat([*logits, raw])

    @property
    def _span(self) -> float:
        """The length that the bins share: the interval without their least sizes."""
        return 2 * self.bound * (1 - self.bins * SMALLEST)

    def _evaluate(self, x: Tensor, theta: Tensor, inverse: bool) -> tuple[Tensor, Tensor, Piece]:
        # Contiguous, so that all that follows is; features of points as rows come as strides.
        inside = x.clamp(-self.bound, self.bound).contiguous()
        outside = inside != x
        shares, pair, chosen = self._bin(inside, theta, int(inverse))
        start, stop = chosen.unbind(1)
        x0, z0, _ = start.unbind(0)
        sizes = stop - start
        width, height, _ = sizes.unbind(0)
        shifted = chosen[2] + UNIT
        slope = height / width
        around = slope.unsqueeze(0)
        slopes = torch.cat([around, F.softplus(shifted) + SMALLEST, around]).view(2, 2, *x.shape)
        if inverse:
            left, right = _sides(inside - z0, stop[1] - inside, slopes, width)
        else:
            left, right = inside - x0, stop[0] - inside
        # Sums of positive terms, all of them.
        to_left, to_right = slopes.unbind(1)
        ends = torch.addcmul(to_left * left, to_right, right)
        by_left = ends * left
        (first, last), (part, across) = ends.unbind(0), by_left.unbind(0)
        below, above = torch.addcmul(part, right, last), torch.addcmul(across, right, first)
        scale = height / below
        rise = above * scale * scale
        log_derivative = -rise.log() if inverse else rise.log()
        value = x0 + left if inverse else torch.addcmul(z0, scale, part)
        value, log_derivative = x.where(outside, value), log_derivative.masked_fill(outside, 0.0)
        bin_of_each = (outside, shares, pair, shifted, sizes, slopes)
        return value, log_derivative, Piece(*bin_of_each, left, right, ends, part, below, above, scale, rise)

    def _bin(self, at: Tensor, theta: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """The bins' shares, which knots are the ends of the bin that each number is in, and what is there.

        That is x, z and what softplus makes the derivative of, ``[3, 2, *at.shape]``. ``axis`` 0 looks the numbers up
        among the knots of x, 1 among those of z.
        """
        bins = self.bins
        logits, raw = torch.split_with_sizes(theta, [2 * bins, bins - 1])
        shares = logits.view(2, bins, *at.shape).softmax(1)
        # The interval in steps of the smallest bin: first and last are its ends, exactly; the middle is rounded.
        grid = torch.linspace(-self.bound, self.bound, STEPS + 1, dtype=theta.dtype, device=theta.device)
        grid = grid.view(-1, *[1] * at.ndim)
        inner = torch.add(grid[1:bins], shares.cumsum(1)[:, :-1], alpha=self._span)
        widths, heights = inner.unbind(0)
        index = (at >= (heights if axis else widths)).sum(0)
        ends = grid[::STEPS].expand(2, *at.shape).contiguous()  # rows that cat copies as they are
        low, high = ends.unsqueeze(1).unbind(0)
        flat = low + high
        knots = torch.cat([low, widths, high, low, heights, high, flat, raw, flat]).view(3, bins + 1, *at.shape)
        pair = torch.stack([index, index + 1])
        return shares, pair, knots.gather(1, pair.expand(3, *pair.shape))


def _sides(low: Tensor, high: Tensor, slopes: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """The parts x − x₀ and x₁ − x of a bin where z − z₀ and z₁ − z are ``low`` and ``high``.

    Their ratio solves s q ρ² + G ρ = s p with p = z − z₀, q = z₁ − z and G = δ₀ q − δ₁ p. Of the root there are two
    forms, of which the sign of G tells the one that is a sum of positive terms; so is what is under the root.
    """
    slope, first, last, _ = slopes.flatten(0, 1).unbind(0)
    lean = torch.addcmul(first * high, last, low, value=-1)
    low, high = slope * low, slope * high
    root = torch.addcmul(low * high, lean, lean, value=0.25).sqrt()
    back = lean < 0
    left = torch.where(back, torch.sub(root, lean, alpha=0.5), low)
    right = torch.where(back, high, torch.add(root, lean, alpha=0.5))
    scale = width / (left + right)
    return left * scale, right * scale
