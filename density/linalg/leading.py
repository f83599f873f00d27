"""The largest eigenvalues of a covariance and their axes, without the others where that is faster."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

SMALL = 384  # below this size a filter is no faster
FEW = {True: 96, False: 1024}  # below it all eigenvalues are as fast as some; in one thread, and in several
EXTRA = 10  # axes beyond those asked for, which speed convergence
TOLERANCE = 1e-12  # of a residual ‖Su − θu‖, in units of the largest eigenvalue: what a full decomposition leaves, too
ROUNDS = 8
PRODUCTS = {True: 14, False: 60}  # that take no longer than a decomposition; in one thread of a CPU, and elsewhere
RANGE = 1e6  # what one filter may magnify the first axis by, beside the last


def leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At least the largest eigenvalues ``[k]``, descending, with axes ``[D, k]``, of a positive semidefinite matrix.

    Where they stand out, subspace iteration, accelerated by Chebyshev polynomials that are small on the eigenvalues
    that are not wanted (Zhou, Saad, Tiago & Chelikowsky 2006): O(D²q) a product. It ends when every residual
    ‖Su − θu‖ is as small as a full decomposition would leave it. Where the eigenvalues fall so slowly that it would not
    pay, the matrix is made tridiagonal, O(D³), and on a CPU only the eigenvalues that are wanted are found there, by
    relatively robust representations (Dhillon & Parlett 2004; LAPACK's syevr, through scipy); elsewhere, where q is a
    large part of D, and where D is so small that scipy's threads, which spin on for a while, cost torch's more than
    this saves, all of them.

    Args:
        matrix: S, ``[D, D]``, float64.
        count: q, how many are wanted.
    """
    size = matrix.shape[0]
    if 5 * (count + EXTRA) <= size:
        found = _filtered(matrix, count) if size >= SMALL else None
        if found is None and matrix.device.type == "cpu" and size >= FEW[torch.get_num_threads() == 1]:
            found = _some(matrix, count)
        if found is not None:
            return found
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _some(matrix: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The leading eigenpairs by LAPACK's syevr; None where it fails."""
    from scipy.linalg import LinAlgError, eigh  # only here: importing it takes longer than many a fit

    size = matrix.shape[0]
    try:
        values, vectors = eigh(matrix.numpy(), subset_by_index=(size - count, size - 1), check_finite=False)
    except LinAlgError:
        return None
    return torch.from_numpy(values).flip(0).clamp_min(0), torch.from_numpy(vectors).flip(1)


def _filtered(matrix: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The leading eigenpairs by filtered subspace iteration; None where it would take too long."""
    start = torch.randn(matrix.shape[0], count + EXTRA, generator=Generator().manual_seed(0), dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ (matrix @ start.to(matrix.device))).Q
    products = PRODUCTS[matrix.device.type == "cpu" and torch.get_num_threads() == 1]
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(basis)
        image = matrix @ basis
        inner = basis.mT @ image
        values, rotation = torch.linalg.eigh(0.5 * (inner + inner.mT))
        values, rotation = values.flip(0), rotation.flip(1)
        basis, image = basis @ rotation, image @ rotation
        residual = (image - basis * values)[:, :count].norm(dim=0).max().item()
        first, last, cut = values[0].item(), values[count - 1].item(), values[-1].item()
        if residual <= TOLERANCE * first:
            return values[:count], basis[:, :count]
        if not 0 < cut < last:
            return None
        rate = math.acosh(2 * last / cut - 1)  # a filter of degree m gains a factor of about exp(m · rate)
        degree = math.ceil(math.log(residual / (TOLERANCE * first)) / rate) + 1
        products -= degree
        if products < 0:
            return None
        spread = math.acosh(2 * first / cut - 1) - rate
        degree = max(1, min(degree, int(math.log(RANGE) / max(spread, 1e-3))))
        basis = _chebyshev(matrix, basis, image, degree, cut, first)
    return None


def _chebyshev(matrix: Tensor, basis: Tensor, image: Tensor, degree: int, cut: float, first: float) -> Tensor:
    """T_m(2S/cut − 1) applied to a basis, in the scaling that keeps the first axis of order 1."""
    scale = cut / (2 * first - cut)
    sigma = scale
    before, now = basis, (image * (2 / cut) - basis) * sigma
    for _ in range(degree - 1):
        following = 1 / (2 / scale - sigma)
        after = ((matrix @ now) * (2 / cut) - now) * (2 * following) - before * (sigma * following)
        before, now, sigma = now, after, following
    return now
