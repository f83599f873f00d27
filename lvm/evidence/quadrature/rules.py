"""The integration rule on boxes: tensor Gauss-Kronrod, with null rules."""

from __future__ import annotations

import torch
from torch import Tensor

# Piessens et al. (1983), QUADPACK, routine qk15: positive half of the nodes, from the end to the centre.
_NODES = (
    0.991455371120812639206854697526329,
    0.949107912342758524526189684047851,
    0.864864423359769072789712788640926,
    0.741531185599394439863864773280788,
    0.586087235467691130294144691676800,
    0.405845151377397166906606412076961,
    0.207784955007898467600689403773245,
    0.0,
)
_KRONROD = (
    0.022935322010529224963732008058970,
    0.063092092629978553290700663189204,
    0.104790010322250183839876322541518,
    0.140653259715525918745189590510238,
    0.169004726639267902826583426598550,
    0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
    0.209482141084727828012999174891714,
)
_GAUSS = (
    0.129484966168869693270611432679082,
    0.279705391489276667901467771423780,
    0.381830050505118944950369775488975,
    0.417959183673469387755102040816327,
)


class GaussKronrod:
    """The tensor product of the 15-node Kronrod rule on [−1, 1]ᵈ, with null rules in each axis.

    Exact for polynomials of degree 23 in each variable. The null rules vanish on polynomials of degree 10 and are as
    large as Kronrod minus Gauss, which is one of their combinations: that one alone vanishes at a kink in the wrong
    place, but not all of them at once (Berntsen & Espelid 1991). In one dimension the two ends of the interval are
    nodes of weight 0, so that a kink between an end and the next node is seen as well; in more, kinks cross the axes.

    Attributes:
        axis: the nodes of one axis, ascending: 15, or 17 in one dimension. There are N of their combinations.
        barycentric: weights of the polynomial through the nodes of one axis.
        nodes: ``[N, d]``, the last axis running fastest.
        weights: ``[N]``, adding to 2ᵈ.
        null: ``[d, nulls, N]``: weights with a null rule in axis j and Kronrod in the others.

    >>> rule = GaussKronrod(2, torch.device("cpu"))
    >>> (rule.weights * rule.nodes.prod(1).square()).sum()  # (2/3)²
    tensor(0.4444, dtype=torch.float64)
    """

    def __init__(self, dimensions: int, device: torch.device) -> None:
        self.dimensions = dimensions
        half, kronrod = (torch.tensor(values, dtype=torch.float64) for values in (_NODES, _KRONROD))
        gauss = torch.zeros_like(kronrod)
        gauss[1::2] = torch.tensor(_GAUSS, dtype=torch.float64)
        if dimensions == 1:
            half, kronrod, gauss = (
                torch.cat([end, values])
                for end, values in ((half.new_ones(1), half), (half.new_zeros(1), kronrod), (half.new_zeros(1), gauss))
            )
        axis = torch.cat([-half[:-1], half.flip(0)])
        kronrod, gauss = (torch.cat([w[:-1], w.flip(0)]) for w in (kronrod, gauss))
        barycentric = 1 / (axis.unsqueeze(1) - axis).fill_diagonal_(1).prod(1)
        degrees = torch.arange(11)
        basis = torch.linalg.qr(torch.cos(degrees * axis.arccos().unsqueeze(1)), mode="complete").Q
        null = basis[:, degrees.numel() :].mT * torch.linalg.vector_norm(kronrod - gauss)
        nulls = torch.stack(
            [
                torch.stack([_tensor([row if i == j else kronrod for i in range(dimensions)]).prod(1) for row in null])
                for j in range(dimensions)
            ]
        )
        nodes, weights = _tensor([axis] * dimensions), _tensor([kronrod] * dimensions).prod(1)
        self.axis, self.barycentric, self.nodes, self.weights, self.null = _together(
            [axis, barycentric, nodes, weights, nulls], device
        )

    def grid(self, values: Tensor) -> Tensor:
        """Values at the nodes ``[m, N]`` with one index an axis."""
        return values.unflatten(-1, (self.axis.numel(),) * self.dimensions)

    def nodes_of(self, centre: Tensor, half: Tensor) -> Tensor:
        """The nodes of boxes centre ± half ``[m, d]``: ``[m, N, d]``."""
        return centre.unsqueeze(1) + half.unsqueeze(1) * self.nodes

    def interpolation(self, t: Tensor) -> Tensor:
        """Weights ``[k, N]`` of the values at the nodes in the polynomial through them, at t ``[k, d]`` in [−1, 1]ᵈ."""
        apart = t.unsqueeze(2) - self.axis
        terms = self.barycentric / torch.where(apart.abs() < 1e-15, 1e-15, apart)  # the second barycentric formula
        weights = terms / terms.sum(2, keepdim=True)
        product = weights[:, 0]
        for j in range(1, self.dimensions):
            product = (product.unsqueeze(2) * weights[:, j].unsqueeze(1)).flatten(1)
        return product


def _tensor(axes: list[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def _together(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors on a device, by one copy."""
    parts = torch.cat([t.flatten() for t in tensors]).to(device).split([t.numel() for t in tensors])
    return [part.unflatten(0, t.shape) for part, t in zip(parts, tensors, strict=True)]
