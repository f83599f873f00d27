"""Latent-variable models with flows in them: laws, starting points, shared parts, and what they are good for."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import DeltaLink
from bridge.hybrids import (
    Featured,
    autoregressive_posterior,
    coupling_posterior,
    flow_with_vae_top,
    with_flow_decoder,
    with_flow_prior,
    with_posterior,
)
from bridge.survae.chain import LinkChain
from bridge.survae.layered import LooseLayeredModel, layered
from density import ConditionalGaussian, GlobalScale, NetworkScale, PerFeatureScale, Rescaled, StandardNormal, Training
from flows import AffineCoupling, Chain, Flow, LULinear, glow, real_nvp
from lvm import VAE, LayeredModel, StochasticLink
from lvm.evidence import gap
from tests.cases.bounds import by_quadrature
from tests.cases.layered_models import linear_gaussian
from tests.laws.bounds import BoundCase, bound_laws
from tests.laws.densities import density_laws
from tests.laws.density_case import DensityCase
from tests.laws.transforms import randomise

BUILDERS = {"coupling": coupling_posterior, "autoregressive": autoregressive_posterior}
Builder = Callable[..., Featured]


def small(builder: Builder, features: int = 3) -> Featured:
    return builder(features, 2, layers=2, hidden=(6,), width=5, encoder_hidden=(6,))


def base() -> VAE:
    """A VAE whose encoder is broader than the posterior."""
    model = VAE.gaussian(3, 2, hidden=(6,), scale=PerFeatureScale(3), standardise=False)
    assert isinstance(model.encoder, ConditionalGaussian)
    assert isinstance(model.encoder.network, nn.Sequential)
    assert isinstance(model.encoder.network[-1], nn.Linear)
    with torch.no_grad():
        model.encoder.network[-1].bias[2:] += 0.4
        model.decoder.scale.log_std += 0.7  # type: ignore[union-attr, operator]
    return model


def made(make: Callable[[], LayeredModel], scale: float = 0.1) -> Callable[[Generator], LayeredModel]:
    return lambda generator: randomise(make(), generator, scale)


HYBRIDS: dict[str, BoundCase] = {
    "flow prior": BoundCase(made(lambda: with_flow_prior(base(), real_nvp(2, 2, (6,)))), by_quadrature),
    "coupling posterior": BoundCase(made(lambda: with_posterior(base(), small(coupling_posterior))), by_quadrature),
    "autoregressive posterior": BoundCase(
        made(lambda: with_posterior(base(), small(autoregressive_posterior))), by_quadrature
    ),
    "flow decoder": BoundCase(
        made(lambda: with_flow_decoder(base(), layers=2, hidden=(6,))),
        by_quadrature,
    ),
}


@pytest.mark.parametrize("law", bound_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", HYBRIDS)
def test_bound_law(name: str, law: Callable[[BoundCase, Generator], None], generator: Generator) -> None:
    law(HYBRIDS[name], generator)


@pytest.mark.parametrize("law", density_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", BUILDERS)
def test_posterior_law(name: str, law: Callable[[DensityCase, Generator], None], generator: Generator) -> None:
    law(DensityCase(lambda g: randomise(small(BUILDERS[name]), g), expected=False), generator)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_new_posterior_is_its_gaussian(name: str, generator: Generator) -> None:
    """Transforms start as the identity, so that training starts as that of the usual VAE."""
    posterior = small(BUILDERS[name]).double()
    flow = posterior.density
    assert isinstance(flow, Flow)
    x, z = torch.randn(4, 3, generator=generator).double(), torch.randn(4, 2, generator=generator).double()
    expected = flow.base.log_prob(z, posterior.network(x))
    torch.testing.assert_close(posterior.log_prob(z, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_features_are_computed_once_for_all_draws(name: str) -> None:
    posterior = small(BUILDERS[name])
    rows: list[torch.Size] = []
    posterior.network.register_forward_hook(lambda _, inputs, output: rows.append(output.shape))
    posterior.sample_with_log_prob(100, context=torch.zeros(7, 3))
    assert rows == [(7, 5)]


def test_a_draw_of_the_autoregressive_posterior_takes_one_pass() -> None:
    posterior = autoregressive_posterior(3, 6, layers=2, hidden=(8,), width=5)
    assert isinstance(posterior.density, Flow)
    calls: list[int] = []
    for module in posterior.density.transform.modules():
        if type(module).__name__ == "MaskedMLP":
            module.register_forward_hook(lambda *_: calls.append(1))
    posterior.sample_with_log_prob(3, context=torch.zeros(7, 3))
    assert len(calls) == 2


def test_every_layer_sees_x(generator: Generator) -> None:
    """Not only the base: with the base held fixed, draws still move with x."""
    for builder in BUILDERS.values():
        posterior = randomise(small(builder), generator)
        assert isinstance(posterior.density, Flow)
        flow, noise = posterior.density, torch.zeros(2, 2, dtype=torch.float64)
        context = posterior.network(torch.tensor([[0.0, 0, 0], [1.0, -1, 2]], dtype=torch.float64))
        z, _ = flow.transform.inverse(noise, context)
        assert (z[0] - z[1]).abs().min() > 1e-3


def test_parts_are_shared(generator: Generator) -> None:
    model = base()
    flow = real_nvp(2, 2, (6,), base=StandardNormal)
    posterior = small(coupling_posterior)
    assert with_flow_prior(model, flow).decoder is model.decoder
    assert with_flow_prior(model, flow).encoder is model.encoder
    assert with_flow_prior(model, flow).prior is flow
    assert with_posterior(model, posterior).encoder is posterior
    assert with_posterior(model, posterior).prior is model.prior
    assert with_flow_decoder(model, layers=2).encoder is model.encoder
    x = torch.randn(4, 3, generator=generator)
    same = with_flow_prior(model, real_nvp(2, 2, (6,), base=StandardNormal))
    assert torch.allclose(
        same.log_weights(x, 5, generator=Generator().manual_seed(0)),
        model.log_weights(x, 5, generator=Generator().manual_seed(0)),
        atol=1e-5,
    )


def test_a_flow_with_a_vae_top_is_a_change_of_variables(generator: Generator) -> None:
    model = randomise(base(), generator, 0.1)
    transform = randomise(Chain(LULinear(3), AffineCoupling([True, False, True], (6,))), generator)
    hybrid = flow_with_vae_top(transform, model)
    assert isinstance(hybrid, LooseLayeredModel)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    y, log_det = transform(x)
    ours = hybrid.log_weights(x, 6, generator=Generator().manual_seed(0))
    theirs = model.log_weights(y, 6, generator=Generator().manual_seed(0)) + log_det
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        transform(hybrid.sample(5, generator=Generator().manual_seed(1)))[0],
        model.sample(5, generator=Generator().manual_seed(1)),
        rtol=1e-9,
        atol=1e-9,
    )


def test_the_usual_fits_train_them(generator: Generator) -> None:
    """Every hybrid learns from data far from the origin, by the fit of its class; standardisation finds its data."""
    x = 20 + 5 * torch.randn(300, 3, generator=generator).cumsum(1)
    training = Training(epochs=8, batch_size=100, learning_rate=5e-3, progress=False)
    model = VAE.gaussian(3, 2, hidden=(8,))
    hybrids: list[VAE | LooseLayeredModel] = [
        with_flow_prior(model, real_nvp(2, 2, (6,))),
        with_posterior(VAE.gaussian(3, 2, hidden=(8,)), coupling_posterior(3, 2, hidden=(6,), standardise=True)),
        with_posterior(VAE.gaussian(3, 2, hidden=(8,)), autoregressive_posterior(3, 2, hidden=(6,), standardise=True)),
        with_flow_decoder(VAE.gaussian(3, 2, hidden=(8,)), layers=2, hidden=(6,)),
        flow_with_vae_top(glow(3, 2, (6,)).transform, VAE.gaussian(3, 2, hidden=(8,), standardise=False)),
    ]
    for hybrid in hybrids:
        history = hybrid.fit(x, training, generator=generator)
        # Standardised data under σ = 0.3, where decoders start, has −21; data as it is would have thousands less.
        assert -40 < history.objective[0] < history.objective[-1], "it did not find the scale of its data, or learn"


# ---------------------------------------------------------------------------------------------------------------------
# What they are for, on a problem small enough for quadrature
# ---------------------------------------------------------------------------------------------------------------------


class Ring(nn.Module):
    """x = |z|²: the posterior is a ring."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square().sum(-1, keepdim=True)


def ring() -> VAE:
    decoder = ConditionalGaussian(Ring(), 1, 2, GlobalScale(0.7))
    gaussian = ConditionalGaussian(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 4)), 2, 1, NetworkScale())
    return VAE(StandardNormal(2), gaussian, decoder.requires_grad_(False)).double()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_flow_posterior_has_the_smaller_gap(name: str, generator: Generator) -> None:
    """One decoder, frozen: log p(x) is the same, and what differs is the gap; by more than 4 standard errors."""
    model = ring()
    with torch.no_grad():
        x = model.sample(400, generator=generator)
    flow = with_posterior(model, BUILDERS[name](1, 2, layers=4, hidden=(24,), width=8, encoder_hidden=(16,)))
    training = Training(epochs=120, learning_rate=1e-2, validation=0, progress=False)
    for one in (model, flow):
        one.fit(x, training, generator=generator)
    log_p = by_quadrature(model, x[:100])
    reports = [gap(one, x[:100], draws=400, generator=generator) for one in (model, flow)]
    gaps = [log_p - report.elbo.value for report in reports]
    assert min(g.mean() for g in gaps) > 0
    difference = gaps[0] - gaps[1]
    assert difference.mean() > 4 * difference.std() / math.sqrt(100)


def test_a_flow_prior_raises_the_density(generator: Generator) -> None:
    """Latents on two bumps, an encoder that is nearly exact: a normal prior cannot have them, a flow can."""
    side = (torch.rand(400, 1, generator=generator) < 0.5).double() * 4 - 2
    z = side + 0.5 * torch.randn(400, 2, generator=generator).double()
    x = z + 0.3 * torch.randn(400, 2, generator=generator).double()
    model = VAE(
        StandardNormal(2),
        ConditionalGaussian(nn.Linear(2, 4), 2, 2, NetworkScale()),
        linear_gaussian(2, 2, 0.5),
    ).double()
    training = Training(epochs=60, learning_rate=2e-2, validation=0, progress=False)
    model.fit(x, training, generator=generator)
    hybrid = with_flow_prior(model, real_nvp(2, 4, (16,)))
    before = model.log_density(x, draws=500, generator=generator).value
    hybrid.fit(x, training, generator=generator)
    after = hybrid.log_density(x, draws=500, generator=generator).value
    difference = after - before
    assert difference.mean() > 4 * difference.std() / math.sqrt(len(x))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: coupling_posterior(3, 1), "coupling_posterior needs 2 latent features .* got 1 and 4"),
        (lambda: coupling_posterior(3, 2, layers=1), "got 2 and 1"),
        (lambda: autoregressive_posterior(3, 0), "latent_features must be a positive int"),
        (lambda: autoregressive_posterior(0, 2), "features must be a positive int"),
        (lambda: Featured(nn.Linear(3, 2), real_nvp(2, 2, (4,)), 3), "Flow takes none"),
        (lambda: with_flow_prior(base(), real_nvp(3, 2, (4,))), "density over the 2 features of the latent; got"),
        (lambda: with_posterior(base(), small(coupling_posterior, 4)), "the decoder .* over 3 features, but"),
        (lambda: flow_with_vae_top(LULinear(4), base()), "LULinear has 4 features; got features=3"),
        (lambda: flow_with_vae_top(LULinear(3), VAE.bernoulli(3, 2)), "makes one with respect to counting measure"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_decoder_is_rescaled_or_not() -> None:
    assert isinstance(with_flow_decoder(base(), layers=2).decoder, Rescaled)
    assert isinstance(with_flow_decoder(base(), layers=2, standardise=False).decoder, Flow)
    top = layered(StandardNormal(2), LinkChain(DeltaLink(LULinear(3)), StochasticLink(base().encoder, base().decoder)))
    assert isinstance(top, LooseLayeredModel)
