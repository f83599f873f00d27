"""Chains of links and their models: what fits together, what runs when, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from bridge import DeltaLink
from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain, latent_measure
from bridge.survae.dequantisation import UniformDequantisation
from bridge.survae.layered import LooseLayeredModel, TightLayeredModel, layered
from bridge.survae.permutations import Sort, StochasticPermutation
from bridge.survae.ranges import HalfNormal, Log, Spacings
from bridge.survae.surjections import Abs, Max, Slice
from density import (
    Bernoulli,
    Density,
    DiagonalGaussian,
    Kind,
    Measure,
    StandardNormal,
)
from flows import Affine, Chain, Flow, Logit, LULinear, real_nvp
from lvm import VAE, ExactLayeredModel, Link, StochasticLink
from lvm.evidence import gap, importance
from tests.cases.layered_models import LOOSE, TIGHT, OrderStatistics, broad
from tests.laws.transforms import randomise


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Counting(Link):
    """z = x; counts what is asked of it."""

    features = latent_features = 2

    def __init__(self, deterministic: bool) -> None:
        super().__init__()
        self.deterministic = self.tight = deterministic
        self.asked: list[tuple[torch.Size, int]] = []

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        self.asked.append((x.shape, draws))
        return x.expand(draws, *x.shape), x.new_ones(draws, *x.shape[:-1])

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return z


# ---------------------------------------------------------------------------------------------------------------------
# Chains
# ---------------------------------------------------------------------------------------------------------------------


def test_a_chain_is_tight_exactly_when_its_links_are() -> None:
    delta, augmentation = DeltaLink(LULinear(2)), Augmentation(2, StandardNormal(1))
    assert LinkChain(Abs(2), delta, Sort(2)).tight
    assert LinkChain(Abs(2), delta).deterministic
    assert not LinkChain(delta, augmentation).tight
    assert not LinkChain(StochasticPermutation(2), delta).tight
    assert not LinkChain(LinkChain(delta), LinkChain(augmentation)).tight
    assert isinstance(layered(StandardNormal(2), LinkChain(delta, delta)), ExactLayeredModel)
    assert isinstance(layered(StandardNormal(3), LinkChain(delta, augmentation)), LooseLayeredModel)
    for name, case in (TIGHT | LOOSE).items():
        model = case.make(Generator().manual_seed(0))
        assert isinstance(model, ExactLayeredModel) is isinstance(model, Density) is (name in TIGHT)


def test_log_ratios_add_and_links_are_called_in_order(generator: Generator) -> None:
    first, second = randomise(LULinear(2), generator), randomise(LULinear(2), generator)
    chain = LinkChain(DeltaLink(first), Abs(2), DeltaLink(second))
    x = normal(generator, 5, 2)
    y, one = first(x)
    z, two = second(y.abs())
    inferred, log_ratio = chain.infer(x, 3)
    torch.testing.assert_close(inferred, z.expand(3, 5, 2), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_ratio, (one + two - 2 * math.log(2)).expand(3, 5), rtol=1e-13, atol=1e-13)


def test_what_comes_before_the_first_draw_runs_once(generator: Generator) -> None:
    before, drawing, after = Counting(True), Counting(False), Counting(True)
    chain = LinkChain(before, LinkChain(drawing), after)
    z, log_ratio = chain.infer(normal(generator, 4, 5, 2), 7)
    assert before.asked == [((4, 5, 2), 1)]
    assert drawing.asked == [((4, 5, 2), 7)]
    assert after.asked == [((7, 4, 5, 2), 1)]
    assert z.shape == (7, 4, 5, 2)
    assert log_ratio.eq(3).all()
    deterministic = Counting(True)
    LooseLayeredModel(StandardNormal(2).double(), LinkChain(deterministic)).log_weights(normal(generator, 4, 2), 50)
    assert deterministic.asked == [((4, 2), 1)]


def test_a_chain_has_the_measures_of_its_ends() -> None:
    chain = LinkChain(UniformDequantisation(2), DeltaLink(LULinear(2)), Augmentation(2, StandardNormal(1)))
    assert (chain.measure, latent_measure(chain)) == (Measure.COUNTING, Measure.LEBESGUE)
    assert (chain.features, chain.latent_features) == (2, 3)
    assert latent_measure(LinkChain(Slice(3, [0], Bernoulli(2)))) is Measure.COUNTING
    assert latent_measure(Counting(True)) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LinkChain(DeltaLink(LULinear(3)), Abs(2)),
            r"link 0 \(DeltaLink\) has a latent of 3 features, link 1 \(Abs\) takes data of 2",
        ),
        (
            lambda: LinkChain(Abs(3), Augmentation(3, StandardNormal(2)), Sort(3)),
            r"link 1 \(Augmentation\) has a latent of 5 features, link 2 \(Sort\) takes data of 3",
        ),
        (
            lambda: LinkChain(LinkChain(Max(2, 2)), Abs(4)),
            r"link 0 \(LinkChain\) has a latent of 2 features, link 1 \(Abs\)",
        ),
        (
            lambda: LinkChain(DeltaLink(LULinear(2)), UniformDequantisation(2)),
            r"the latent of link 0 \(DeltaLink\) needs .* Lebesgue measure, link 1 \(UniformDequantisation\) makes one "
            "with respect to counting measure",
        ),
        (lambda: LinkChain(Abs(2), ReLU(2)), "Lebesgue measure, .* with respect to Lebesgue-with-an-atom-at-0 measure"),
        (lambda: LinkChain(), "LinkChain needs at least one link"),
    ],
)
def test_links_that_do_not_fit_are_named_when_the_chain_is_built(make: Callable[[], Link], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_only_links_make_a_chain() -> None:
    with pytest.raises(TypeError, match=r"link 1 is a LULinear \(wrap a Transform in DeltaLink"):
        LinkChain(Abs(2), LULinear(2))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------

LOOSE_LINK = LinkChain(DeltaLink(LULinear(2)), Augmentation(2, StandardNormal(1)))


@pytest.mark.parametrize(
    ("prior", "link", "message"),
    [
        (StandardNormal(2), Abs(2), r"Abs never leads to .* below it StandardNormal has density there"),
        (real_nvp(2, 2, (4,)), Abs(2), "Abs never leads to .* Flow has density there"),
        (StandardNormal(2), Abs(2, [1]), r"Abs never leads to \[0.001, -0.001\]"),
        (OrderStatistics(2), Abs(2), "Abs never leads to"),
        (HalfNormal(2), Sort(2), "Sort never leads to .*HalfNormal has density there"),
        (StandardNormal(2), Sort(2), "Sort never leads to"),
        (
            StandardNormal(2),
            LinkChain(Abs(2), DeltaLink(LULinear(2))),
            "Abs never leads to .* below it DeltaLink and StandardNormal",
        ),
        (
            StandardNormal(2),
            LinkChain(Abs(2), DeltaLink(Chain(Affine(-2.0, 4.0), Logit()), 2)),  # (−2, 2), and not (0, 2)
            "Abs never leads to",
        ),
        (StandardNormal(2), LinkChain(Sort(2), DeltaLink(Log(), 2)), "Sort never leads to"),
        (StandardNormal(2), LinkChain(UniformDequantisation(2), Abs(2)), "Abs never leads to"),
        (StandardNormal(3), LOOSE_LINK.links[0], "over the 2 features of the latent of DeltaLink; got StandardNormal"),
        (StandardNormal(2), LOOSE_LINK, r"the latent of LinkChain\(DeltaLink, Augmentation\); got StandardNormal"),
        (broad(3, 1), LOOSE_LINK, "unconditional density"),
        (Bernoulli(2), Abs(2), "needs a density with respect to Lebesgue measure; Bernoulli has one .* counting"),
        (StandardNormal(1), Slice(2, [0], Bernoulli(1)), "needs a density with respect to counting measure"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(prior: Density, link: Link, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layered(prior, link)


@pytest.mark.parametrize(
    ("prior", "link"),
    [
        (HalfNormal(2), Abs(2)),
        (StandardNormal(2), LinkChain(Abs(2), DeltaLink(Log(), 2))),
        (StandardNormal(2), LinkChain(Abs(2), DeltaLink(Chain(Affine(0.0, 4.0), Logit()), 2))),
        (Flow(StandardNormal(2), Chain(Log(), LULinear(2))), Abs(2)),
        (OrderStatistics(2), Sort(2)),
        (Flow(StandardNormal(2), Spacings(2)), Sort(2)),
        (StandardNormal(1), Sort(1)),
        (HalfNormal(2), LinkChain(Abs(2), StochasticPermutation(2))),
    ],
)
def test_a_prior_with_the_right_range_is_not(prior: Density, link: Link) -> None:
    before = torch.get_rng_state()
    assert layered(prior, link).prior is prior
    assert torch.get_rng_state().equal(before)


def test_a_loose_model_has_no_log_prob(generator: Generator) -> None:
    model = layered(StandardNormal(3), LOOSE_LINK)
    assert not hasattr(model, "log_prob")
    with pytest.raises(ValueError, match="LinkChain is not tight"):
        TightLayeredModel(StandardNormal(3), LOOSE_LINK)
    with pytest.raises(TypeError, match="takes a prior Density and a Link, in this order; got LinkChain and"):
        layered(LOOSE_LINK, StandardNormal(3))  # type: ignore[arg-type]


def test_claims_name_the_layers(generator: Generator) -> None:
    model = TIGHT["abs on a flow"].make(generator)
    claim = model.log_density(normal(generator, 3, 2))
    assert (claim.kind, claim.method) == (Kind.EXACT, "tight log-weight of LinkChain(Abs, DeltaLink)")


def test_a_measure_may_not_be_mixed_up(generator: Generator) -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    rounded = layered(StandardNormal(2).double(), UniformDequantisation(2)).log_density(x, draws=10)
    rectified = layered(StandardNormal(2).double(), ReLU(2).double()).log_density(x, draws=10)
    density = DiagonalGaussian(2).double().log_density(x)
    assert rounded.measure is Measure.COUNTING
    assert rectified.measure is Measure.RECTIFIED
    for a, b in ((rounded, density), (rectified, density), (rectified, rounded)):
        with pytest.raises(ValueError, match="different units"):
            a - b


def test_data_that_no_latent_explains_is_refused_where_it_enters() -> None:
    model = layered(StandardNormal(2), LinkChain(UniformDequantisation(2), DeltaLink(LULinear(2))))
    half = torch.tensor([[0.5, 1.0]])
    for use in (model.log_density, model.fit, lambda x: importance(model, x), lambda x: gap(model, x)):
        with pytest.raises(ValueError, match=r"UniformDequantisation expects integers; the value at \[0, 0\] is 0\.5"):
            use(half)
    assert model.elbo(half) == -torch.inf
    bits = VAE.bernoulli(2, 1)
    top = layered(StandardNormal(1), LinkChain(StochasticLink(bits.encoder, bits.decoder)))
    with pytest.raises(ValueError, match=r"distribution over \{0, 1\}"):
        top.fit(half)
    positive = layered(StandardNormal(2), LinkChain(Abs(2), DeltaLink(Log(), 2)))
    with pytest.raises(ValueError, match=r"Log expects positive values; the value at \[0, 0\] is 0"):
        positive.log_density(torch.zeros(1, 2))
    small = layered(Flow(StandardNormal(2), Logit()), Abs(2))
    with pytest.raises(ValueError, match=r"Logit expects values in \(0, 1\); the value at \[0, 0\] is 2 "):
        small.log_density(torch.full((1, 2), -2.0))
    assert small.log_prob(torch.full((1, 2), -2.0)) == -torch.inf
