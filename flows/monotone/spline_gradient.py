"""The gradient of a rational-quadratic spline in closed form, by half of the kernels that the automatic one takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp


class Piece(NamedTuple):
    """The bin that each number is in, and what was computed there; shapes beside that of the number in brackets."""

    outside: Tensor
    shares: Tensor  # [2, K], softmax of the logits of widths and of heights
    pair: Tensor  # [2], which knots are the bin's ends
    raw: Tensor  # [2], whose softplus makes the derivatives at the ends
    sizes: Tensor  # [3], width w and height h
    slopes: Tensor  # [2, 2], s = h/w and the derivative δ₀ at the left end; δ₁ and s
    left: Tensor  # l = x − x₀
    right: Tensor  # r = x₁ − x
    ends: Tensor  # [2], P = s l + δ₀ r and Q = δ₁ l + s r
    part: Tensor  # l P
    below: Tensor  # d = l P + r Q
    above: Tensor  # a = l Q + r P
    scale: Tensor  # t = h/d
    rise: Tensor  # dz/dx = a t²


Evaluate = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor, Piece]]
Settings = tuple[Evaluate, bool, float]  # with the direction and the scale of evaluate_with_gradient


def evaluate_with_gradient(
    evaluate: Evaluate, x: Tensor, theta: Tensor, inverse: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Value and log-derivative of a spline, with the gradient of :func:`pull_back` wherever a graph is built.

    The graph is then one node, whose gradient is itself differentiable, and which ``torch.func`` and forward mode know
    rules for. Where tensors need no gradient, and in compiled code, the operations of ``evaluate`` stand for
    themselves.

    Args:
        evaluate: of x, θ and ``inverse``: value, log-derivative and :class:`Piece`.
        x: the numbers, in either direction.
        theta: ``[3K − 1, *x.shape]``.
        inverse: the direction.
        scale: how far a knot moves per unit of cumulated share.

    Cost: that of ``evaluate``.
    """
    needed = torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad)
    if not needed or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return evaluate(x, theta, inverse)[:2]
    outputs: tuple[Tensor, Tensor] = _Spline.apply(x, theta, (evaluate, inverse, scale), [])
    return outputs


def pull_back(piece: Piece, grad_value: Tensor, grad_log: Tensor, inverse: bool, scale: float) -> tuple[Tensor, Tensor]:
    r"""Gradients with respect to the number and to its parameters, from those of value and log-derivative.

    With l = x − x₀ and r = x₁ − x a piece is z = z₀ + t l P, where (P, Q) is linear in (l, r), d and a are bilinear in
    both, t = h/d, and dz/dx = a t² (:class:`Piece` has them all). The loss changes by γ dz + λ d log(dz/dx), hence by
    A₁ d(l P) + B d(l Q + r P) + A₂ d(r Q) with

    .. math::
        B = λ/a, \qquad A_2 = -τ/d, \qquad A_1 = γ t + A_2, \qquad τ = 2 λ + γ t\, l P,

    and from there on by

    .. math::
        g_P &= A_1 l + B r, \qquad g_Q = B l + A_2 r, \qquad g_s = g_P l + g_Q r, \qquad
            g_{δ_0} = g_P r, \qquad g_{δ_1} = g_Q l \\
        g_l &= A_1 P + B Q + s g_P + δ_1 g_Q, \qquad g_r = B P + A_2 Q + δ_0 g_P + s g_Q \\
        g_h &= τ/h + g_s/w, \qquad g_w = -s g_s/w \\
        g_x &= g_l - g_r, \qquad g_{x_0} = -(g_l + g_w), \qquad g_{x_1} = g_r + g_w, \qquad
            g_{z_0} = γ - g_h, \qquad g_{z_1} = g_h.

    The inverse has x(z, φ) for value and λ is that of its log-derivative, negated: from the gradient γ′ of x comes
    g_z = (γ′ + λ ∂ log z'/∂x)/z', and with γ = −g_z the same gradients of φ, where

    .. math:: \partial_x \log z' = 2 \frac{Q - P}{a} - 2 \frac{(δ_0 + δ_1 - 2 s)(r - l)}{d}.

    Args:
        piece: what the evaluation found.
        grad_value, grad_log: shaped like the numbers.
        inverse, scale: as for :func:`evaluate_with_gradient`.

    Returns:
        Shaped like the numbers, and ``[3K − 1, *shape]``.

    Cost: O(K) per number; some forty kernels.
    """
    outside, left, right, scaled = piece.outside, piece.left, piece.right, piece.scale
    (first, last), (width, height, _), (near, far) = piece.ends.unbind(0), piece.sizes.unbind(0), piece.slopes.unbind(0)
    slope = near[0]
    inner, log = grad_value.masked_fill(outside, 0.0), grad_log.masked_fill(outside, 0.0)
    log = -log if inverse else log

    across = log / piece.above
    if inverse:
        curved = torch.sub(near[1] + far[0], slope, alpha=2) * (right - left)
        bend = torch.addcmul((last - first) * across, curved, log / piece.below, value=-1)
        at = torch.add(inner, bend, alpha=2) / piece.rise
        inner = -at

    pull = inner * scaled
    half = torch.addcmul(log, pull, piece.part, value=0.5)
    near_part = torch.sub(pull, half / piece.below, alpha=2)
    upper, lower = torch.stack([near_part, across, across, near_part - pull]).view(2, 2, *left.shape).unbind(0)
    ends = torch.addcmul(upper * left, lower, right)
    of_first, of_last = ends.unbind(0)
    sides = torch.addcmul(upper * first, lower, last)
    before, after = torch.addcmul(torch.addcmul(sides, near, of_first), far, of_last).unbind(0)
    at = at if inverse else before - after
    along_slope, of_far = (ends * left).unbind(0)
    of_near, opposite = (ends * right).unbind(0)
    steep = (along_slope + opposite) / width
    tall = torch.addcdiv(steep, half, height, value=2)
    flat = steep * slope
    found = torch.stack([before - flat, flat - after, tall - inner, -tall, of_near, of_far]).view(3, 2, *left.shape)
    found[:2].mul_(scale)
    found[2].mul_(piece.raw.sigmoid())

    # A knot is the sum of the shares before it, so a share's gradient is the sum over the knots after it. Up to a
    # constant, which softmax does not feel, that is minus the sum over the knots up to it; so the signs above.
    bins = piece.shares.shape[1]
    knots = found.new_zeros(3, bins + 1, *left.shape).scatter_add_(1, piece.pair.expand(found.shape), found)
    shares = knots[:2, :bins].cumsum(1).mul_(piece.shares)
    logits = torch.addcmul(shares, piece.shares, shares.sum(1, keepdim=True), value=-1)
    return torch.where(outside, grad_value, at), torch.cat([logits.view(2 * bins, *left.shape), knots[2, 1:bins]])


class _Spline(torch.autograd.Function):
    """Value and log-derivative of a spline, with rules for gradients, directions and batches.

    The piece reaches the context through a list among the arguments, and not as outputs, which would cost as much as
    several kernels. A transform of ``torch.func`` in between does not see it; its gradient finds the piece anew.
    """

    @staticmethod
    def forward(x: Tensor, theta: Tensor, settings: Settings, found: list[Piece]) -> tuple[Tensor, Tensor]:
        evaluate, inverse, _ = settings
        value, log_derivative, piece = evaluate(x, theta, inverse)
        found.append(piece)
        return value, log_derivative

    @staticmethod
    def setup_context(
        ctx: Any,  # noqa: ANN401
        inputs: tuple[Tensor, Tensor, Settings, list[Piece]],
        output: tuple[Tensor, Tensor],
    ) -> None:
        x, theta, ctx.settings, found = inputs
        ctx.save_for_backward(x, theta, *(found.pop() if found else ()))
        ctx.save_for_forward(x, theta)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_value: Tensor,
        grad_log: Tensor,
    ) -> tuple[Tensor | None, ...]:
        x, theta, *kept = ctx.saved_tensors
        evaluate, inverse, scale = ctx.settings
        # What was kept has no graph, which a gradient that is itself to be differentiated needs.
        known = kept and not torch.is_grad_enabled()
        piece = Piece(*kept) if known else evaluate(x, theta, inverse)[2]
        return *pull_back(piece, grad_value, grad_log, inverse, scale), None, None

    @staticmethod
    def jvp(
        ctx: Any,  # noqa: ANN401
        along_x: Tensor,
        along_theta: Tensor,
        *_: None,
    ) -> tuple[Tensor, Tensor]:
        x, theta = ctx.saved_tensors
        evaluate, inverse, scale = ctx.settings
        piece = evaluate(x, theta, inverse)[2]
        # The gradient is linear in those that it comes from: its transpose is the derivative along a direction.
        zero = torch.zeros_like(x)
        transpose = vjp(partial(pull_back, piece, inverse=inverse, scale=scale), zero, zero)[1]
        along: tuple[Tensor, Tensor] = transpose((along_x, along_theta))
        return along

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        x: Tensor,
        theta: Tensor,
        settings: Settings,
        found: list[Piece],
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """The batch becomes the first dimension of the numbers."""
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        theta = theta.unsqueeze(1).expand(-1, *x.shape) if in_dims[1] is None else theta.movedim(in_dims[1], 1)
        return _Spline.apply(x, theta, settings, found), (0, 0)


# At every call torch looks up forward's signature and binds the arguments to it, as slow as several kernels.
_Spline.forward.__signature__ = inspect.signature(lambda *inputs: None)  # type: ignore[attr-defined]
