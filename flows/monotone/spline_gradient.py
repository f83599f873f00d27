"""The gradient of a rational-quadratic spline in closed form, by half of the kernels that the automatic one takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Piece(NamedTuple):
    """The bin that each number is in, and what was computed there; shapes beside that of the number in brackets."""

    outside: Tensor
    shares: Tensor  # [2, K], softmax of the logits of widths and of heights
    pair: Tensor  # [2], which knots are the bin's ends
    raw: Tensor  # [2], whose softplus makes the derivatives at the ends
    sizes: Tensor  # [2], width w and height h
    slope: Tensor  # s = h/w
    ends: Tensor  # [2], derivatives at the ends over the slope, α and β
    fraction: Tensor  # f = (z − z₀)/h = (ξ² + α m)/d
    rise: Tensor  # dz/dx = s a/d²
    excess: Tensor  # α + β − 2
    sides: Tensor  # [2], 1 − ξ and ξ
    squares: Tensor  # [2], of those
    mixed: Tensor  # m = ξ (1 − ξ)
    below: Tensor  # d = 1 + (α + β − 2) m
    above: Tensor  # a = 2m + β ξ² + α (1 − ξ)²


Evaluate = Callable[[Tensor, Tensor, bool, bool], tuple[Tensor, Tensor, Piece | None]]


def evaluate_with_gradient(
    evaluate: Evaluate, x: Tensor, theta: Tensor, inverse: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Value and log-derivative of a spline, with the gradient of :func:`pull_back` wherever that one can serve.

    A graph is then one node. Second derivatives, those that ``torch.func`` takes, those of forward mode and compiled
    ones are taken through the operations of ``evaluate``.

    Args:
        evaluate: of x, θ, ``inverse`` and whether to keep the :class:`Piece`: value, log-derivative, and it or None.
        x: the numbers, in either direction.
        theta: ``[3K − 1, *x.shape]``.
        inverse: the direction.
        scale: how far a knot moves per unit of cumulated share.

    Cost: that of ``evaluate``.
    """
    if _is_plain_reverse_mode(x, theta):
        value, log_derivative = _Spline.apply(x, theta, evaluate, inverse, scale)
        return value, log_derivative
    return evaluate(x, theta, inverse, False)[:2]


def pull_back(piece: Piece, grad_value: Tensor, grad_log: Tensor, inverse: bool, scale: float) -> tuple[Tensor, Tensor]:
    r"""Gradients with respect to the number and to its parameters, from those of value and log-derivative.

    The loss changes by γ dz + λ d log(dz/dx), where z(x, φ) has the bin's corners and ends for φ. With the
    abbreviations of :class:`Piece`,

    .. math::
        \partial_ξ \log z' &= 2 \frac{1 - 2ξ + βξ - α(1-ξ)}{a} - 2 \frac{(α + β - 2)(1 - 2ξ)}{d} \\
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
    rest, xi = piece.sides.unbind(0)
    inner, log = grad_value.masked_fill(piece.outside, 0.0), grad_log.masked_fill(piece.outside, 0.0)
    log = -log if inverse else log

    lean, pull = rest - xi, log / piece.above
    bend = torch.addcmul(torch.addcmul(lean, beta, xi), alpha, rest, value=-1) * pull
    bend = torch.addcmul(bend, piece.excess * lean, log / piece.below, value=-1)
    if inverse:
        at = torch.addcdiv(inner, bend, width, value=2) / piece.rise
        moved = torch.stack([inner, at]).neg_()
        inner = -at
    else:
        at = torch.addcdiv(inner * piece.rise, bend, width, value=2)
        moved = torch.stack([at, inner])

    lift, mixed = inner * height, piece.mixed / piece.below
    ends = torch.addcmul(pull * piece.squares, torch.add(lift * piece.fraction, log, alpha=2), mixed, value=-1)
    first, second = ends.unbind(0)
    first.addcmul_(lift, mixed)
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
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        theta: Tensor,
        evaluate: Evaluate,
        inverse: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        value, log_derivative, piece = evaluate(x, theta, inverse, True)
        assert piece is not None
        ctx.save_for_backward(x, theta, *piece)
        ctx.settings = evaluate, inverse, scale
        return value, log_derivative

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_value: Tensor,
        grad_log: Tensor,
    ) -> tuple[Tensor | None, ...]:
        x, theta, *piece = ctx.saved_tensors
        evaluate, inverse, scale = ctx.settings
        if not torch.is_grad_enabled():
            return *pull_back(Piece(*piece), grad_value, grad_log, inverse, scale), None, None, None
        # The gradient is itself to be differentiated, and the piece has no graph. Views, since θ may depend on x.
        needed = ctx.needs_input_grad[:2]
        inputs = x.view_as(x), theta.view_as(theta)
        outputs = evaluate(*inputs, inverse, False)[:2]
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(outputs, wanted, (grad_value, grad_log), create_graph=True))
        return *(next(found) if need else None for need in needed), None, None, None


def _is_plain_reverse_mode(x: Tensor, theta: Tensor) -> bool:
    """Whether a graph is being built, and by nothing but reverse mode in eager mode."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and torch.is_grad_enabled()
        and (x.requires_grad or theta.requires_grad)
        and not torch._C._are_functorch_transforms_active()  # what Function.apply asks, to refuse what has no rules
        and all(forward_ad.unpack_dual(tensor).tangent is None for tensor in (x, theta))
    )
