"""A transform of some of the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from density.checks import check_count
from density.initialisation import StartingPoints
from density.support import Step, Support, preimage
from flows.networks.columns import by_columns
from flows.transform import Transform


class OnFeatures(Transform):
    r"""A transform of some of the features; the others pass: z_S = f(x_S; c), z_j = x_j for j ∉ S.

    The log-determinant is that of f. A multi-scale flow (Dinh et al. 2017, arXiv:1605.08803, §3.6) is a chain whose
    last part is another chain on the features that go on; columns with bounds take their own way to the reals.

    Args:
        features: width D.
        chosen: S, the features that f sees, in that order.
        transform: f.

    Raises:
        TypeError: not a Transform.
        ValueError: a feature is out of range or occurs twice, none is chosen, or f has another width.

    Cost: that of f, and O(D) per point.

    >>> import torch
    >>> from flows import Affine
    >>> z, log_det = OnFeatures(3, [2, 0], Affine(0.0, torch.tensor([2.0, 4.0])))(torch.tensor([8.0, 8.0, 8.0]))
    >>> z.tolist(), round(log_det.exp().item(), 4)
    ([2.0, 8.0, 4.0], 0.125)
    """

    features: int
    chosen: Tensor

    def __init__(self, features: int, chosen: Sequence[int], transform: Transform) -> None:
        super().__init__()
        owner = type(self).__name__
        self.features = features = check_count(features, f"{owner}: features")
        if not isinstance(transform, Transform):
            raise TypeError(f"{owner} takes a Transform; got a {type(transform).__name__}")
        index = [check_count(feature, f"{owner}: a chosen feature", least=0) for feature in chosen]
        if not index or len(set(index)) < len(index) or max(index) >= features:
            raise ValueError(f"{owner} expects different features of 0 ... {features - 1}, at least one; got {index}")
        if transform.features not in (None, len(index)):
            raise ValueError(
                f"{owner}: {len(index)} features are chosen, and {type(transform).__name__} has "
                f"{transform.features}; they must agree"
            )
        self.register_buffer("chosen", torch.tensor(index))
        self.transform = transform
        self.context_features = transform.context_features

    @property
    def domain(self) -> Support | None:
        return self._of_the_chosen(self.transform.domain)

    @property
    def image(self) -> Support | None:
        return self._of_the_chosen(self.transform.image)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._forward_columns, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._inverse_columns, z, context)

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.transform._forward_columns(x[self.chosen], context)
        return x.index_copy(0, self.chosen, z), log_det

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.transform._inverse_columns(z[self.chosen], context)
        return z.index_copy(0, self.chosen, x), log_det

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        self.transform._initialise(x.mapped(lambda x: x[..., self.chosen]), context)
        return self._onward(x, context)

    def _of_the_chosen(self, support: Support | None) -> Support | None:
        pick = Step("", None, lambda x: x[..., self.chosen])
        return preimage([pick, Step(f"of the chosen features, {type(self.transform).__name__}", support)])
