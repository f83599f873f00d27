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
    sizes: Tensor  # [2], width w and height h
    slope: Tensor  # s = h/w
    ends: Tensor  # [2], derivatives at the ends over the slope, α and β
    xi: Tensor  # ξ
    rest: Tensor  # 1 − ξ
    left: Tensor  # P = ξ + α (1 − ξ)
    right: Tensor  # Q = 1 − ξ + β ξ
    below: Tensor  # d = ξ P + (1 − ξ) Q
    above: Tensor  # a = (1 − ξ) P + ξ Q
    fraction: Tensor  # f = (z − z₀)/h = ξ P/d
    rise: Tensor  # dz/dx = s a/d²


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

    The loss changes by γ dz + λ d log(dz/dx), where z(x, φ) has the bin's corners and ends for φ. With the
    abbreviations of :class:`Piece` and m = ξ (1 − ξ),

    .. math::
        \partial_ξ \log z' &= 2 \frac{Q - P}{a} - 2 \frac{(α + β - 2)(1 - 2ξ)}{d} \\
        g_x &= γ z' + λ\, \partial_ξ \log z' / w \\
        g_α &= λ (1-ξ)^2/a - (2 λ + γ h f) m/d + γ h m/d, \qquad g_β = λ ξ^2/a - (2 λ + γ h f) m/d \\
        g_{x_1} &= -g_x ξ - τ/w, \qquad g_{z_1} = γ f + τ/h, \qquad τ = λ - α g_α - β g_β \\
        g_{x_0} &= -g_x - g_{x_1}, \qquad g_{z_0} = γ - g_{z_1}.

    The inverse has x(z, φ) for value and λ is that of its log-derivative, negated: from the gradient γ′ of x come
    g_z = (γ′ + λ ∂_ξ log z'/w)/z', and with γ = −g_z and g_x = −γ′ the same gradients of φ.

    Args:
        piece: what the evaluation found.
        grad_value, grad_log: shaped like the numbers.
        inverse, scale: as for :func:`evaluate_with_gradient`.

    Returns:
        Shaped like the numbers, and ``[3K − 1, *shape]``.

    Cost: O(K) per number; some forty kernels.
    """
    width, height = piece.sizes.unbind(0)
    alpha, beta = piece.ends.unbind(0)
    xi, rest = piece.xi, piece.rest
    inner, log = torch.where(piece.outside, 0.0, grad_value), torch.where(piece.outside, 0.0, grad_log)
    log = -log if inverse else log

    pull = log / piece.above
    lean = rest - xi
    slant = torch.sub(torch.addcmul(alpha * lean, beta, lean), lean, alpha=2)
    bend = torch.addcmul((piece.right - piece.left) * pull, slant, log / piece.below, value=-1)
    if inverse:
        at = torch.addcdiv(inner, bend, width, value=2) / piece.rise
        moved = torch.stack([inner, at]).neg_()
        inner = -at
    else:
        at = torch.addcdiv(inner * piece.rise, bend, width, value=2)
        moved = torch.stack([at, inner])

    lift, mixed = inner * height, rest * xi / piece.below
    sides = torch.stack([rest, xi])
    ends = torch.addcmul(pull * sides * sides, torch.addcmul(log, lift, piece.fraction, value=0.5), mixed, value=-2)
    ends[0].add_(lift * mixed)
    first, second = ends.unbind(0)
    tension = torch.addcmul(torch.addcmul(log, alpha, first, value=-1), beta, second, value=-1)

    # Both rows with one sign: minus the gradients of x₀ and x₁, and those of z₀ and z₁.
    stop = torch.addcmul(tension / piece.sizes, moved, torch.stack([xi, piece.fraction]))
    corners = torch.stack([moved - stop, stop], 1).mul_(scale)
    corners[1].neg_()
    raw = ends / piece.slope * piece.raw.sigmoid()
    found = torch.cat([corners, raw.unsqueeze(0)])

    # A knot is the sum of the shares before it, so a share's gradient is the sum over the knots after it. Up to a
    # constant, which softmax does not feel, that is minus the sum over the knots up to it; so the signs above.
    bins = piece.shares.shape[1]
    knots = found.new_zeros(3, bins + 1, *xi.shape).scatter_add_(1, piece.pair.expand(found.shape), found)
    shares = knots[:2, :bins].cumsum(1).mul_(piece.shares)
    logits = torch.addcmul(shares, piece.shares, shares.sum(1, keepdim=True), value=-1)
    return torch.where(piece.outside, grad_value, at), torch.cat([logits.view(2 * bins, *xi.shape), knots[2, 1:bins]])


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
