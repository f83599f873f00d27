"""A flow as the VAE that it is: shapes, equality, economy, refusals. The theorems are in tests/equivalence."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from bridge import DeltaLink, FlowVAE, LinkChain
from density import Categorical, Density, Kind, Measure, StandardNormal, Training
from flows import (
    Affine,
    AffineCoupling,
    Flow,
    LULinear,
    Transform,
    glow,
    linear_flow,
    maf,
    real_nvp,
)
from lvm.evidence import gap
from tests.laws.transforms import randomise

FLOWS: dict[str, Callable[[], Flow]] = {
    "linear": lambda: linear_flow(3),
    "coupling": lambda: real_nvp(3, 2, (6,)),
    "autoregressive": lambda: maf(3, 2, (6,)),
    "flow on a flow": lambda: Flow(linear_flow(3), LULinear(3)),
}


class Spy(Transform):
    """z = 2x; counts what is asked of it."""

    features = 3

    def __init__(self) -> None:
        super().__init__()
        self.forwards: list[torch.Size] = []
        self.inverses: list[torch.Size] = []

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.forwards.append(x.shape)
        return 2 * x, x.new_full(x.shape[:-1], 3 * torch.tensor(2.0).log().item())

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.inverses.append(z.shape)
        return z / 2, z.new_full(z.shape[:-1], -3 * torch.tensor(2.0).log().item())


def points(generator: Generator, *batch: int) -> Tensor:
    return torch.randn(*batch, 3, generator=generator, dtype=torch.float64)


def random_flow(name: str, generator: Generator) -> Flow:
    return randomise(FLOWS[name](), generator)


@pytest.mark.parametrize("name", FLOWS)
def test_every_log_weight_is_the_log_likelihood(name: str, generator: Generator) -> None:
    flow = random_flow(name, generator)
    vae = FlowVAE(flow)
    for batch in ((), (5,), (2, 4)):
        x = points(generator, *batch)
        log_weights = vae.log_weights(x, 6)
        assert log_weights.shape == (6, *batch)
        torch.testing.assert_close(log_weights, flow.log_prob(x).expand(6, *batch), rtol=1e-12, atol=1e-12)
        assert torch.equal(log_weights, log_weights[:1].expand_as(log_weights))
        torch.testing.assert_close(vae.log_prob(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(vae.elbo(x, draws=3), flow.log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_samples_are_the_flows(name: str, generator: Generator) -> None:
    flow = random_flow(name, generator)
    vae = FlowVAE(flow)
    of_flow = flow.sample(5, generator=Generator().manual_seed(1))
    assert vae.sample(5, generator=Generator().manual_seed(1)).equal(of_flow)
    x, log_prob = vae.sample_with_log_prob(5, generator=Generator().manual_seed(1))
    assert x.equal(of_flow)
    torch.testing.assert_close(log_prob, flow.log_prob(of_flow), rtol=1e-9, atol=1e-9)


def test_claims(generator: Generator) -> None:
    vae = FlowVAE(random_flow("coupling", generator))
    x = points(generator, 5)
    claim = vae.log_density(x)
    assert claim.kind is Kind.EXACT
    assert claim.measure is vae.measure is Measure.LEBESGUE
    assert claim.method == "tight ELBO of delta encoder and decoder"
    report = gap(vae, x, draws=3)
    assert report.difference.kind is Kind.EXACT
    assert report.difference.value.abs().max() < 1e-12
    assert (claim - random_flow("linear", generator).log_density(x)).kind is Kind.EXACT


def test_the_transform_runs_once_whatever_the_draws(generator: Generator) -> None:
    spy = Spy()
    vae = FlowVAE(Flow(StandardNormal(3).double(), spy))
    x = points(generator, 7)
    vae.log_weights(x, 1000)
    assert spy.forwards == [(7, 3)]
    vae.elbo(x, draws=100)
    vae.log_prob(x)
    assert spy.forwards == [(7, 3)] * 3
    assert spy.inverses == []
    vae.sample(4, generator=generator)
    assert spy.inverses == [(4, 3)]
    assert len(spy.forwards) == 3


def test_the_link(generator: Generator) -> None:
    transform = randomise(LULinear(3), generator)
    link = DeltaLink(transform)
    assert link.tight
    assert link.deterministic
    assert (link.features, link.latent_features) == (3, 3)
    x = points(generator, 4)
    z, log_ratio = link.infer(x, 5)
    assert (z.shape, log_ratio.shape) == ((5, 4, 3), (5, 4))
    expected, log_det = transform(x)
    assert z.equal(expected.expand(5, 4, 3))
    assert log_ratio.equal(log_det.expand(5, 4))
    torch.testing.assert_close(link.generate(z), x.expand(5, 4, 3), rtol=1e-12, atol=1e-12)


def test_parameters_are_shared(generator: Generator) -> None:
    flow = random_flow("linear", generator)
    vae = FlowVAE(flow)
    assert {id(p) for p in vae.parameters()} == {id(p) for p in flow.parameters()}
    x = points(generator, 4)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1)
    torch.testing.assert_close(vae.log_prob(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [50, 9000])
@pytest.mark.parametrize("name", ["coupling", "linear"])
def test_fit_is_maximum_likelihood(name: str, n: int, generator: Generator) -> None:
    """The same seed: the same start from the data (activation norms), the same steps, the same weights."""
    flow = random_flow(name, generator)
    twin = deepcopy(flow)
    x = 3 + points(generator, n) @ torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x[::2] *= 2
    vae = FlowVAE(twin)
    training = Training(epochs=2, batch_size=2000)
    before = vae.log_density(x).mean
    by_flow = flow.fit(x, training, generator=Generator().manual_seed(2))
    by_vae = vae.fit(x, training, generator=Generator().manual_seed(2))
    for a, b in zip(flow.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert by_vae.objective == pytest.approx(by_flow.objective, rel=1e-9)
    assert vae.log_density(x).mean > before


def test_fit_moves_to_the_data() -> None:
    vae = FlowVAE(linear_flow(3))
    vae.fit(torch.randn(20, 3, dtype=torch.float64), Training(epochs=1))
    assert vae.reference.dtype == torch.float64


def test_a_transform_of_any_width_gets_its_width_from_the_flow(generator: Generator) -> None:
    affine = Affine(1.0, 2.0).double()
    flow = Flow(StandardNormal(3).double(), affine)
    x = points(generator, 4)
    torch.testing.assert_close(FlowVAE(flow).log_weights(x, 2), flow.log_prob(x).expand(2, 4), rtol=1e-14, atol=1e-14)
    assert DeltaLink(affine, 3).features == 3
    with pytest.raises(ValueError, match=r"needs to know the number of features; Affine takes any"):
        DeltaLink(affine)
    with pytest.raises(ValueError, match="LULinear has 3 features; got features=4"):
        DeltaLink(LULinear(3), 4)


CONDITIONAL: dict[str, Callable[[], Flow]] = {
    "transform": lambda: glow(3, 2, (4,), context_features=2),
    "base": lambda: Flow(glow(3, 2, (4,), context_features=2), LULinear(3)),
    "both": lambda: Flow(glow(3, 2, (4,), context_features=2), AffineCoupling([True, False, True], (4,), 2)),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_flow_is_a_conditional_vae(name: str, generator: Generator) -> None:
    """Values and draws are the flow's at any batch shapes that broadcast, and contexts are refused as a flow's are."""
    flow = randomise(CONDITIONAL[name](), generator)
    vae = FlowVAE(flow)
    assert vae.context_features == vae.link.context_features == 2
    x, context = points(generator, 5), points(generator, 4, 1)[..., :2]
    expected = flow.log_prob(x, context)
    assert vae.log_prob(x, context).equal(expected)
    assert vae.elbo(x, context=context, draws=3).equal(expected)
    assert vae.log_weights(x, 6, context=context).equal(expected.expand(6, 4, 5))
    assert vae.log_density(x[:4], context=context[:, 0]).kind is Kind.EXACT
    drawn = [m.sample(3, context=context, generator=Generator().manual_seed(1)) for m in (flow, vae)]
    assert drawn[0].equal(drawn[1])
    for call in (vae.log_prob, vae.elbo, vae.log_density, vae.fit):
        with pytest.raises(ValueError, match=r"FlowVAE needs a context of shape \[\*batch, 2\]; got none"):
            call(x)
    with pytest.raises(ValueError, match=r"FlowVAE expects a context of shape \[\*batch, 2\]; got \[5, 3\]"):
        vae.elbo(x, context=x)
    if name == "transform":
        with pytest.raises(ValueError, match=r"DeltaLink: StandardisedContext needs a context of 2 features; got .*=3"):
            DeltaLink(flow.transform, 3, 3)
        with pytest.raises(
            ValueError, match=r"LinkChain joins x to z alone; link 1 \(DeltaLink\) needs a context of 2"
        ):
            LinkChain(DeltaLink(LULinear(3)), vae.link)


@pytest.mark.parametrize("not_a_flow", [LULinear(3), StandardNormal(3), Categorical(3), None])
def test_only_a_flow_is_a_flow(not_a_flow: Density) -> None:
    with pytest.raises(TypeError, match=r"FlowVAE takes a Flow; got (LULinear|StandardNormal|Categorical|NoneType)"):
        FlowVAE(not_a_flow)  # type: ignore[arg-type]
