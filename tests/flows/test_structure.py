"""Who depends on whom: block structure of couplings, triangular structure of autoregressive layers, masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor
from torch.autograd.functional import jacobian

from flows import AffineCoupling, GaussianAutoregressive, MaskedLinear, MaskedMLP, MaskedResidualMLP
from flows.networks.masked import MaskedNetwork
from tests.cases.transforms import CONTEXT, order, vector
from tests.laws.transforms import randomise


def connected(transform: GaussianAutoregressive | AffineCoupling, x: Tensor, inverse: bool) -> Tensor:
    apply = transform.inverse if inverse else transform.forward
    context = torch.full((CONTEXT,), 0.7, dtype=x.dtype) if transform.context_features else None
    return jacobian(lambda x: apply(x, context)[0], x) != 0


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize("mask", [m for m in itertools.product([True, False], repeat=4) if not all(m) and any(m)])
def test_a_coupling_moves_the_others_given_those_that_pass(
    mask: tuple[bool, ...], context: int, inverse: bool, generator: Generator
) -> None:
    layer = randomise(AffineCoupling(mask, (8,), context), generator)
    keep = torch.tensor(mask)
    expected = torch.eye(4, dtype=torch.bool) | (~keep[:, None] & keep[None, :])
    assert connected(layer, vector(generator, 4), inverse).equal(expected)
    assert layer.mask.equal(keep)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize("features", [1, 2, 5])
def test_an_autoregressive_jacobian_is_triangular_in_its_order(
    features: int, context: int, inverse: bool, generator: Generator
) -> None:
    for _ in range(4):
        places = order(generator, features)
        layer = randomise(GaussianAutoregressive(features, (16, 16), places, context), generator)
        depends = connected(layer, vector(generator, features), inverse)
        # All of the triangle, not only nothing but it: every feature sees every one before it.
        assert depends[places][:, places].equal(torch.ones(features, features, dtype=torch.bool).tril())


def test_narrow_layers_still_see_the_first_and_the_last(generator: Generator) -> None:
    net = randomise(MaskedMLP(range(20), 1, hidden=(2,)), generator)
    depends = jacobian(net, vector(generator, 20)) != 0
    assert depends[19, 18]
    assert depends[1, 0]
    assert not depends.triu().any()


def test_the_context_reaches_the_first_output_through_the_hidden_layers(generator: Generator) -> None:
    places = torch.tensor([2, 0, 1])
    net = randomise(MaskedMLP(places, 2, (8, 8), CONTEXT), generator)
    hidden = net.layers[:-1]
    inputs = torch.cat([vector(generator, 3), vector(generator, CONTEXT)])
    to_hidden = jacobian(hidden, inputs)
    seen_by_first = net.layers[-1].mask[places[0]]
    assert seen_by_first.any()
    assert (to_hidden[seen_by_first][:, 3:] != 0).all()
    assert (to_hidden[seen_by_first][:, :3] == 0).all()
    # And not only linearly, as it would if it came in beside the hidden layers.
    out = lambda context: net(torch.cat([inputs[:3], context]))[places[0]]  # noqa: E731
    assert (torch.autograd.functional.hessian(out, inputs[3:]) != 0).all()


@pytest.mark.parametrize("context", [0, CONTEXT])
def test_the_dead_weights_are_the_masked_ones(context: int, generator: Generator) -> None:
    layer = randomise(GaussianAutoregressive(4, (9, 9), order(generator, 4), context), generator)
    x = torch.stack([vector(generator, 4) for _ in range(30)])
    given = torch.stack([vector(generator, CONTEXT) for _ in range(30)]) if context else None
    z, log_det = layer.forward(x, given)
    (z.square().sum() + (log_det * x[:, 0]).sum()).backward()
    for module in layer.modules():
        if isinstance(module, MaskedLinear):
            assert module.weight.grad is not None
            # A hidden unit of the highest degree feeds nothing but what is after it, and something is.
            assert (module.weight.grad != 0).equal(module.mask)


def test_hidden_degrees_make_a_couplings_network(generator: Generator) -> None:
    """Two features pass, two follow: with all hidden degrees 2 the masks are a coupling's."""
    net = MaskedMLP([0, 1, 2, 3], 2, hidden_degrees=[torch.full((5,), 2), torch.full((6,), 2)])
    first, second, last = (m.mask for m in net.layers if isinstance(m, MaskedLinear))
    assert first.equal(torch.tensor([[True, True, False, False]]).expand(5, 4))
    assert second.all()
    assert last.equal(torch.tensor([False, False, True, True] * 2)[:, None].expand(8, 6))


def test_the_inverse_never_looks_at_features_to_come(generator: Generator) -> None:
    """A network that is infinite wherever it looks at a wrong feature gives finite samples."""
    layer = randomise(GaussianAutoregressive(3, (8,), [1, 2, 0]), generator)
    z = vector(generator, 3)
    expected = layer.inverse(z)
    net = layer.conditioner
    places = layer.order.argsort()

    class Trap(torch.nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = net(x)
            to_come = torch.cat([places > self.calls] * 2)
            self.calls += 1
            return torch.where(to_come, torch.full_like(y, torch.inf), y)

    layer.conditioner = Trap()
    z = z.requires_grad_()
    x, log_det = layer.inverse(z)
    assert x.equal(expected[0])
    assert log_det.equal(expected[1])
    assert torch.autograd.grad(x.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("bound", [0.5, 5.0])
def test_log_scales_stay_within_the_bound(bound: float, generator: Generator) -> None:
    x = torch.stack([1e6 * vector(generator, 3) for _ in range(20)])
    for layer in (
        randomise(AffineCoupling([True, True, False], (8,), log_scale_bound=bound), generator, scale=100.0),
        randomise(GaussianAutoregressive(3, (8,), log_scale_bound=bound), generator, scale=100.0),
    ):
        z, log_det = layer.forward(x)
        assert z.isfinite().all()
        assert log_det.abs().max() <= 3 * bound
        # An odd number of saturated log-scales cannot cancel: the hostile input does saturate them.
        assert log_det.abs().max() >= 0.99 * bound
        assert layer.inverse(z)[1].isfinite().all()


def test_masks_and_orders_are_state_and_not_parameters() -> None:
    layer = GaussianAutoregressive(3, (4,), order=[2, 0, 1])
    assert {"order", "conditioner.layers.0.mask"} <= set(layer.state_dict())
    assert not any("mask" in name or "order" in name for name, _ in layer.named_parameters())


def reach(network: MaskedNetwork) -> Tensor:
    """Which inputs each output can see, ``[outputs, inputs]``."""
    seen: Tensor | None = None
    for stage in network.stages():
        mask = stage.linear.mask.long()
        seen = mask if seen is None else mask @ seen
    assert seen is not None
    return seen > 0


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("hidden", [(1,), (2,), (3,), (64, 1), (2, 2), (64, 64)], ids=repr)
def test_however_narrow_every_feature_reaches_an_output(hidden: tuple[int, ...], context: int) -> None:
    """All but the last in the order, and the context every output; one unit cannot do both, and says so."""
    order = [2, 0, 3, 1]
    if 1 in hidden and context:
        with pytest.warns(UserWarning, match="MaskedMLP: a hidden layer of one unit carries the context alone"):
            network = MaskedMLP(order, 2, hidden, context)
        assert not reach(network)[:, :4].any()
    else:
        network = MaskedMLP(order, 2, hidden, context)
        assert reach(network)[:, order[:-1]].any(0).all()
    assert reach(network)[:, 4:].all()


def test_a_narrow_residual_network_too() -> None:
    assert reach(MaskedResidualMLP(range(4), 1, hidden=1, blocks=1))[:, :3].any(0).all()
    with pytest.warns(UserWarning, match="MaskedResidualMLP: a hidden layer of one unit"):
        MaskedResidualMLP(range(4), 1, hidden=1, context_features=1)
    MaskedMLP([0], hidden=(1,), context_features=2)  # one feature has no other to see
