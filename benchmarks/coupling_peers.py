"""One coupling flow with LU-linear layers between, in five libraries, with the same weights where that can be."""

from __future__ import annotations

from typing import NamedTuple

import FrEIA.framework
import FrEIA.modules
import nflows.transforms
import normflows
import torch
import zuko
from nflows.distributions import StandardNormal as NflowsNormal
from nflows.flows import Flow as NflowsFlow
from torch import Tensor, nn

from benchmarks.timing import Work
from density import StandardNormal, mlp
from flows import AffineCoupling, Chain, Flow, LULinear

BOUND = 5.0


class Contestant(NamedTuple):
    """A flow in some library: how it evaluates and samples, and its parameters."""

    module: nn.Module
    log_prob: Work
    sample: Work
    note: str = ""


def network(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    """The conditioner that everybody gets."""
    return mlp(inputs, outputs, (hidden, hidden), nn.ReLU)


def ours(features: int, hidden: int, steps: int) -> Flow:
    """Steps of LU and affine coupling, away from the identity."""
    mask = torch.arange(features) < features // 2
    parts = []
    for _ in range(steps):
        linear = LULinear(features)
        with torch.no_grad():
            linear.factors.normal_(0, 0.3 / features**0.5)
        coupling = AffineCoupling(mask, (hidden, hidden), activation=nn.ReLU)
        with torch.no_grad():
            for parameter in coupling.conditioner[-1].parameters():
                parameter.normal_(0, 0.3 / hidden**0.5)
        parts += [linear, coupling]
    return Flow(StandardNormal(features), Chain(*parts))


def steps_of(flow: Flow) -> list[tuple[LULinear, AffineCoupling]]:
    """The pairs of layers of :func:`ours`."""
    return list(zip(flow.transform.parts[::2], flow.transform.parts[1::2], strict=True))


class NflowsCoupling(nflows.transforms.AffineCouplingTransform):
    """Theirs, with our scale, exp(−5 tanh(raw/5)), and our shift."""

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = transform_params.chunk(2, -1)
        scale = torch.exp(-BOUND * torch.tanh(raw / BOUND))
        return scale, -mean * scale


class NoContext(nn.Module):
    """A network with the signature that nflows calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.net(x)


def nflows_flow(flow: Flow, x: Tensor, hidden: int) -> Contestant:
    """The flow in nflows."""
    features, parts = x.shape[-1], []
    for linear, coupling in steps_of(flow):
        theirs = nflows.transforms.LULinear(features)
        with torch.no_grad():
            factors = linear.factors
            theirs.lower_entries.copy_(factors[theirs.lower_indices])
            theirs.upper_entries.copy_(factors[theirs.upper_indices])
            theirs.unconstrained_upper_diag.copy_(torch.log(torch.expm1(factors.diagonal().exp() - theirs.eps)))
            theirs.bias.copy_(linear.bias)
        moved = NflowsCoupling((~coupling.mask).int(), lambda i, o: NoContext(network(i, o, hidden)))
        moved.transform_net.net.load_state_dict(coupling.conditioner.state_dict())
        parts += [theirs, moved]
    module = NflowsFlow(nflows.transforms.CompositeTransform(parts), NflowsNormal([features]))
    return Contestant(module, lambda: module.log_prob(x), lambda: module.sample(len(x)))


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


def zuko_flow(flow: Flow, x: Tensor, hidden: int) -> Contestant:
    """The flow in zuko."""
    features, parts = x.shape[-1], []
    for linear, coupling in steps_of(flow):
        # Theirs has the diagonal in L and W = L U without bias: P L U = (L D)(D⁻¹ U).
        lower, upper = torch.linalg.lu(linear.matrix().detach())[1:]
        diagonal = upper.diagonal()
        packed = (lower * diagonal).tril() + (upper / diagonal[:, None]).triu(1)
        moved = zuko.flows.coupling.GeneralCouplingTransform(
            features, mask=coupling.mask, univariate=Standardise, hidden_features=(hidden, hidden)
        )
        count = len(coupling.moved)
        interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
        target = [layer for layer in moved.hyper if hasattr(layer, "weight")]
        source = [layer for layer in coupling.conditioner if isinstance(layer, nn.Linear)]
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
        zuko.distributions.DiagNormal, torch.zeros(features).to(x), torch.ones(features).to(x), buffer=True
    )
    module = zuko.flows.Flow(parts, base)
    return Contestant(module, lambda: module().log_prob(x), lambda: module().sample((len(x),)))


def normflows_flow(flow: Flow, x: Tensor, hidden: int) -> Contestant:
    """The flow in normflows."""
    features, parts = x.shape[-1], []
    for linear, coupling in steps_of(flow):
        lu = normflows.flows.LULinearPermute(features)
        lu.permutation._permutation = torch.arange(features)
        theirs = lu.linear
        with torch.no_grad():
            factors = linear.factors
            theirs.lower_entries.copy_(factors[theirs.lower_indices])
            theirs.upper_entries.copy_(factors[theirs.upper_indices])
            theirs.unconstrained_upper_diag.copy_(torch.log(torch.expm1(factors.diagonal().exp() - theirs.eps)))
            theirs.bias.copy_(linear.bias)
        count = len(coupling.moved)
        net = network(len(coupling.passed), 2 * count, hidden)
        net.load_state_dict(coupling.conditioner.state_dict())
        interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
        with torch.no_grad():
            net[-1].weight.copy_(net[-1].weight[interleave].clone())
            net[-1].bias.copy_(net[-1].bias[interleave].clone())
        parts += [normflows.flows.AffineCouplingBlock(net), lu]
    # Their list runs from noise to data; within a step, noise → coupling⁻¹ → LU⁻¹ → data.
    ordered = []
    for block, lu in reversed(list(zip(parts[::2], parts[1::2], strict=True))):
        ordered += [block, lu]
    module = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features, trainable=False), ordered)
    return Contestant(module, lambda: module.log_prob(x), lambda: module.sample(len(x)), "log σ is raw, without bound")


def freia_flow(flow: Flow, x: Tensor, hidden: int) -> Contestant:
    """The flow in FrEIA, which has no LU layer."""
    features = x.shape[-1]
    inn = FrEIA.framework.SequenceINN(features)
    for _ in range(len(steps_of(flow))):
        inn.append(
            FrEIA.modules.AllInOneBlock,
            subnet_constructor=lambda i, o: network(i, o, hidden),
            affine_clamping=BOUND,
            permute_soft=True,
        )

    inn.to(x)

    def log_prob() -> Tensor:
        z, log_det = inn(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * features * 1.8378770664093453

    note = "a fixed rotation and an activation norm instead of LU"
    return Contestant(inn, log_prob, lambda: inn(torch.randn(len(x), features).to(x), rev=True)[0], note)
