"""Fixed maps of each feature by itself: affine, logit, sigmoid."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from density.checks import check_data
from density.support import Region, Support
from flows.layers.by_feature.activation_norm import Diagonal, column_moments
from flows.transform import Transform

UNIT_INTERVAL = Region(
    "values in (0, 1)", lambda x: (x <= 0) | (x >= 1), "Rescale the data first, e.g. with Affine before it in a Chain"
)


class Affine(Transform):
    r"""A fixed affine map of each feature, z = (x − shift)/scale; log|det ∂z/∂x| = −Σ log|scale|.

    Args:
        shift, scale: numbers, or tensors ``[D]``. Two numbers make a transform of any width.

    Raises:
        ValueError: a shape is neither of these, a number is not finite, or a scale is 0.

    Cost: O(D) per point.

    >>> x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    >>> Affine.standardise(x)(x)[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: float | Tensor, scale: float | Tensor) -> None:
        super().__init__()
        owner = type(self).__name__
        (shift, scale), self.features = per_feature(owner, shift=shift, scale=scale)
        for name, tensor in (("shift", shift), ("scale", scale)):
            if not tensor.isfinite().all() or (name == "scale" and (tensor == 0).any()):
                raise ValueError(f"{owner} expects finite numbers and no scale of 0; got {name} {tensor.tolist()}")
            self.register_buffer(name, tensor)

    @classmethod
    def standardise(cls, x: Tensor) -> Self:
        """The map that gives data ``[n, D]`` mean 0 and standard deviation 1; constant features keep scale 1.

        Raises:
            ValueError: no rows, or a value is not finite.
        """
        check_data(x, x.shape[-1] if isinstance(x, Tensor) and x.ndim else 1, cls.__name__)
        return cls(*column_moments(x))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) / self.scale, -self._log_abs_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * self.scale + self.shift, self._log_abs_det(z)

    def diagonal(self, width: int) -> Diagonal:
        """What the layer does with that many features."""
        log_det = -self.scale.abs().log().expand(width).sum()
        return Diagonal(self.shift.expand(width), (1 / self.scale).expand(width), None, log_det)

    def _log_abs_det(self, x: Tensor) -> Tensor:
        return self.scale.abs().log().expand(x.shape[-1]).sum().expand(x.shape[:-1])


class Logit(Transform):
    r"""The logit z = log x − log(1−x), from (0, 1) to the reals; log|det ∂z/∂x| = −Σ log x + log(1−x).

    Near 1 the numbers of (0, 1) are coarse: an inverse that would round to 0 or 1 gives the nearest number inside. At a
    value outside, the log-determinant is −∞.

    Cost: O(D) per point.

    >>> z, log_det = Logit()(torch.tensor([0.5, 0.5]))
    >>> z.tolist(), round(log_det.exp().item(), 4)
    ([0.0, 0.0], 16.0)
    """

    @property
    def domain(self) -> Support:
        return UNIT_INTERVAL

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _logit(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _sigmoid(z)


class Sigmoid(Transform):
    r"""The sigmoid z = 1/(1 + e⁻ˣ), from the reals to (0, 1); log|det ∂z/∂x| = Σ log z + log(1−z).

    It is the inverse of :class:`Logit`.

    Cost: O(D) per point.

    >>> z, log_det = Sigmoid()(torch.tensor([0.0, 0.0]))
    >>> z.tolist(), round(1 / log_det.exp().item(), 4)
    ([0.5, 0.5], 16.0)
    """

    @property
    def image(self) -> Support:
        return UNIT_INTERVAL

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _sigmoid(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _logit(z)


def per_feature(owner: str, **values: float | Tensor) -> tuple[list[Tensor], int | None]:
    """Numbers, or tensors ``[D]``, as tensors of their own and of one dtype; and D, or None of numbers alone.

    Raises:
        TypeError, ValueError: one is neither, or two differ in D; the owner and their names are in the message.
    """
    floating = [value for value in values.values() if isinstance(value, Tensor) and value.is_floating_point()]
    dtype = floating[0].dtype if floating else torch.get_default_dtype()
    tensors = []
    for name, value in values.items():
        try:
            tensor = torch.as_tensor(value, dtype=dtype).detach().clone()
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{owner} expects {name} to be a number or of shape [D]; got {value!r}") from error
        if tensor.ndim > 1 or tensor.numel() == 0:
            raise ValueError(f"{owner} expects {name} to be a number or of shape [D]; got {list(tensor.shape)}")
        tensors.append(tensor)
    widths = {len(tensor) for tensor in tensors if tensor.ndim}
    if len(widths) > 1:
        raise ValueError(f"{owner} expects {' and '.join(values)} of one width; got {sorted(widths)}")
    return tensors, widths.pop() if widths else None


def _logit(x: Tensor) -> tuple[Tensor, Tensor]:
    inside = torch.where(UNIT_INTERVAL.outside(x), 0.5, x)  # before the logarithm, or its gradient would be nan
    log_x, log_rest = inside.log(), torch.log1p(-inside)
    return log_x - log_rest, UNIT_INTERVAL.vanishing(x, -(log_x + log_rest).sum(-1))


def _sigmoid(z: Tensor) -> tuple[Tensor, Tensor]:
    numbers = torch.finfo(z.dtype)
    x = torch.sigmoid(z).clamp(numbers.tiny, 1 - numbers.eps / 2)
    return x, (F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)
