"""What a gradient fit reads of its data, whole or a chunk at a time: points, contexts, weights, checked."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from density.checks import check_contexts, check_points, check_rows
from density.data.rows import check_weights


@dataclass(frozen=True)
class Reader:
    """The reader of the rows of a model.

    Attributes:
        owner: whose errors they are.
        features: of points.
        context_features: of contexts; 0 where there are none.
        name: of the argument that holds the points, in errors.
        incomplete: whether nan marks a missing entry of a point.

    >>> import torch
    >>> x, weights = torch.arange(3.0).reshape(3, 1), torch.tensor([1.0, 0.0, 2.0])
    >>> Reader("a flow", features=1).read(x, weights=weights)
    (tensor([[0.],
            [2.]]), tensor([1., 2.]))
    """

    owner: str
    features: int
    context_features: int = 0
    name: str = "x"
    incomplete: bool = False

    def read(
        self,
        x: Tensor,
        context: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        like: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Points ``[n, D]``, contexts ``[n, C]`` and weights ``[n]``, as far as there are, detached and not copied.

        Rows of weight 0 are not there; the others are copied where there are such rows.

        Args:
            like: whose dtype and device the points must have.

        Raises:
            TypeError, ValueError: they are none of these, not finite, or of different numbers of rows; weights that are
                negative, or all 0.
        """
        check_points(x, self.features, self.owner, reference=like, name=self.name)
        own = None if weights is None else check_weights(weights, self.owner, len(x)).to(x)
        there = None if own is None or bool(own.all()) else own > 0
        if there is not None and not bool(there.any()):
            raise ValueError(f"{self.owner} expects at least one row of data; got none of positive weight")

        points = x if there is None else x[there]
        check_rows(points, self.features, self.owner, incomplete=self.incomplete)
        check_contexts(context, self.context_features, x, self.owner, there=there)
        beside = [t if there is None else t[there] for t in (context, own) if t is not None]
        return tuple(t.detach() for t in (points, *beside))
