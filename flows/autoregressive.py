"""Autoregressive flows and the masked network that they condition on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from density.contract import check_count
from flows.conditional_affine import LOG_SCALE_BOUND, check_bound, location_and_log_scale
from flows.transform import Transform, as_order


class MaskedLinear(nn.Linear):
    """A linear layer, some of whose weights are held at zero: y = (mask ∘ W) x + b.

    Args:
        mask: booleans ``[outputs, inputs]``, False where no connection runs.

    Cost: O(inputs · outputs) per point.

    >>> layer = MaskedLinear(torch.tensor([[True, False]]))
    >>> (layer(torch.tensor([0.0, 1.0])) - layer(torch.tensor([0.0, 2.0]))).item()
    0.0
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedMLP(nn.Module):
    r"""A network whose outputs for feature j see only the features before j.

    Germain et al. 2015, arXiv:1502.03509, §3-4. Every unit has a degree: feature j's is its place 1 … D in the
    order, the context's is 0. A hidden unit of degree m sees units of degrees ≤ m; an output of place k sees hidden
    units of degrees < k. Hidden degrees are spread evenly over 0 … D−1 (1 … D−1 without context), so the context
    reaches every output, the first one too, through the hidden layers.

    Args:
        order: ``order[k]`` is the feature in place k+1.
        outputs: how many numbers to return for each feature.
        hidden: widths of the hidden layers; one narrower than the number of degrees drops connections.
        context_features: width C of the context; inputs are ``[*batch, D + C]``, context last.
        activation: makes the module between two linear layers; bounded by default, as in a coupling layer.
        hidden_degrees: degrees of the hidden units, one tensor a layer, instead of even spread; then ``hidden`` is not
            read. With all of them d, and an order that starts with the d features that pass, this is a coupling's net.

    Returns:
        Shape ``[*batch, outputs · D]``: the first output of every feature, then the second. The last layer starts at
        zero.

    Cost: O(number of weights) per point.

    >>> net = MaskedMLP([0, 1, 2], outputs=1)
    >>> _ = nn.init.normal_(net.layers[-1].weight)
    >>> x = torch.randn(3, requires_grad=True)
    >>> [(torch.autograd.grad(net(x)[j], x, retain_graph=True)[0] != 0).tolist() for j in range(3)]
    [[False, False, False], [True, False, False], [True, True, False]]
    """

    def __init__(
        self,
        order: Sequence[int] | Tensor,
        outputs: int = 2,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        activation: Callable[[], nn.Module] = nn.Tanh,
        hidden_degrees: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        place = as_order(order, type(self).__name__).argsort() + 1
        lowest, highest = (0 if context_features else 1), len(place) - 1
        if hidden_degrees is None:
            for position, width in enumerate(hidden):
                check_count(width, f"hidden[{position}]")
            # A single feature without context has nothing to see: no hidden layer, and its output is a bias.
            widths = hidden if highest >= lowest else ()
            hidden_degrees = [torch.linspace(lowest, highest, width).round().long() for width in widths]
        layers: list[nn.Module] = []
        below = torch.cat([place, place.new_zeros(context_features)])
        for degrees in hidden_degrees:
            layers += [MaskedLinear(degrees[:, None] >= below), activation()]
            below = degrees
        last = MaskedLinear(place.repeat(outputs)[:, None] > below)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class GaussianAutoregressive(Transform):
    r"""Masked autoregressive flow: each feature standardised given those before it (Papamakarios et al. 2017,
    arXiv:1705.07057, eqs. 4-5).

    .. math:: z_j = \frac{x_j - \mu_j(x_{<j}, c)}{\sigma_j(x_{<j}, c)}, \qquad
              \log|\det \partial z/\partial x| = -\sum_j \log\sigma_j

    log σ = bound · tanh(raw/bound), so |log σ| < bound. With the network that the layer makes itself, a new layer is
    the identity. ``Inverse(GaussianAutoregressive(D))`` is inverse autoregressive flow.

    Args:
        features: width D.
        hidden: widths of the network's hidden layers.
        order: ``order[k]`` is the feature in place k; by default 0 … D−1.
        context_features: width C of the context; it reaches every feature, the first too.
        log_scale_bound: bound on |log σ|.
        conditioner: a network to use instead of a :class:`MaskedMLP`: ``[*batch, D + C]`` to ``[*batch, 2D]``, μ and
            then raw, with outputs of feature j that see only features before j in the order. This is not checked.

    Raises:
        ValueError: features is not a positive int, or order no permutation of as many.

    Cost: forward one pass of the network, inverse D passes, one after the other; log-determinant O(D).

    >>> layer = GaussianAutoregressive(3, order=[2, 1, 0])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> z.tolist(), log_det.item() == 0.0
    ([1.0, 2.0, 3.0], True)
    """

    features: int
    order: Tensor

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        context_features: int = 0,
        log_scale_bound: float = LOG_SCALE_BOUND,
        conditioner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_count(features, "features")
        check_bound(log_scale_bound, "GaussianAutoregressive")
        places = as_order(range(features) if order is None else order, "GaussianAutoregressive")
        if len(places) != features:
            raise ValueError(
                f"GaussianAutoregressive expects an order of its {features} features; got one of {len(places)}"
            )
        self.features = features
        self.context_features = context_features
        self.log_scale_bound = log_scale_bound
        self.register_buffer("order", places)
        self.conditioner = MaskedMLP(places, 2, hidden, context_features) if conditioner is None else conditioner

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._condition(x, context)
        return (x - mean) * torch.exp(-log_scale), -log_scale.sum(-1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # Features that are not computed yet stand at 0: by the mask nothing that is read depends on them.
        columns = [torch.zeros_like(z[..., 0])] * self.features
        log_det = torch.zeros_like(z[..., 0])
        for feature in self.order.tolist():
            mean, log_scale = self._condition(torch.stack(columns, -1), context)
            columns[feature] = mean[..., feature] + torch.exp(log_scale[..., feature]) * z[..., feature]
            log_det = log_det + log_scale[..., feature]
        return torch.stack(columns, -1), log_det

    def _condition(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is not None and self.context_features:
            x = torch.cat([x, context], -1)
        return location_and_log_scale(self.conditioner(x), self.features, self.log_scale_bound, type(self).__name__)
