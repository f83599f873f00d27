"""Layers: links, what layered models make of them, and what they must refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import DeltaLink
from density import (
    Bernoulli,
    Categorical,
    ConditionalBernoulli,
    ConditionalGaussian,
    Density,
    FixedScale,
    GlobalScale,
    Measure,
    NetworkScale,
    StandardNormal,
    kl,
    mlp,
)
from flows import LULinear
from lvm import VAE, ExactLayeredModel, LayeredModel, Link, StochasticLink
from lvm.latent import ElboTerms
from tests.laws.transforms import randomise


def encoder(features: int = 3, latent: int = 2) -> Density:
    return ConditionalGaussian(mlp(features, 2 * latent, (6,), nn.Tanh), latent, features, NetworkScale())


def decoder(features: int = 3, latent: int = 2) -> Density:
    return ConditionalGaussian(mlp(latent, features, (6,), nn.Tanh), features, latent, GlobalScale(0.7))


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Spy(Link):
    """z = x with a given log-ratio; counts what is asked of it."""

    features = latent_features = 3

    def __init__(self, *, tight: bool = False, deterministic: bool = False, log_ratio: float = 0.5) -> None:
        super().__init__()
        self.tight, self.deterministic, self.log_ratio = tight, deterministic, log_ratio
        self.asked: list[int] = []

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        self.asked.append(draws)
        return x.expand(draws, *x.shape), x.new_full((draws, *x.shape[:-1]), self.log_ratio)

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return z + 10


class Layer(LayeredModel):
    """The least that makes a layered model."""

    def __init__(self, prior: Density, link: Link) -> None:
        super().__init__()
        self.prior, self.layer = prior, link
        self.features, self.measure = link.features, link.measure

    @property
    def link(self) -> Link:
        return self.layer

    def fit(self, x: Tensor) -> None:  # type: ignore[override]
        raise NotImplementedError

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        return self.layer.generate(self.prior.sample(n, generator=generator), generator=generator)


class Exact(ExactLayeredModel):
    def fit(self, x: Tensor) -> None:  # type: ignore[override]
        raise NotImplementedError


def test_a_stochastic_link_is_its_two_densities(generator: Generator) -> None:
    q, p = randomise(encoder(), generator), randomise(decoder(), generator)
    link = StochasticLink(q, p)
    assert (link.features, link.latent_features) == (3, 2)
    assert not link.tight
    assert not link.deterministic
    x = normal(generator, 4, 5, 3)
    z, log_ratio = link.infer(x, 6, generator=generator)
    assert z.shape == (6, 4, 5, 2)
    assert log_ratio.shape == (6, 4, 5)
    torch.testing.assert_close(log_ratio, p.log_prob(x, z) - q.log_prob(z, x), rtol=1e-12, atol=1e-12)
    generated = link.generate(z, generator=Generator().manual_seed(0))
    assert generated.shape == (6, 4, 5, 3)
    assert generated.equal(p.sample(1, context=z, generator=Generator().manual_seed(0))[0])


def test_the_encoder_runs_once_for_all_draws(generator: Generator) -> None:
    q = encoder().double()
    calls: list[int] = []
    q.network.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    z, _ = StochasticLink(q, decoder().double()).infer(normal(generator, 5, 3), 100, generator=generator)
    assert len(calls) == 1
    assert z.std(0).min() > 0


def test_a_link_has_the_measure_of_its_decoder() -> None:
    bits = ConditionalBernoulli(mlp(2, 3, (4,)), 3, 2)
    assert StochasticLink(encoder(), bits).measure is Measure.COUNTING
    assert StochasticLink(encoder(), decoder()).measure is Measure.LEBESGUE


@pytest.mark.parametrize(
    ("q", "p", "message"),
    [
        (encoder(3, 2), decoder(3, 4), r"the encoder .* density over 2 features, but the decoder is conditioned on 4"),
        (encoder(3, 2), decoder(5, 2), r"the decoder .* density over 5 features, but the encoder is conditioned on 3"),
        (StandardNormal(2), decoder(3, 2), r"the decoder .* over 3 features, but the encoder is conditioned on 0"),
        (encoder(3, 2), StandardNormal(3), r"the encoder .* over 2 features, but the decoder is conditioned on 0"),
    ],
)
def test_sizes_that_disagree_are_named(q: Density, p: Density, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StochasticLink(q, p)
    with pytest.raises(ValueError, match=message):
        VAE(StandardNormal(q.features), q, p)


@pytest.mark.parametrize("prior", [StandardNormal(3), encoder(3, 2), Categorical(3)])
def test_a_prior_that_does_not_fit_is_refused(prior: Density) -> None:
    with pytest.raises(
        ValueError, match=r"unconditional density over the 2 features of the latent; got .* over [23] features"
    ):
        VAE(prior, encoder(), decoder())


def test_log_weights_are_prior_plus_log_ratio(generator: Generator) -> None:
    x = normal(generator, 4, 3)
    model = Layer(StandardNormal(3).double(), Spy())
    expected = model.prior.log_prob(x) + 0.5
    assert model.log_weights(x, 7).equal(expected.expand(7, 4))
    torch.testing.assert_close(model.elbo(x, draws=3), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("deterministic", "asked"), [(True, [1]), (False, [50])])
def test_a_deterministic_link_is_not_asked_for_every_draw(
    deterministic: bool, asked: list[int], generator: Generator
) -> None:
    link = Spy(deterministic=deterministic)
    model = Layer(StandardNormal(3).double(), link)
    log_weights = model.log_weights(normal(generator, 2, 4, 3), 50)
    assert log_weights.shape == (50, 2, 4)
    assert link.asked == asked


def test_log_weights_refuse_what_they_cannot_weigh() -> None:
    model = Layer(StandardNormal(3), Spy())
    for draws in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="draws must be a positive int"):
            model.log_weights(torch.zeros(2, 3), draws)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Layer expects x of shape \[\*batch, 3\]; got \[2, 4\]"):
        model.log_weights(torch.zeros(2, 4), 1)
    with pytest.raises(TypeError, match=r"Layer computes in torch\.float32 .*; x is torch\.float64"):
        model.log_weights(torch.zeros(2, 3, dtype=torch.float64), 1)


def test_an_exact_model_refuses_a_loose_link() -> None:
    with pytest.raises(ValueError, match=r"Spy is not tight: its log-weights bound log p\(x\)"):
        Exact(StandardNormal(3), Spy(), "never")
    with pytest.raises(ValueError, match="StochasticLink is not tight"):
        Exact(StandardNormal(2), StochasticLink(encoder(), decoder()), "never")


def test_an_exact_model_refuses_a_prior_that_does_not_fit() -> None:
    for prior in (StandardNormal(2), encoder(2, 3)):
        with pytest.raises(ValueError, match="unconditional density over the 3 features of the latent of Spy; got"):
            Exact(prior, Spy(tight=True), "never")


def test_an_exact_model_is_a_density(generator: Generator) -> None:
    link = DeltaLink(randomise(LULinear(3), generator))
    model = Exact(StandardNormal(3).double(), link, "the method")
    x = normal(generator, 5, 3)
    z, log_ratio = link.infer(x)
    expected = model.prior.log_prob(z[0]) + log_ratio[0]
    assert model.log_prob(x).equal(expected)
    claim = model.log_density(x)
    assert (claim.kind.value, claim.method) == ("exact", "the method")
    draws, log_prob = model.sample_with_log_prob(4, generator=Generator().manual_seed(0))
    assert draws.equal(model.sample(4, generator=Generator().manual_seed(0)))
    torch.testing.assert_close(log_prob, model.log_prob(draws), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="takes no context"):
        model.log_prob(x, x)


def test_log_joint_broadcasts(generator: Generator) -> None:
    """At any z, differentiable in it: log p(z) + log p(x|z)."""
    model = VAE(StandardNormal(2), randomise(encoder(), generator), randomise(decoder(), generator)).double()
    x, z = normal(generator, 4, 3), normal(generator, 6, 1, 2).requires_grad_()
    joint = model.log_joint(x, z)
    assert joint.shape == (6, 4)
    one = model.prior.log_prob(z[2, 0]) + model.decoder.log_prob(x[3], z[2, 0])
    torch.testing.assert_close(joint[2, 3], one, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: model.log_joint(x, z), (z,))


def test_the_terms_of_the_elbo(generator: Generator) -> None:
    model = VAE(StandardNormal(2), randomise(encoder(), generator), randomise(decoder(), generator)).double()
    x = normal(generator, 5, 3)
    terms = model.elbo_terms(x, draws=4, generator=Generator().manual_seed(0))
    assert isinstance(terms, ElboTerms)
    z = model.encoder.sample(4, context=x, generator=Generator().manual_seed(0))
    torch.testing.assert_close(terms.reconstruction, model.decoder.log_prob(x, z).mean(0), rtol=1e-12, atol=1e-12)
    closed_form = kl(model.encoder, model.prior, x)
    assert closed_form is not None
    assert terms.kl.equal(closed_form)
    assert (terms.kl > 0).all()
    assert terms.elbo.equal(terms.reconstruction - terms.kl)
    assert model.elbo(x, draws=4, generator=Generator().manual_seed(0)).equal(terms.elbo)


def test_without_a_closed_form_the_kl_is_by_the_same_draws(generator: Generator) -> None:
    """Then the ELBO is the mean log-weight itself."""
    from lvm import GaussianMixture

    model = VAE(GaussianMixture(2, 3), randomise(encoder(), generator), randomise(decoder(), generator)).double()
    x = normal(generator, 5, 3)
    elbo = model.elbo(x, draws=4, generator=Generator().manual_seed(0))
    log_weights = model.log_weights(x, 4, generator=Generator().manual_seed(0))
    torch.testing.assert_close(elbo, log_weights.mean(0), rtol=1e-12, atol=1e-12)


def test_data_outside_the_support_is_refused() -> None:
    model = VAE(StandardNormal(2), encoder(), ConditionalBernoulli(mlp(2, 3, (4,)), 3, 2))
    x = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]])
    from lvm.evidence import gap, importance

    for use in (model.log_density, model.fit, lambda x: gap(model, x), lambda x: importance(model, x)):
        with pytest.raises(ValueError, match=r"distribution over \{0, 1\}; got other values, for example 0\.5"):
            use(x)


def test_a_latent_may_be_discrete(generator: Generator) -> None:
    """Bits as latent: no closed form with a Bernoulli prior is lost, and sums over z stay possible."""
    model = VAE(
        Bernoulli(2),
        ConditionalBernoulli(nn.Linear(3, 2), 2, 3),
        ConditionalGaussian(nn.Linear(2, 3), 3, 2, FixedScale(1.0)),
    ).double()
    x = normal(generator, 5, 3)
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)
    log_p = model.log_joint(x, z.unsqueeze(1)).logsumexp(0)
    claim = model.log_density(x, draws=4000, generator=generator)
    assert claim.monte_carlo_error is not None
    assert ((claim.value - log_p).abs() < 4.5 * claim.monte_carlo_error + 1e-4).all()
    assert math.isclose(float(z.sum()), 4)
