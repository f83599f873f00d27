"""Linear layers z = W x + b, with W kept as trainable factors of a decomposition: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from density.checks import check_count
from flows.transform import Transform


class Linear(Transform):
    r"""An invertible linear layer z = W x + b, with log|det ∂z/∂x| = log|det W|.

    A subclass says how W is held: its :meth:`matrix`, its log-determinant and how it is solved against.

    Attributes:
        features: width D of the points.
        bias: b of shape ``[D]``, or None.

    >>> from flows import LULinear, QRLinear
    >>> matrix = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    >>> [round(layer.from_matrix(matrix).log_abs_det().exp().item(), 4) for layer in (LULinear, QRLinear)]
    [6.0, 6.0]
    """

    features: int
    bias: nn.Parameter | None

    def __init__(self, features: int, bias: bool) -> None:
        super().__init__()
        features = check_count(features, f"{type(self).__name__}: features")
        self.features = features
        self.register_parameter("bias", nn.Parameter(torch.zeros(features)) if bias else None)

    @classmethod
    @abstractmethod
    def from_matrix(cls, matrix: Tensor, bias: Tensor | None = None) -> Self:
        """The layer z = W x + b of a given W ``[D, D]`` and b ``[D]``, in W's dtype; without b, a layer without bias.

        W is decomposed once; training moves the factors.

        Raises:
            ValueError: W is not square, not finite or not invertible in its precision, or b does not fit.
        """

    @abstractmethod
    def matrix(self) -> Tensor:
        """W, shape ``[D, D]``, differentiable."""

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """log|det W|, a scalar; O(D)."""

    @classmethod
    def stacked(cls, layers: Sequence[Self], *, inverse: bool) -> tuple[Tensor, Tensor]:
        """W, or W⁻¹, of several layers of one width, ``[layers, D, D]``, and log|det W| of each, ``[layers]``."""
        matrices = [layer._inverse_matrix() if inverse else layer.matrix() for layer in layers]
        return torch.stack(matrices), torch.stack([layer.log_abs_det() for layer in layers])

    def _inverse_matrix(self) -> Tensor:
        like = next(self.parameters())
        return self._solve(torch.eye(self.features, dtype=like.dtype, device=like.device)).T

    @abstractmethod
    def _solve(self, y: Tensor) -> Tensor:
        """The rows W⁻¹y of rows y, both ``[n, D]``."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.matrix(), self.bias), self.log_abs_det().expand(x.shape[:-1])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y = z if self.bias is None else z - self.bias
        if y.shape[:-1].numel() >= self.features:  # cheaper than solving for every point
            return F.linear(y, self._inverse_matrix()), -self.log_abs_det().expand(z.shape[:-1])
        x = self._solve(y.reshape(-1, self.features)).reshape(z.shape)
        return x, -self.log_abs_det().expand(z.shape[:-1])


def invertible(matrix: Tensor, bias: Tensor | None, owner: str) -> tuple[Tensor, Tensor | None]:
    """W, and a copy of b, for a ``from_matrix``, or the error that says why there is no such layer. O(D³), once."""
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
        what = matrix.dtype if isinstance(matrix, Tensor) else type(matrix).__name__
        raise TypeError(f"{owner}.from_matrix expects a floating-point torch.Tensor; got {what}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"{owner}.from_matrix expects a square matrix [D, D]; got shape {list(matrix.shape)}")
    if bias is not None and (bias.shape != matrix.shape[:1] or bias.dtype != matrix.dtype):
        raise ValueError(
            f"{owner}.from_matrix expects a bias of shape {list(matrix.shape[:1])} and {matrix.dtype}; "
            f"got {list(bias.shape)} and {bias.dtype}"
        )
    if not matrix.isfinite().all() or (bias is not None and not bias.isfinite().all()):
        raise ValueError(f"{owner}.from_matrix expects finite numbers; W or b holds a nan or an infinity")
    matrix = matrix.detach()
    # Rows and columns are brought to one size first: diag(1, 1e-30) is badly scaled, not singular.
    rows = matrix.abs().amax(1, keepdim=True)
    scaled = matrix / rows.where(rows > 0, 1.0)
    columns = scaled.abs().amax(0, keepdim=True)
    values = torch.linalg.svdvals(scaled / columns.where(columns > 0, 1.0))
    if values[-1] <= len(matrix) * torch.finfo(matrix.dtype).eps * values[0]:
        raise ValueError(
            f"{owner}.from_matrix expects an invertible matrix; this one is singular in {matrix.dtype} (smallest "
            f"singular value {values[-1]:.1e} of {values[0]:.1e} with rows and columns scaled to one size)"
        )
    return matrix, None if bias is None else bias.detach().clone()
