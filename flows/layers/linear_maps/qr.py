"""The linear layer W = Q R."""

from __future__ import annotations

from typing import Self

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count
from density.families.noise import normal_noise
from flows.layers.linear_maps.linear import Linear, invertible


class QRLinear(Linear):
    r"""A linear layer z = W x + b with W = Q·R, Q a product of Householder reflections.

    Hoogeboom et al. 2019, arXiv:1901.11137, §3.

    .. math:: Q = H_1 \cdots H_K = I - V T V^\top, \quad
              T^{-1} = \operatorname{striu}(V^\top V) + \tfrac12 \operatorname{diag}(V^\top V),
              \qquad \log|\det W| = \sum_i \log|r_{ii}|

    The columns v_k of V ``[D, K]`` are the mirrors' normals, H_k = I − 2 v_k v_kᵀ/‖v_k‖²; the compact WY form
    (Schreiber & Van Loan 1989) applies all of them in three matrix products and a K×K triangular solve. R is upper
    triangular with diagonal sign·exp(log_diagonal). The signs are a buffer: K reflections alone fix det Q = (−1)^K, and
    with the signs both halves of the invertible matrices are within reach. A zero normal reflects nothing. A new
    layer is the identity: its reflections come in random pairs that cancel, and an odd one is undone by a sign in R.

    Args:
        features: width D.
        reflections: K ≤ D, by default D, which reaches every W whose determinant has the layer's sign.
        bias: whether to add b.
        generator: draws the normals; by default torch's global one.

    Raises:
        ValueError: features is not a positive int, or reflections not one of 1 … D.

    Cost for n points: forward O(nD² + KD²), inverse O(nD² + nKD), log-determinant O(D).

    >>> import torch
    >>> layer = QRLinear.from_matrix(torch.tensor([[0.0, 2.0], [-3.0, 1.0]]))
    >>> z, log_det = layer(torch.tensor([[1.0, 1.0]]))
    >>> [round(value, 4) for value in z[0].tolist()], round(log_det.exp().item(), 4)
    ([2.0, -2.0], 6.0)
    """

    sign: Tensor
    _entries: Tensor

    def __init__(
        self, features: int, reflections: int | None = None, bias: bool = True, *, generator: Generator | None = None
    ) -> None:
        super().__init__(features, bias)
        owner = type(self).__name__
        reflections = features if reflections is None else reflections
        reflections = check_count(reflections, f"{owner}: reflections")
        if reflections > features:
            raise ValueError(
                f"{owner} of {features} features takes at most {features} reflections, which reach every rotation; "
                f"got {reflections}"
            )
        vectors = normal_noise(features, reflections // 2, generator=generator).repeat_interleave(2, 1)
        sign = torch.ones(features)
        if reflections % 2:
            first = torch.eye(features)[:, :1]
            vectors = torch.cat([vectors, first], 1)
            sign = sign - 2 * first[:, 0]
        self.vectors = nn.Parameter(vectors)
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.strict_upper = nn.Parameter(torch.zeros(features * (features - 1) // 2))
        self.register_buffer("sign", sign)
        # Where in (diagonal, strict upper triangle, 0) each entry of R stands.
        entries = torch.full((features, features), len(self.strict_upper) + features)
        entries[tuple(torch.triu_indices(features, features, 1))] = torch.arange(len(self.strict_upper)) + features
        self.register_buffer("_entries", entries.diagonal_scatter(torch.arange(features)), persistent=False)

    @classmethod
    def from_matrix(cls, matrix: Tensor, bias: Tensor | None = None) -> Self:
        matrix, bias = invertible(matrix, bias, cls.__name__)
        features = len(matrix)
        layer = cls(features, bias=bias is not None).to(matrix)
        packed, tau = torch.geqrf(matrix)
        identity = torch.eye(features, dtype=matrix.dtype, device=matrix.device)
        # Where a column is zero below its diagonal, tau = 0 and LAPACK's H_i the identity. Ours reflects along e_i, as
        # those zeros say, and row i of R flips: that commutes with the later reflections, whose normals are zero there.
        layer.vectors = nn.Parameter(packed.tril(-1) + identity)
        upper = torch.where((tau == 0)[:, None], -packed, packed).triu()
        layer.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        layer.strict_upper = nn.Parameter(upper[layer._strict_upper_index()])
        layer.sign = upper.diagonal().sign()
        layer.bias = None if bias is None else nn.Parameter(bias)
        return layer

    def matrix(self) -> Tensor:
        return self._rotate(self._triangle())

    def orthogonal(self) -> Tensor:
        """The orthogonal factor Q, shape ``[D, D]``, differentiable."""
        return self._rotate(torch.eye(self.features, dtype=self.vectors.dtype, device=self.vectors.device))

    def log_abs_det(self) -> Tensor:
        return self.log_diagonal.sum()

    def _triangle(self) -> Tensor:
        entries = torch.cat([self.sign * self.log_diagonal.exp(), self.strict_upper, self.sign.new_zeros(1)])
        return entries[self._entries]

    def _strict_upper_index(self) -> tuple[Tensor, Tensor]:
        rows, columns = torch.triu_indices(self.features, self.features, 1, device=self.vectors.device)
        return rows, columns

    def _normals(self) -> tuple[Tensor, Tensor]:
        """The normals V with columns of largest entry 1 (or zero), and T⁻¹ = striu(VᵀV) + ½ diag(VᵀV)."""
        largest = self.vectors.detach().abs().amax(0)
        vectors = self.vectors / largest.where(largest > 0, 1.0)  # so that the squares neither under- nor overflow
        products = vectors.T @ vectors
        squares = products.diagonal()
        return vectors, products.triu(1) + (0.5 * squares.where(squares > 0, 1.0)).diag()

    def _rotate(self, columns: Tensor) -> Tensor:
        """The product of Q and columns ``[D, m]``."""
        unit, t_inverse = self._normals()
        return columns - unit @ torch.linalg.solve_triangular(t_inverse, unit.T @ columns, upper=True)

    def _solve(self, y: Tensor) -> Tensor:
        # In rows, x Rᵀ = y Q, and y Q = y − (y V) T Vᵀ.
        unit, t_inverse = self._normals()
        y = y - torch.linalg.solve_triangular(t_inverse, y @ unit, upper=True, left=False) @ unit.T
        return torch.linalg.solve_triangular(self._triangle().T, y, upper=False, left=False)
