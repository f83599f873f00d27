"""nflows as an oracle, by copying weights; its transforms in our chains and ours in its."""

from __future__ import annotations

import threading

import pytest
import torch
from nflows import distributions as nflows_distributions
from nflows import flows as nflows_flows
from nflows import transforms as nflows_transforms
from nflows.nn.nets import ResidualNet
from nflows.utils import torchutils
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from bridge.conversions.nflows_transforms import FromNflows, ToNflows
from density import StandardNormal
from flows import ActNorm, AffineCoupling, Chain, Flow, GaussianAutoregressive, LULinear, MaskedLinear, MaskedMLP
from tests.cases.transforms import CONTEXT, vector
from tests.laws.transforms import randomise

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")

# Two ways to the same float64 numbers.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
BOUND = 5.0


def rows(generator: Generator, n: int, features: int) -> Tensor:
    return torch.stack([vector(generator, features) for _ in range(n)])


class Converted(nn.Module):
    """An nflows net for z = s x + t, as a net for z = (x − μ)/σ: μ = −t/s, raw = bound · atanh(−log s / bound)."""

    def __init__(self, net: nn.Module, features: int, context: int, *, coupling: bool) -> None:
        super().__init__()
        self.net, self.features, self.context, self.coupling = net, features, context, coupling

    def forward(self, inputs: Tensor) -> Tensor:
        x, context = inputs.split([inputs.shape[-1] - self.context, self.context], -1)
        batched = x.reshape(-1, x.shape[-1])
        out = self.net(batched, context.reshape(-1, self.context) if self.context else None)
        if self.coupling:
            shift, raw = out[:, : self.features], out[:, self.features :]
            scale = torch.sigmoid(raw + 2) + 1e-3
        else:
            raw, shift = out.reshape(-1, self.features, 2).unbind(-1)
            scale = F.softplus(raw) + 1e-3
        parameters = torch.cat([-shift / scale, BOUND * torch.atanh(-scale.log() / BOUND)], -1)
        return parameters.reshape(*x.shape[:-1], -1)


def compare(
    ours: AffineCoupling | GaussianAutoregressive | LULinear,
    theirs: nflows_transforms.Transform,
    x: Tensor,
    context: Tensor | None = None,
) -> None:
    for direction in ("forward", "inverse"):
        z, log_det = getattr(ours, direction)(x, context)
        expected, expected_log_det = getattr(theirs, direction)(x, context)
        torch.testing.assert_close(z, expected, **EXACT)
        torch.testing.assert_close(log_det, expected_log_det, **EXACT)


@pytest.mark.parametrize("context", [0, CONTEXT])
def test_affine_coupling_agrees(context: int, generator: Generator) -> None:
    mask = torch.tensor([True, False, True, False])

    def net(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(inputs, outputs, hidden_features=8, context_features=context or None, num_blocks=1)

    # Theirs marks what moves, ours what passes.
    theirs = randomise(nflows_transforms.AffineCouplingTransform((~mask).int(), net), generator)
    ours = AffineCoupling(mask, (), context, BOUND, Converted(theirs.transform_net, 2, context, coupling=True)).double()
    compare(ours, theirs, rows(generator, 9, 4), rows(generator, 9, context) if context else None)


def test_masked_autoregressive_agrees(generator: Generator) -> None:
    theirs = randomise(nflows_transforms.MaskedAffineAutoregressiveTransform(4, hidden_features=8), generator)
    net = Converted(theirs.autoregressive_net, 4, 0, coupling=False)
    ours = GaussianAutoregressive(4, log_scale_bound=BOUND, conditioner=net).double()
    compare(ours, theirs, rows(generator, 9, 4))


def test_masked_network_agrees(generator: Generator) -> None:
    """Their network with one plain block has two hidden layers; ours, with the same degrees."""
    theirs = nflows_transforms.made.MADE(
        5, hidden_features=11, num_blocks=1, output_multiplier=2, use_residual_blocks=False
    )
    theirs = randomise(theirs, generator)
    copied = [theirs.initial_layer, theirs.blocks[0].linear, theirs.final_layer]
    ours = MaskedMLP(range(5), 2, activation=nn.ReLU, hidden_degrees=[layer.degrees for layer in copied[:2]]).double()
    # Theirs interleaves a feature's outputs, ours lists all first ones and then all second ones.
    interleave = torch.arange(10).reshape(5, 2).T.reshape(-1)
    layers = [layer for layer in ours.layers if isinstance(layer, MaskedLinear)]
    for layer, copy in zip(layers, copied, strict=True):
        rows_of = interleave if copy is theirs.final_layer else slice(None)
        with torch.no_grad():
            layer.weight.copy_(copy.weight[rows_of])
            layer.bias.copy_(copy.bias[rows_of])
        assert layer.mask.equal(copy.mask[rows_of] != 0)
    x = rows(generator, 9, 5)
    torch.testing.assert_close(ours(x), theirs(x)[:, interleave], **EXACT)


def test_lu_agrees(generator: Generator) -> None:
    theirs = randomise(nflows_transforms.LULinear(5), generator)
    lower, upper = theirs._create_lower_upper()
    ours = LULinear(5).double()
    with torch.no_grad():
        ours.factors.copy_(lower.tril(-1) + upper.triu(1) + upper.diagonal().log().diag())
        ours.bias.copy_(theirs.bias)  # type: ignore[union-attr]
    compare(ours, theirs, rows(generator, 9, 5))
    torch.testing.assert_close(ours.matrix(), theirs.weight(), **EXACT)


def spline(tail_bound: float) -> nflows_transforms.Transform:
    return nflows_transforms.PiecewiseRationalQuadraticCDF([2], num_bins=5, tails="linear", tail_bound=tail_bound)


def near(bound: float, dtype: torch.dtype) -> Tensor:
    """Both bounds, their neighbours on both sides and points a few roundings off."""
    exact = torch.tensor([bound, -bound], dtype=dtype)
    points = [exact]
    inward = outward = exact
    for _ in range(3):
        inward, outward = torch.nextafter(inward, torch.zeros_like(exact)), torch.nextafter(outward, 2 * exact)
        points += [inward, outward]
    return torch.stack(points)


def test_the_known_boundary_error_is_still_there() -> None:
    """If nflows ever mends it, the guard may go."""
    with pytest.raises(RuntimeError, match="out of bounds"):
        spline(50.0).forward(torch.full((1, 2), 50.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bound", [1.0, 3.0, 50.0, 1000.0, 1e7, 1e12])
def test_splines_stay_right_at_their_bounds(bound: float, dtype: torch.dtype, generator: Generator) -> None:
    wrapped = randomise(FromNflows(spline(bound), 2), generator).to(dtype)
    x = near(bound, dtype).requires_grad_()
    # The tails are the identity with slope 1 and the spline meets them with slope 1. Inside, its slope changes by up to
    # 1/(bin width), and widths are at least 1e-3 of the range; a few roundings there move the log-slope by this much.
    tolerance = 2e4 * torch.finfo(dtype).eps
    for direction in (wrapped.forward, wrapped.inverse):
        y, log_det = direction(x)
        torch.testing.assert_close(y, x, rtol=tolerance, atol=0)
        torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=tolerance)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, torch.ones_like(x), rtol=0, atol=tolerance)


def test_the_guard_reaches_splines_inside_a_composite() -> None:
    first, second = spline(50.0), spline(64.0)
    composite = nflows_transforms.CompositeTransform(
        [nflows_transforms.ReversePermutation(2), first, nflows_transforms.CompositeTransform([second])]
    )
    x = torch.full((3, 2), 50.0)
    z, log_det = FromNflows(composite, 2).forward(x)
    expected, expected_log_det = second.forward(x)  # x is on the first's bound, and inside the second's
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(log_det, expected_log_det)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_guard_changes_nothing_elsewhere(inverse: bool, generator: Generator) -> None:
    wrapped = randomise(FromNflows(spline(3.0), 2), generator)
    x = 2 * rows(generator, 200, 2)
    ours = wrapped.inverse(x) if inverse else wrapped.forward(x)
    theirs = wrapped.transform.inverse(x) if inverse else wrapped.transform.forward(x)
    assert ours[0].equal(theirs[0])
    assert ours[1].equal(theirs[1])


def test_the_guard_leaves_nflows_as_it_was() -> None:
    wrapped = FromNflows(spline(50.0), 2)
    wrapped.forward(torch.full((1, 2), 50.0))
    with pytest.raises(ValueError, match=r"outside its domain, from 2\.0 to 2\.0"):
        FromNflows(nflows_transforms.PiecewiseRationalQuadraticCDF([2]), 2).forward(torch.full((1, 2), 2.0))
    threads = [threading.Thread(target=wrapped.forward, args=(torch.full((50, 2), 50.0),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torchutils.searchsorted.__module__ == "nflows.utils.torchutils"


def test_ours_inside_an_nflows_flow(generator: Generator) -> None:
    """The same layers as an nflows flow and as ours: one density, and theirs samples."""
    coupling = randomise(AffineCoupling([True, False, False], (8,), CONTEXT), generator)
    linear = randomise(LULinear(3), generator)
    norm = randomise(ActNorm(3), generator)
    theirs = nflows_flows.Flow(
        nflows_transforms.CompositeTransform([ToNflows(norm), ToNflows(coupling), ToNflows(linear)]),
        nflows_distributions.StandardNormal([3]),
    ).double()
    ours = Flow(StandardNormal(3).double(), Chain(norm, coupling, linear))
    x, context = rows(generator, 9, 3), rows(generator, 9, CONTEXT)
    torch.testing.assert_close(ours.log_prob(x, context), theirs.log_prob(x, context), **EXACT)
    assert dict(theirs.named_parameters()).keys() >= {"_transform._transforms.0.transform.shift"}
    back, _ = ToNflows(linear).inverse(ToNflows(linear)(x)[0])
    torch.testing.assert_close(back, x)


def test_a_spline_flow_of_nflows_parts(generator: Generator) -> None:
    wrapped = randomise(FromNflows(spline(3.0), 2), generator)
    flow = Flow(StandardNormal(2).double(), Chain(randomise(LULinear(2), generator), wrapped))
    x, log_prob = flow.sample_with_log_prob(500, generator=generator)
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    (-flow.log_prob(x.detach()).mean()).backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_construction_refuses() -> None:
    with pytest.raises(TypeError, match="takes an nflows Transform; got a LULinear"):
        FromNflows(LULinear(2), 2)
    with pytest.raises(TypeError, match="takes one of our Transforms; got a ReversePermutation"):
        ToNflows(nflows_transforms.ReversePermutation(2))
    with pytest.raises(ValueError, match="features must be a positive int"):
        FromNflows(nflows_transforms.ReversePermutation(2), 0)
    with pytest.raises(ValueError, match=r"FromNflows expects x of shape \[\*batch, 2\]; got \[1, 3\]"):
        FromNflows(nflows_transforms.ReversePermutation(2), 2).forward(torch.zeros(1, 3))
