"""Links: what follows from infer and generate, and what the parts of one take from data."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import Abs, DeltaLink, FlowVAE, LinkChain, LooseLayeredModel, TightLayeredModel, UniformDequantisation
from density import ConditionalGaussian, FixedScale, Measure, Rescaled, Standardisation, StandardNormal, Training
from flows import ActNorm, Flow, LULinear
from lvm import ExactLayeredModel, LayeredModel, Link, StochasticLink
from lvm.layered import LinkedModel
from tests.laws.transforms import randomise

ONCE = Training(epochs=1, learning_rate=1e-9, validation=0.0, progress=False)


class Doubling(Link):
    """z = 2x: the least that makes a link."""

    features = latent_features = 2

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        z = (2 * x).expand(draws, *x.shape)
        return z, z.new_full(z.shape[:-1], 2 * torch.tensor(2.0).log().item())

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return z / 2


def data(generator: Generator) -> Tensor:
    return 5 + 3 * torch.randn(500, 2, generator=generator, dtype=torch.float64)


def test_two_methods_make_a_link(generator: Generator) -> None:
    link = Doubling()
    x = data(generator)
    assert link.links == [link]
    assert link.description == "Doubling"
    assert link.latent_measure is None
    assert link.unreachable() is None
    link.check_support(x)
    link.check_pathwise()
    assert link.initialise(x).equal(2 * x)
    z, log_ratio = link.infer_once(x)
    assert (z.shape, log_ratio.shape) == ((500, 2), (500,))


def test_a_chain_hands_each_link_the_data_as_those_before_leave_it(generator: Generator) -> None:
    first, second = ActNorm(2), ActNorm(2)
    inner = LinkChain(Doubling(), DeltaLink(second))
    chain = LinkChain(LinkChain(DeltaLink(first), Abs(2)), inner).double()
    assert [type(link) for link in chain.links] == [DeltaLink, Abs, Doubling, DeltaLink]
    assert chain.description == "LinkChain(LinkChain(DeltaLink, Abs), LinkChain(Doubling, DeltaLink))"
    x = data(generator)
    z = chain.initialise(x)
    torch.testing.assert_close(z, chain.infer_once(x)[0])
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2).double(), rtol=1e-6, atol=0)
    assert bool(first.initialised)
    assert bool(second.initialised)


def test_parts_take_their_own_side_of_the_data_also_where_widths_are_equal(generator: Generator) -> None:
    """What the encoder's network reads and what the decoder is about is x; what is about z, or reads z, is not."""

    def gaussian(*layers: nn.Module) -> ConditionalGaussian:
        return ConditionalGaussian(nn.Sequential(*layers, nn.Linear(2, 2)), 2, 2, FixedScale())

    reads_x, reads_z = Standardisation(2), Standardisation(2)
    encoder, decoder = Rescaled(gaussian(reads_x)), Rescaled(gaussian(reads_z))
    StochasticLink(encoder, decoder).double().initialise(data(generator), generator=generator)
    matched = [bool(m.matched) for m in (reads_x, decoder.standardise, reads_z, encoder.standardise)]
    assert matched == [True, True, False, False]


def test_a_fit_starts_every_part_and_the_prior(generator: Generator) -> None:
    norm, top = ActNorm(2), ActNorm(2)
    model = TightLayeredModel(Flow(StandardNormal(2), top), DeltaLink(norm))
    model.fit(data(generator), ONCE, generator=generator)
    assert bool(norm.initialised)
    assert bool(top.initialised)


def test_a_flow_starts_as_its_vae(generator: Generator) -> None:
    """Down to the base, which may be a flow with a start of its own."""
    base = Flow(StandardNormal(2), ActNorm(2))
    flow = Flow(base, randomise(LULinear(2), generator)).double()
    vae = FlowVAE(deepcopy(flow))
    x = data(generator)
    flow.fit(x, ONCE, generator=Generator().manual_seed(0))
    vae.fit(x, ONCE, generator=Generator().manual_seed(0))
    assert isinstance(vae.prior, Flow)
    for of in (flow.base, vae.prior):
        assert bool(of.transform.initialised)  # type: ignore[union-attr,arg-type]
    torch.testing.assert_close(vae.log_prob(x), flow.log_prob(x))


def test_the_start_sees_rows_from_all_of_the_data(generator: Generator) -> None:
    """Up to 4096 of them, evenly spaced."""
    norm = ActNorm(1)
    x = 0.7 * torch.arange(10_000.0).unsqueeze(1)
    TightLayeredModel(StandardNormal(1), DeltaLink(norm)).fit(x, ONCE, generator=generator)
    assert norm(x[::3])[0].mean().abs() < 1e-3
    assert norm(x[:4096])[0].mean().abs() > 0.5


def test_layered_models_are_those_of_lvm() -> None:
    assert issubclass(TightLayeredModel, ExactLayeredModel)
    assert issubclass(LooseLayeredModel, LinkedModel)
    assert issubclass(FlowVAE, ExactLayeredModel)
    for model in (TightLayeredModel, LooseLayeredModel, FlowVAE):
        assert issubclass(model, LayeredModel)
        assert model.fit is LinkedModel.fit
    model = LooseLayeredModel(StandardNormal(2), UniformDequantisation(2))
    assert model.measure is Measure.COUNTING
    assert {name.split(".")[0] for name, _ in model.named_children()} == {"prior", "layer"}


def test_an_exact_model_refuses_what_its_link_cannot_have(generator: Generator) -> None:
    with pytest.raises(TypeError, match="takes a prior Density and a Link, in this order; got Doubling and Standard"):
        ExactLayeredModel(Doubling(), StandardNormal(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Abs never leads to .* below it StandardNormal has density there"):
        ExactLayeredModel(StandardNormal(2), Abs(2), "never")
