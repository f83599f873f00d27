"""The linear layer W = P L U."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from flows.layers.linear_maps.linear import Linear, invertible


class LULinear(Linear):
    r"""A linear layer z = W x + b with W = P·L·U decomposed once and the factors trained.

    Kingma & Dhariwal 2018, arXiv:1807.03039, §3.2.

    .. math:: \log|\det W| = \sum_i \log|u_{ii}|

    P is a permutation, L unit lower triangular, U upper triangular. They share one D×D parameter as in LAPACK's
    ``getrf``: the strict lower triangle is L, the strict upper one U, and the diagonal holds log|u_ii|. P and the signs
    of U's diagonal are buffers, so every value of the parameter is an invertible W, and W never crosses det W = 0. A
    new layer is the identity.

    Args:
        features: width D.
        bias: whether to add b.

    Raises:
        ValueError: features is not a positive int.

    Cost for n points: forward O(nD² + D³) (one product forms W, one applies it), inverse O(nD²) (two triangular
    solves), log-determinant O(D). Nothing is cached, so nothing goes stale.

    >>> import torch
    >>> layer = LULinear.from_matrix(torch.tensor([[0.0, 2.0], [-3.0, 1.0]]))
    >>> z, log_det = layer(torch.tensor([[1.0, 1.0]]))
    >>> z.tolist(), round(log_det.exp().item(), 4)
    ([[2.0, -2.0]], 6.0)
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, features: int, bias: bool = True) -> None:
        super().__init__(features, bias)
        self.factors = nn.Parameter(torch.zeros(features, features))
        self.register_buffer("permutation", torch.arange(features))
        self.register_buffer("sign", torch.ones(features))

    @classmethod
    def from_matrix(cls, matrix: Tensor, bias: Tensor | None = None) -> Self:
        matrix, bias = invertible(matrix, bias, cls.__name__)
        layer = cls(len(matrix), bias=bias is not None).to(matrix)
        packed, pivots = torch.linalg.lu_factor(matrix)
        diagonal = packed.diagonal()
        layer.factors = nn.Parameter(packed - diagonal.diag() + diagonal.abs().log().diag())
        layer.sign = diagonal.sign()
        # Row i of P has its one in column p_i, and so W = (LU)[p].
        layer.permutation = torch.lu_unpack(packed, pivots, unpack_data=False)[0].argmax(1)
        layer.bias = None if bias is None else nn.Parameter(bias)
        return layer

    def matrix(self) -> Tensor:
        lower = self.factors.tril(-1) + torch.eye(self.features, dtype=self.factors.dtype, device=self.factors.device)
        return (lower @ self._upper())[self.permutation]

    @classmethod
    def stacked(cls, layers: Sequence[Self], *, inverse: bool) -> tuple[Tensor, Tensor]:
        factors = torch.stack([layer.factors for layer in layers])
        order = torch.stack([layer.permutation for layer in layers])
        diagonal = factors.diagonal(dim1=1, dim2=2)
        signed = torch.stack([layer.sign for layer in layers]) * diagonal.exp()
        upper = factors.triu(1) + signed.diag_embed()
        if inverse:
            # U⁻¹ L⁻¹ Pᵀ, whose column i is column p_i of U⁻¹ L⁻¹.
            identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
            lower = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False, unitriangular=True)
            solved = torch.linalg.solve_triangular(upper, lower, upper=True)
            matrices = solved.gather(2, order[:, None, :].expand_as(factors))
        else:
            matrices = torch.baddbmm(upper, factors.tril(-1), upper).gather(1, order[:, :, None].expand_as(factors))
        return matrices, diagonal.sum(1)

    def log_abs_det(self) -> Tensor:
        return self.factors.diagonal().sum()

    def _upper(self) -> Tensor:
        return self.factors.triu(1) + (self.sign * self.factors.diagonal().exp()).diag()

    def _solve(self, y: Tensor) -> Tensor:
        # In rows, y = x Uᵀ Lᵀ Pᵀ; a unitriangular solve reads the strict triangle only.
        y = y[:, self.permutation.argsort()]
        y = torch.linalg.solve_triangular(self.factors.T, y, upper=True, left=False, unitriangular=True)
        return torch.linalg.solve_triangular(self._upper().T, y, upper=False, left=False)
