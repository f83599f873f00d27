"""Consecutive affine layers as one affine map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from density.checks import find_reference
from flows.layers.activation_norm import ActNorm, Diagonal
from flows.layers.elementwise import Affine
from flows.layers.linear import Linear
from flows.layers.lu import LULinear
from flows.layers.permutation import Permutation
from flows.layers.qr import QRLinear
from flows.layers.whitening import Whitening
from flows.transform import Transform

LINEAR = (LULinear, QRLinear)
DIAGONAL = (ActNorm, Affine)
AFFINE = (*LINEAR, *DIAGONAL, Permutation, Whitening)


class Fold(NamedTuple):
    r"""A run of affine layers as one map z = ((x − centre)/unit) Aᵀ + offset, or its inverse.

    The first layer's centre and unit stay apart: an offset of 10⁸ is subtracted before anything is rounded, as the
    layer itself does it. Where the run does not begin with such a layer they are None. The matrix of a run of
    activation norms is a diagonal ``[D]``.
    """

    centre: Tensor | None
    unit: Tensor | None
    matrix: Tensor
    offset: Tensor | None
    log_abs_det: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z of points as columns ``[D, n]``, and the log-determinant, one number."""
        if self.centre is not None and self.unit is not None:
            x = (x - self.centre.unsqueeze(1)) / self.unit.unsqueeze(1)
        return self._applied(x), self.log_abs_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self._applied(z)
        if self.centre is not None and self.unit is not None:
            x = torch.addcmul(self.centre.unsqueeze(1), x, self.unit.unsqueeze(1))
        return x, -self.log_abs_det

    def _applied(self, x: Tensor) -> Tensor:
        if self.matrix.ndim == 1:
            diagonal = self.matrix.unsqueeze(1)
            return diagonal * x if self.offset is None else torch.addcmul(self.offset.unsqueeze(1), diagonal, x)
        return self.matrix @ x if self.offset is None else torch.addmm(self.offset.unsqueeze(1), self.matrix, x)


def folded(parts: Sequence[Transform], rows: int, *, inverse: bool) -> list[Transform | Fold]:
    """The parts, with each run of affine layers that holds a matrix folded into one map, and so are activation norms.

    The matrices of all layers of a kind are formed in one batch, the activation norms in another. Nothing is folded for
    an inverse of fewer points than features: solving against the factors is then cheaper than inverting them.

    Cost: O(D³) a layer, no more than forming W.
    """
    layers = [part for part in parts if isinstance(part, Linear) and type(part) in LINEAR]
    fixed = [part for part in parts if isinstance(part, Whitening)]
    norms = list(dict.fromkeys(part for part in parts if type(part) is ActNorm))
    if not (layers or fixed or len(norms) > 1) or (inverse and rows < _width(parts)):
        return list(parts)
    diagonals = dict(zip(norms, ActNorm.diagonals(norms), strict=True)) if len(norms) > 1 else {}
    matrices: dict[Transform, tuple[Tensor, Tensor]] = {
        part: (part.matrix(inverse=inverse), part.log_abs_det()) for part in fixed
    }
    for kind in dict.fromkeys(type(layer) for layer in layers):
        alike = list(dict.fromkeys(layer for layer in layers if type(layer) is kind))
        formed, log_dets = kind.stacked(alike, inverse=inverse)
        matrices.update(zip(alike, zip(formed.unbind(0), log_dets.unbind(0), strict=True), strict=True))
    folds: list[Transform | Fold] = []
    for affine, run in groupby(parts, key=lambda part: type(part) in AFFINE):
        some = list(run)
        holds = any(part in matrices for part in some) or all(part in diagonals for part in some)
        folds += [_fold(some, matrices, diagonals, inverse)] if affine and holds else some
    return folds


def _fold(
    run: list[Transform],
    matrices: dict[Transform, tuple[Tensor, Tensor]],
    diagonals: dict[ActNorm, Diagonal],
    inverse: bool,
) -> Fold:
    """One map of a run, part by part: A ← F A and offset ← F offset + shift for a part z = F y + shift.

    Of the inverse, A⁻¹ ← A⁻¹ F⁻¹, and from the offset A⁻¹ shift is taken.
    """
    centre: Tensor | None = None
    unit: Tensor | None = None
    matrix: Tensor | None = None
    offset: Tensor | None = None
    log_dets: list[Tensor] = []
    for position, part in enumerate(run):
        if isinstance(part, Permutation):
            full = _full(matrix, run)
            matrix = full[:, part.order] if inverse else full[part.order]
            offset = offset if offset is None or inverse else offset[part.order]
            continue
        factor: Tensor | None
        shift: Tensor | None
        if isinstance(part, Linear | Whitening):
            (factor, log_det), shift = matrices[part], part.bias if isinstance(part, Linear) else None
        else:
            assert isinstance(part, ActNorm | Affine)
            known = diagonals.get(part) if isinstance(part, ActNorm) else None
            part_centre, part_unit, factor, shift, log_det = known or part.diagonal(_width(run))
            if position == 0:
                centre, unit = part_centre, part_unit
            else:
                factor = 1 / part_unit if factor is None else factor / part_unit
                shift = -part_centre * factor if shift is None else shift - part_centre * factor
            factor = factor if factor is None or not inverse else 1 / factor
        log_dets.append(log_det)
        matrix = _product(matrix, factor) if inverse else _product(factor, matrix)
        if inverse:
            moved = None if shift is None else -_applied(matrix, shift)
        else:
            moved, offset = shift, None if offset is None else _applied(factor, offset)
        offset = moved if offset is None else offset if moved is None else offset + moved
    if matrix is None or any(part in matrices for part in run):
        matrix = _full(matrix, run)
    log_det = log_dets[0] if len(log_dets) == 1 else torch.stack(log_dets).sum()
    return Fold(centre, unit, matrix, offset, log_det)


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """The product of two matrices ``[D, D]``, diagonals ``[D]`` or identities (None)."""
    if left is None or right is None:
        return right if left is None else left
    if left.ndim == right.ndim == 2:
        return left @ right
    return left[:, None] * right if right.ndim == 2 else left * right


def _applied(matrix: Tensor | None, vector: Tensor) -> Tensor:
    if matrix is None:
        return vector
    return matrix @ vector if matrix.ndim == 2 else matrix * vector


def _full(matrix: Tensor | None, run: list[Transform]) -> Tensor:
    if matrix is None:
        like = next(tensor for part in run if (tensor := find_reference(part)) is not None)
        return torch.eye(_width(run), dtype=like.dtype, device=like.device)
    return matrix if matrix.ndim == 2 else matrix.diag()


def _width(run: Sequence[Transform]) -> int:
    return next(part.features for part in run if isinstance(part, Linear | Whitening | ActNorm))
