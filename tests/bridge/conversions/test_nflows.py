"""The same density before and after: transforms and flows from and to nflows."""

from __future__ import annotations

from collections.abc import Callable

import nflows.distributions
import nflows.flows
import nflows.transforms
import pytest
import torch
from torch import Generator

from bridge import flow_from_nflows, from_nflows, linear_from_nflows, to_nflows
from bridge.conversions.nflows_transforms import FromNflows, ToNflows
from density import StandardNormal, mlp
from flows import ActNorm, AffineCoupling, Flow, LULinear, Permutation, QRLinear, glow, linear_flow, maf, real_nvp
from flows.layers.linear_maps.linear import Linear
from tests.bridge.comparison import BAR, Record, normal, relative
from tests.laws.transforms import randomise

LINEAR = [LULinear, QRLinear]

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")

THEIRS: dict[str, Callable[[], nflows.transforms.Transform]] = {
    "LU": lambda: nflows.transforms.LULinear(4),
    "QR": lambda: nflows.transforms.QRLinear(4, 3),
    "SVD": lambda: nflows.transforms.SVDLinear(4, 2),
    "naive": lambda: nflows.transforms.NaiveLinear(4),
}


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("name", THEIRS)
def test_linear_layers_of_nflows_become_ours(
    name: str, linear: type[Linear], generator: Generator, record_measurement: Record
) -> None:
    theirs = randomise(THEIRS[name](), generator, 0.4)
    ours = linear_from_nflows(theirs, linear)
    assert isinstance(ours, linear)
    x = normal(generator, 40, 4)
    base = nflows.distributions.StandardNormal([4]).double()
    before = nflows.flows.Flow(theirs, base).log_prob(x)
    after = Flow(StandardNormal(4).double(), ours).log_prob(x)
    record_measurement("conversion: nflows' linear layers → ours", relative(before, after), BAR)
    assert all(p.requires_grad for p in ours.parameters())


def test_flows_of_nflows_become_ours(generator: Generator, record_measurement: Record) -> None:
    transform = nflows.transforms.CompositeTransform(
        [
            nflows.transforms.MaskedAffineAutoregressiveTransform(4, hidden_features=8),
            nflows.transforms.ReversePermutation(4),
            nflows.transforms.LULinear(4),
            nflows.transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                4, 8, num_bins=5, tails="linear", tail_bound=4.0
            ),
        ]
    )
    theirs = randomise(nflows.flows.Flow(transform, nflows.distributions.StandardNormal([4])), generator, 0.2)
    ours = flow_from_nflows(theirs)
    x = normal(generator, 40, 4)
    record_measurement("conversion: nflows' flow → ours", relative(theirs.log_prob(x), ours.log_prob(x)), BAR)
    assert ours.base.reference.dtype == torch.float64
    assert {id(p) for p in ours.parameters()} == {id(p) for p in theirs.parameters()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_flow(4),
        lambda: real_nvp(4, 3, (8,), base=StandardNormal),
        lambda: maf(4, 2, (8,), base=StandardNormal),
        lambda: glow(4, 2, (8,), base=StandardNormal),
    ],
)
def test_our_flows_go_to_nflows_and_back(
    make: Callable[[], Flow], generator: Generator, record_measurement: Record
) -> None:
    flow = randomise(make(), generator)
    there = to_nflows(flow.transform)
    theirs = nflows.flows.Flow(there, nflows.distributions.StandardNormal([4]).double())
    x = normal(generator, 40, 4)
    record_measurement("conversion: our flow → nflows", relative(flow.log_prob(x), theirs.log_prob(x)), BAR)
    assert from_nflows(there, 4) is flow.transform
    assert flow_from_nflows(theirs).transform is flow.transform


def test_wrapping_twice_unwraps(generator: Generator) -> None:
    theirs = nflows.transforms.ReversePermutation(3)
    wrapped = from_nflows(theirs, 3)
    assert isinstance(wrapped, FromNflows)
    assert to_nflows(wrapped) is theirs
    assert isinstance(to_nflows(Permutation([1, 0])), ToNflows)
    conditional = AffineCoupling([True, False], (4,), context_features=3)
    assert from_nflows(to_nflows(conditional), 2, 3) is conditional


def test_what_nflows_has_otherwise_says_why() -> None:
    with pytest.raises(TypeError, match="takes an nflows Transform"):
        from_nflows(LULinear(3), 3)
    with pytest.raises(ValueError, match="ActNorm has 3 features and 0 context features; got 4 and 0"):
        from_nflows(to_nflows(ActNorm(3)), 4)
    with pytest.raises(TypeError, match=r"a Flow is a density\. Convert flow\.transform"):
        to_nflows(linear_flow(3))
    with pytest.raises(TypeError, match="takes one of our Transforms"):
        to_nflows(nflows.transforms.ReversePermutation(3))
    with pytest.raises(TypeError, match="ReversePermutation has no weight"):
        linear_from_nflows(nflows.transforms.ReversePermutation(3))
    with pytest.raises(TypeError, match="takes an nflows Flow; got ReversePermutation"):
        flow_from_nflows(nflows.transforms.ReversePermutation(3))
    permutation = nflows.transforms.ReversePermutation(3)
    diagonal = nflows.distributions.ConditionalDiagonalNormal([3])
    with pytest.raises(ValueError, match="its base is ConditionalDiagonalNormal"):
        flow_from_nflows(nflows.flows.Flow(permutation, diagonal))
    image = nflows.distributions.StandardNormal([1, 2, 2])
    with pytest.raises(ValueError, match=r"shape \[1, 2, 2\]"):
        flow_from_nflows(nflows.flows.Flow(permutation, image))
    embedded = nflows.flows.Flow(permutation, nflows.distributions.StandardNormal([3]), mlp(2, 4, (4,)))
    with pytest.raises(ValueError, match="embeds its context by a network"):
        flow_from_nflows(embedded)
