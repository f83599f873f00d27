"""Affine coupling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from density.nets import mlp
from flows.conditional_affine import LOG_SCALE_BOUND, check_bound, location_and_log_scale
from flows.transform import Transform


class AffineCoupling(Transform):
    r"""Some features pass, the others are shifted and scaled by functions of those.

    Dinh et al. 2017, arXiv:1605.08803, §3.

    .. math:: z_1 = x_1, \qquad z_2 = \frac{x_2 - \mu(x_1, c)}{\sigma(x_1, c)}, \qquad
              \log|\det \partial z/\partial x| = -\sum \log\sigma

    log σ = bound · tanh(raw/bound), so |log σ| < bound. With the network that the layer makes itself, a new layer is
    the identity.

    Args:
        mask: D booleans, True for the features x_1 that pass unchanged.
        hidden: widths of the network's hidden layers.
        context_features: width C of the context, which the network sees beside x_1.
        log_scale_bound: bound on |log σ|.
        conditioner: a network to use instead of an ``mlp``: ``[*batch, d_1 + C]`` to ``[*batch, 2 d_2]``, μ and then
            raw.
        activation: of the hidden layers. Bounded by default, so that μ is: unbounded ones throw a point that lies far
            outside the data ever further out, layer by layer (on digits, a few test images to −10⁹ nats).

    Raises:
        ValueError: nothing to transform (all True), or nothing to condition on (all False and no context; with a
            context all False makes an affine map given the context).

    Cost: one pass of the network either way; log-determinant O(D).

    >>> import torch
    >>> layer = AffineCoupling([True, False, False])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> z.tolist(), log_det.item() == 0.0
    ([1.0, 2.0, 3.0], True)
    """

    features: int
    passed: Tensor
    moved: Tensor

    def __init__(
        self,
        mask: Sequence[bool] | Tensor,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        log_scale_bound: float = LOG_SCALE_BOUND,
        conditioner: nn.Module | None = None,
        *,
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        keep = torch.as_tensor(mask).cpu()
        if keep.dtype != torch.bool or keep.ndim != 1 or len(keep) == 0:
            raise ValueError(
                f"AffineCoupling expects a mask of D booleans; got {keep.dtype} of shape {list(keep.shape)}"
            )
        if keep.all():
            raise ValueError("AffineCoupling expects a mask with a False; all True leaves nothing to transform")
        if not keep.any() and context_features == 0:
            raise ValueError(
                "AffineCoupling expects a mask with a True, or a context; all False leaves nothing to condition on. "
                "For a map without condition use ActNorm or Affine"
            )
        check_bound(log_scale_bound, "AffineCoupling")
        self.features = len(keep)
        self.context_features = context_features
        self.log_scale_bound = log_scale_bound
        self.register_buffer("passed", keep.nonzero()[:, 0])
        self.register_buffer("moved", (~keep).nonzero()[:, 0])
        inputs, outputs = len(self.passed) + context_features, 2 * len(self.moved)
        self.conditioner = (
            mlp(inputs, outputs, hidden, activation, zero_init=True) if conditioner is None else conditioner
        )

    @property
    def mask(self) -> Tensor:
        """D booleans, True for the features that pass unchanged."""
        mask = torch.zeros(self.features, dtype=torch.bool, device=self.passed.device)
        return mask.index_fill(0, self.passed, True)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._condition(x, context)
        moved = (x[..., self.moved] - mean) * torch.exp(-log_scale)
        return x.index_copy(-1, self.moved, moved), -log_scale.sum(-1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._condition(z, context)
        moved = mean + torch.exp(log_scale) * z[..., self.moved]
        return z.index_copy(-1, self.moved, moved), log_scale.sum(-1)

    def _condition(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = x[..., self.passed]
        if context is not None and self.context_features:
            inputs = torch.cat([inputs, context], -1)
        return location_and_log_scale(
            self.conditioner(inputs), len(self.moved), self.log_scale_bound, type(self).__name__
        )
