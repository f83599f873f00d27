r"""The largest eigenvalues of a covariance between bounds, by products of its rows with a few random vectors.

Block Lanczos with full orthogonalisation (Golub & Underwood 1977; Musco & Musco 2015). With Q the basis that has been
built, H = QᵀSQ and S = XᵀX, the image of its last block is all that Q lacks, (I − QQᵀ)SQ = F R. The eigenvalues θ of H
are no larger than those of S. With C = (I − QQᵀ)S(I − QQᵀ) ≤ μ < τ, Haynsworth's inertia formula says that S has no
more eigenvalues above a t ≥ τ than H + RᵀR/(τ − μ) has, since the Schur complement H − t + RᵀFᵀ(t − C)⁻¹FR is no
larger. With τ = θ_q therefore

.. math:: \theta_j \le \lambda_j(S) \le \lambda_j\big(H + R^\top R / (\theta_q - \mu)\big), \qquad j \le q,

up to rounding. Of μ nothing is known for certain but that it is at most tr C. Random vectors ω, independent of Q, tell
more: with v the first axis of C, ‖Cᵖω‖ ≥ ‖C‖ᵖ |vᵀω| for every p, and |vᵀω| < √(π/2)/10 with a chance below 1/10. So
‖C‖ᵖ ≤ 10 √(2/π) max ‖Cᵖω‖ over 10 of them, but for a chance of 10⁻¹⁰ (Halko, Martinsson & Tropp 2011, lemma 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

EXTRA = 10  # axes beyond those asked for
PROBES, POWERS = 10, 6  # random vectors that tell how much is outside the basis, and products with each at most
CHANCE = 10.0**-PROBES  # that they see too little
FACTOR = 10 * math.sqrt(2 / math.pi)
CLEAR = 0.5  # of the smallest eigenvalue that is asked for: what is outside need not be known to be less


@dataclass(frozen=True, eq=False)
class Bracketed:
    """The largest eigenvalues between bounds.

    Attributes:
        lower: θ, descending, ``[q]``, the variances along the axes.
        upper: ``[q]``; infinite where nothing is known.
        axes: orthonormal, ``[D, q]``.
        chance: that an upper bound does not hold.
    """

    lower: Tensor
    upper: Tensor
    axes: Tensor
    chance: float


def bracketed(
    rows: Tensor,
    total: Tensor,
    count: int,
    enough: Callable[[Tensor, Tensor], bool],
    blocks: int,
    generator: Generator | None = None,
) -> Bracketed:
    """The largest eigenvalues of XᵀX for rows X ``[n, D]``, float64, as closely as it takes.

    Args:
        rows: X, whose smaller side has at least (blocks + 1) (q + 10) numbers.
        total: the trace of XᵀX.
        count: q.
        enough: whether these bounds will do, lower and upper, each ``[q]``.
        blocks: of q + 10 axes, at most.
        generator: of the random vectors, on the device of the rows; None for torch's own.

    O(nDq) for each block.

    >>> x = torch.randn(200, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> x[:, :2] *= 10
    >>> close = lambda low, high: bool((high < (1 + 1e-9) * low).all())
    >>> found = bracketed(x, x.square().sum(), 2, close, 4, torch.manual_seed(0))
    >>> values = torch.linalg.eigvalsh(x.mT @ x).flip(0)[:2]
    >>> bool((found.lower <= values * (1 + 1e-14)).all()), bool((values <= found.upper).all())
    (True, True)
    """
    noise = torch.randn(count + EXTRA, len(rows), generator=generator, dtype=rows.dtype, device=rows.device)
    block, _ = _outside(noise @ rows, None)
    basis, images, outside, chance = block, block[:0], math.inf, 0.0
    for number in range(1, blocks + 1):
        image = _times(rows, block)
        images = torch.cat([images, image])
        inner = images @ basis.mT
        inner = 0.5 * (inner + inner.mT)
        following, remainder = _outside(image, basis)
        values, rotation = torch.linalg.eigh(inner)
        lower = values.flip(0)[:count]
        last = number == blocks
        if last or enough(lower, _upper(inner, remainder, lower, 0.0)):
            clear = CLEAR * lower[-1].item()
            outside = min(outside, (total - values.sum()).item())  # of a larger basis there is no more outside
            if outside > clear:
                outside, chance = min(_largest_outside(rows, basis, clear, generator), outside), chance + CHANCE
            upper = _upper(inner, remainder, lower, outside)
            if last or enough(lower, upper):
                break
        block, basis = following, torch.cat([basis, following])
    return Bracketed(lower, upper, basis.mT @ rotation.flip(1)[:, :count], chance)


def _times(rows: Tensor, vectors: Tensor) -> Tensor:
    """S v for vectors v ``[k, D]``; as rows, since so BLAS is the faster."""
    return (vectors @ rows.mT) @ rows


def _without(vectors: Tensor, basis: Tensor) -> Tensor:
    return vectors - (vectors @ basis.mT) @ basis


def _outside(vectors: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """An orthonormal F ``[k, D]``, and R: what vectors ``[k, D]`` have outside a basis is RᵀF. Twice is enough."""
    remainder = None
    for _ in range(2):
        left = vectors if basis is None else _without(vectors, basis)
        axes, triangle = torch.linalg.qr(left.mT)
        vectors = axes.mT.contiguous()
        remainder = triangle if remainder is None else triangle @ remainder
    assert remainder is not None
    return vectors, remainder


def _upper(inner: Tensor, remainder: Tensor, lower: Tensor, outside: float) -> Tensor:
    """The upper bounds, if no eigenvalue outside the basis is larger than that."""
    gap = lower[-1].item() - outside
    if not gap > torch.finfo(lower.dtype).eps * lower[0].item():
        return torch.full_like(lower, torch.inf)
    raised, size = inner.clone(), len(remainder)
    raised[-size:, -size:] += remainder.mT @ remainder / gap
    return torch.linalg.eigvalsh(raised).flip(0)[: len(lower)]


def _largest_outside(rows: Tensor, basis: Tensor, clear: float, generator: Generator | None) -> float:
    """A bound of the largest eigenvalue outside a basis, but for a chance of 10⁻¹⁰, as soon as it is clear."""
    probes = torch.randn(PROBES, basis.shape[1], generator=generator, dtype=basis.dtype, device=basis.device)
    bound = math.inf
    for power in range(1, POWERS + 1):
        probes = _without(_times(rows, _without(probes, basis)), basis)
        bound = (FACTOR * probes.norm(dim=1).max().item()) ** (1 / power)
        if bound <= clear:
            break
    return bound
