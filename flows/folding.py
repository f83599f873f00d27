"""Consecutive affine layers as one affine map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from density.checks import find_reference
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.by_feature.elementwise import Affine
from flows.layers.linear_maps.linear import Linear
from flows.layers.linear_maps.lu import LULinear
from flows.layers.linear_maps.permutation import Permutation
from flows.layers.linear_maps.qr import QRLinear
from flows.layers.linear_maps.whitening import Whitening
from flows.transform import Transform

LINEAR = (LULinear, QRLinear)
MATRICES = {*LINEAR, Whitening}
AFFINE = {*MATRICES, ActNorm, Affine, Permutation}


class Fold(NamedTuple):
    r"""A run of affine layers as one map z = (x − centre) Aᵀ + offset, or its inverse.

    The first layer's centre stays apart: an offset of 10⁸ is subtracted before anything is rounded, as the layer itself
    does it. Where the run does not begin with such a layer it is None. The matrix of a run of activation norms is a
    diagonal ``[D]``. With statistics, means 0 and variances 1, it is applied as a batch norm of these, all of whose
    gradients are one kernel: fewer launches on an accelerator, and no faster on a CPU.
    """

    centre: Tensor | None
    matrix: Tensor
    offset: Tensor | None
    log_abs_det: Tensor
    statistics: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z of points as columns ``[D, n]``, and the log-determinant, one number."""
        return self._applied(x if self.centre is None else x - self.centre.unsqueeze(1)), self.log_abs_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self._applied(z)
        return x if self.centre is None else x + self.centre.unsqueeze(1), -self.log_abs_det

    def _applied(self, x: Tensor) -> Tensor:
        if self.matrix.ndim == 1:
            if self.statistics is not None:
                return F.batch_norm(x.unsqueeze(0), *self.statistics, self.matrix, self.offset, eps=0.0).squeeze(0)
            diagonal = self.matrix.unsqueeze(1)
            return diagonal * x if self.offset is None else torch.addcmul(self.offset.unsqueeze(1), diagonal, x)
        return self.matrix @ x if self.offset is None else torch.addmm(self.offset.unsqueeze(1), self.matrix, x)


class Piece(NamedTuple):
    """One layer of a run, z = F (x − centre) + shift, or F⁻¹ where the inverse is asked of a layer with a matrix.

    F is a matrix ``[D, D]`` or a diagonal ``[D]``; None are no centre and no shift.
    """

    centre: Tensor | None
    factor: Tensor
    shift: Tensor | None
    log_abs_det: Tensor


def folded(parts: Sequence[Transform], rows: int, *, inverse: bool) -> list[Transform | Fold]:
    """The parts, with each run of affine layers that holds a matrix folded into one map, and so are activation norms.

    The matrices of all layers of a kind are formed in one batch, the activation norms in another, and runs of the same
    kinds are folded together. Nothing is folded for an inverse of fewer points than features: solving against the
    factors is then cheaper than inverting them.

    Cost: O(D³) a layer, no more than forming W.
    """
    kinds = [type(part) for part in parts]
    several = len({part for part, kind in zip(parts, kinds, strict=True) if kind is ActNorm}) > 1
    if not (several or any(kind in MATRICES for kind in kinds)) or (inverse and rows < _width(parts)):
        return list(parts)
    pieces = _pieces(parts, kinds, inverse)
    runs = [(affine, list(run)) for affine, run in groupby(parts, key=lambda part: type(part) in AFFINE)]
    folds: dict[int, Fold] = {}
    alike: dict[tuple[object, ...], list[int]] = {}
    for position, (affine, run) in enumerate(runs):
        if not affine:
            continue
        found = {type(part) for part in run}
        if found.isdisjoint(MATRICES) and not (several and found == {ActNorm}):
            continue
        if len(run) == 1 and not inverse:
            folds[position] = Fold(*pieces[run[0]])
        else:
            signature = tuple((type(part), part in pieces and pieces[part].shift is None) for part in run)
            alike.setdefault(signature, []).append(position)
    for positions in alike.values():
        folds.update(zip(positions, _fold([runs[at][1] for at in positions], pieces, inverse), strict=True))
    diagonals = [at for at, fold in folds.items() if fold.matrix.ndim == 1]
    if diagonals and torch.is_grad_enabled() and not (like := folds[diagonals[0]].matrix).is_cpu:
        statistics = torch.zeros_like(like), torch.ones_like(like)
        folds.update({at: folds[at]._replace(statistics=statistics) for at in diagonals})
    sequence: list[Transform | Fold] = []
    for position, (_, run) in enumerate(runs):
        sequence += [folds[position]] if position in folds else run
    return sequence


def _pieces(parts: Sequence[Transform], kinds: Sequence[type], inverse: bool) -> dict[Transform, Piece]:
    """What every affine layer but permutations does, all layers of a kind in one batch."""
    alike: dict[type, dict[Any, None]] = {}
    for part, kind in zip(parts, kinds, strict=True):
        if kind in AFFINE:
            alike.setdefault(kind, {})[part] = None
    pieces: dict[Transform, Piece] = {}
    for kind in LINEAR:
        if layers := list(alike.get(kind, ())):
            formed, log_dets = kind.stacked(layers, inverse=inverse)
            for layer, matrix, log_det in zip(layers, formed.unbind(0), log_dets.unbind(0), strict=True):
                pieces[layer] = Piece(None, matrix, layer.bias, log_det)
    if norms := list(alike.get(ActNorm, ())):
        pieces.update(zip(norms, (Piece(*diagonal) for diagonal in ActNorm.diagonals(norms)), strict=True))
    for part in alike.get(Whitening, ()):
        pieces[part] = Piece(None, part.matrix(inverse=inverse), None, part.log_abs_det())
    for part in alike.get(Affine, ()):
        pieces[part] = Piece(*part.diagonal(_width(parts)))
    return pieces


def _fold(runs: list[list[Transform]], pieces: dict[Transform, Piece], inverse: bool) -> list[Fold]:
    """One map of each run of R that have the same kinds of parts, all together and part by part.

    A ← F A and offset ← F offset + shift for a part z = F y + shift. Of the inverse, A⁻¹ ← A⁻¹ F⁻¹, and from the offset
    A⁻¹ shift is taken.
    """
    matrix: Tensor | None = None  # [R, D, D], or diagonals [R, D]
    offset: Tensor | None = None  # [R, D]
    log_dets: list[Tensor] = []  # [R]
    for position, layers in enumerate(zip(*runs, strict=True)):
        if isinstance(layers[0], Permutation):
            order = _stacked([layer.order for layer in layers if isinstance(layer, Permutation)])
            full = _full(matrix, runs)
            columns, rows = order[:, None].expand_as(full), order[:, :, None].expand_as(full)
            matrix = full.gather(2, columns) if inverse else full.gather(1, rows)
            offset = offset if offset is None or inverse else offset.gather(1, order)
            continue
        alike = [pieces[layer] for layer in layers]
        factor, shift = _stacked([piece.factor for piece in alike]), _known([piece.shift for piece in alike])
        centre = _known([piece.centre for piece in alike]) if position else None
        if centre is not None:
            shift = -centre * factor if shift is None else shift - centre * factor
        factor = 1 / factor if inverse and factor.ndim == 2 else factor
        log_dets.append(_stacked([piece.log_abs_det for piece in alike]))
        matrix = _product(matrix, factor) if inverse else _product(factor, matrix)
        if inverse:
            moved = None if shift is None else -_applied(matrix, shift)
        else:
            moved, offset = shift, None if offset is None else _applied(factor, offset)
        offset = moved if offset is None else offset if moved is None else offset + moved
    assert matrix is not None
    log_det = log_dets[0] if len(log_dets) == 1 else torch.stack(log_dets).sum(0)
    first_centres = [pieces[run[0]].centre if run[0] in pieces else None for run in runs]
    offsets = [None] * len(runs) if offset is None else _unstacked(offset)
    return list(map(Fold, first_centres, _unstacked(matrix), offsets, _unstacked(log_det)))


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Tensors of one shape behind each other; of one no copy is made."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _known(tensors: list[Tensor | None]) -> Tensor | None:
    """The same of tensors that all runs have, or none."""
    given = [tensor for tensor in tensors if tensor is not None]
    return _stacked(given) if given else None


def _unstacked(tensor: Tensor) -> Sequence[Tensor]:
    return [tensor.squeeze(0)] if len(tensor) == 1 else tensor.unbind(0)


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """The products of matrices ``[R, D, D]``, diagonals ``[R, D]`` or identities (None)."""
    if left is None or right is None:
        return right if left is None else left
    if left.ndim == right.ndim == 3:
        return left @ right
    if left.ndim == right.ndim == 2:
        return left * right
    return left[:, :, None] * right if right.ndim == 3 else left * right[:, None]


def _applied(matrix: Tensor | None, vector: Tensor) -> Tensor:
    if matrix is None:
        return vector
    return (matrix @ vector.unsqueeze(2)).squeeze(2) if matrix.ndim == 3 else matrix * vector


def _full(matrix: Tensor | None, runs: list[list[Transform]]) -> Tensor:
    if matrix is None:
        like = next(tensor for part in runs[0] if (tensor := find_reference(part)) is not None)
        return torch.eye(_width(runs[0]), dtype=like.dtype, device=like.device).expand(len(runs), -1, -1)
    return matrix if matrix.ndim == 3 else matrix.diag_embed()


def _width(run: Sequence[Transform]) -> int:
    return next(part.features for part in run if isinstance(part, Linear | Whitening | ActNorm))
