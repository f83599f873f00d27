"""Flows in zuko: couplings and autoregressive layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import zuko
from torch import Tensor, nn

from benchmarks.contestants import Contestant
from benchmarks.couplings import BOUND, steps_of
from flows import Flow


class Standardise(torch.distributions.Transform):
    """z = (x − mean) exp(−s), s = 5 tanh(raw/5), as a torch transform such as zuko's are."""

    domain = codomain = torch.distributions.constraints.real
    bijective = True

    def __init__(self, mean: Tensor, raw: Tensor) -> None:
        super().__init__()
        self.mean, self.log_scale = mean, BOUND * torch.tanh(raw / BOUND)

    def _call(self, x: Tensor) -> Tensor:
        return (x - self.mean) * torch.exp(-self.log_scale)

    def _inverse(self, y: Tensor) -> Tensor:
        return y * torch.exp(self.log_scale) + self.mean

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.log_scale


class Shift(torch.distributions.Transform):
    """z = x + shift: the bias that zuko's LU has none of."""

    domain = codomain = torch.distributions.constraints.real_vector
    bijective = True

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = shift

    def _call(self, x: Tensor) -> Tensor:
        return x + self.shift

    def _inverse(self, y: Tensor) -> Tensor:
        return y - self.shift

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


def coupling(flow: Flow, hidden: int) -> Contestant:
    """Our coupling flow, with its weights."""
    features, parts = flow.features, []
    for linear, ours in steps_of(flow):
        # Theirs has the diagonal in L and W = L U without bias: P L U = (L D)(D⁻¹ U).
        lower, upper = torch.linalg.lu(linear.matrix().detach())[1:]
        diagonal = upper.diagonal()
        packed = (lower * diagonal).tril() + (upper / diagonal[:, None]).triu(1)
        moved = zuko.flows.coupling.GeneralCouplingTransform(
            features, mask=ours.mask, univariate=Standardise, hidden_features=(hidden, hidden)
        )
        count = len(ours.moved)
        interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
        target = [layer for layer in moved.hyper if hasattr(layer, "weight")]
        source = [layer for layer in ours.conditioner if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for to, of in zip(target, source, strict=True):
                rows = interleave if of is source[-1] else slice(None)
                to.weight.copy_(of.weight[rows])
                to.bias.copy_(of.bias[rows])
        parts += [
            zuko.lazy.UnconditionalTransform(zuko.transforms.LULinearTransform, packed),
            zuko.lazy.UnconditionalTransform(Shift, linear.bias.detach().clone()),
            moved,
        ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
    )
    module = zuko.flows.Flow(parts, base)
    return Contestant(module, lambda x: module().log_prob(x), lambda n: module().sample((n,)))


def autoregressive_inverse(features: int, hidden: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Of a masked affine layer of two hidden layers."""
    lazy = zuko.flows.MAF(features, transforms=1, hidden_features=(hidden, hidden), activation=nn.Tanh).to(device)
    return lazy().transform.inv
