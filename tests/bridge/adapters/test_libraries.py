"""Adapters of libraries, on stand-ins of the same interface."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Normal

from bridge import from_freia, from_functions, from_normflows, from_pomegranate, from_pyro, from_pythae, from_zuko
from density import ConditionalBernoulli, FixedScale, Measure, StandardNormal
from lvm.evidence import quadrature
from tests.bridge.adapters import stand_ins


def nodes() -> tuple[Tensor, Tensor]:
    """A grid over one standard normal latent, and log weights of the trapezoidal rule."""
    z = torch.linspace(-8, 8, 801)[:, None]
    return z, Normal(0.0, 1.0).log_prob(z[:, 0]) + math.log(16 / 800)


@pytest.mark.parametrize("context_features", [0, 4])
def test_zuko(context_features: int, generator: Generator) -> None:
    flow = stand_ins.LazyGaussian(3, context_features)
    density = from_zuko(flow)
    assert (density.features, density.context_features) == (3, context_features)
    x = torch.randn(5, 3, generator=generator)
    context = torch.randn(5, context_features, generator=generator) if context_features else None
    assert torch.allclose(density.log_prob(x, context), flow(context).log_prob(x))
    assert {id(p) for p in density.parameters()} == {id(p) for p in flow.parameters()}


def test_zuko_without_widths() -> None:
    flow = stand_ins.LazyGaussian(3, 4)
    del flow.order
    with pytest.raises(ValueError, match="pass features="):
        from_zuko(torch.nn.Linear(2, 2))
    flow.hyper = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="pass context_features="):
        from_zuko(flow)
    with pytest.raises(TypeError, match="takes a zuko flow"):
        from_zuko("NSF")


def test_normflows(generator: Generator) -> None:
    flow = stand_ins.NormalizingFlow(3)
    density = from_normflows(flow)
    x = torch.randn(5, 3, generator=generator)
    assert density.log_density(x).value.equal(flow.log_prob(x))
    assert density.method == "log_prob of NormalizingFlow, as normflows says"
    assert density.sample(4, generator=generator).shape == (4, 3)
    with pytest.raises(ValueError, match="pass features="):
        from_normflows(stand_ins.NormalizingFlow(3, show=False))
    assert from_normflows(stand_ins.NormalizingFlow(3, show=False), 3).features == 3
    with pytest.raises(TypeError, match=r"takes a normflows\.NormalizingFlow"):
        from_normflows(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("shape", "condition"), [((3,), 0), ((1, 2, 2), 0), ((3,), 5)])
def test_freia(shape: tuple[int, ...], condition: int, generator: Generator) -> None:
    network = stand_ins.SequenceINN(*shape, condition=condition)
    flow = from_freia(network)
    x = torch.randn(6, math.prod(shape), generator=generator)
    context = torch.randn(6, condition, generator=generator) if condition else None
    z, log_det = network(x.reshape(6, *shape), None if context is None else [context])
    expected = Normal(0.0, 1.0).log_prob(z.flatten(1)).sum(-1) + log_det
    assert torch.allclose(flow.log_prob(x, context), expected)
    draws, log_prob = flow.sample_with_log_prob(4, context=context, generator=generator)
    assert torch.allclose(flow.log_prob(draws, context), log_prob, atol=1e-5)
    with pytest.raises(TypeError, match="FrEIA"):
        from_freia(torch.nn.Linear(2, 2))


def test_pomegranate(generator: Generator) -> None:
    model = stand_ins.IndependentComponents([stand_ins.PomegranateNormal(m, 2.0) for m in (0.0, 1.0)])
    density = from_pomegranate(model)
    x = torch.randn(6, 2, generator=generator)
    assert density.log_density(x).value.equal(model.log_probability(x))
    assert density.measure is Measure.LEBESGUE
    assert from_pomegranate(stand_ins.PomegranateBernoulli(0.5, 1.0)).measure is Measure.COUNTING
    mixed = [stand_ins.PomegranateNormal(0.0, 1.0), stand_ins.PomegranateBernoulli(0.0, 1.0)]
    with pytest.raises(ValueError, match="got Bernoulli, Normal"):
        from_pomegranate(stand_ins.IndependentComponents(mixed))
    model.d = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="fit it first"):
        from_pomegranate(model)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_pythae(loss: str, generator: Generator) -> None:
    model = stand_ins.PythaeVAE(loss)
    adapted = from_pythae(model)
    x = (torch.rand(5, 4, generator=generator) > 0.5).float()
    z, log_weights = nodes()
    decoded = model.decoder(z)["reconstruction"].flatten(1)
    likelihood = Bernoulli(probs=decoded) if loss == "bce" else Normal(decoded, 1.0)
    oracle = (likelihood.log_prob(x[:, None]).sum(-1) + log_weights).logsumexp(-1)
    assert torch.allclose(quadrature(adapted, x).value.float(), oracle, atol=1e-4)
    claim = adapted.log_density(x, draws=2000, generator=generator)
    assert f"VAE of pythae, '{loss}' read as" in claim.method
    assert claim.measure is (Measure.COUNTING if loss == "bce" else Measure.LEBESGUE)
    assert claim.monte_carlo_error is not None
    assert ((claim.value - oracle).abs() < 5 * claim.monte_carlo_error + 1e-3).all()
    with pytest.raises(TypeError, match="VAMP is none of these"):
        from_pythae(stand_ins.PythaeVAE(loss, "VAMP"))
    with pytest.raises(ValueError, match="got 'l1'"):
        from_pythae(stand_ins.PythaeVAE("l1"))


def test_a_saturated_probability_is_no_nan() -> None:
    model = stand_ins.PythaeVAE("bce")
    torch.nn.init.constant_(model.decoder.layer.bias, 200.0)
    decoder = from_pythae(model).decoder
    value = decoder.log_prob(torch.tensor([[1.0] * 4, [0.0] * 4]), torch.zeros(2, 1))
    assert value.tolist() == pytest.approx([0.0, -400.0])


def test_pyro(monkeypatch: pytest.MonkeyPatch, generator: Generator) -> None:
    pyro = stand_ins.installed(monkeypatch)
    program = stand_ins.PyroVAE(pyro)
    before = torch.get_rng_state()
    adapted = from_pyro(program.model, program.guide)
    assert adapted.features == 3, "the observed site says it"
    assert isinstance(adapted.prior, StandardNormal)
    x = (torch.rand(5, 3, generator=generator) > 0.5).float()
    z, log_weights = nodes()
    decoded = Bernoulli(logits=program.decoder(2 * z))
    oracle = (decoded.log_prob(x[:, None]).sum(-1) + log_weights).logsumexp(-1)
    claim = adapted.log_density(x, draws=5000, generator=generator)
    assert torch.get_rng_state().equal(before), "running the programs moved the global random state"
    assert torch.allclose(quadrature(adapted, x).value.float(), oracle, atol=1e-4)
    assert claim.monte_carlo_error is not None
    assert ((claim.value - oracle).abs() < 5 * claim.monte_carlo_error + 1e-3).all()
    assert claim.measure is Measure.COUNTING
    assert {id(p) for p in adapted.parameters()} == {id(p) for p in program.parameters()}
    several = stand_ins.PyroVAE(pyro, sites=2)
    with pytest.raises(ValueError, match="one latent and one observed site"):
        from_pyro(several.model, several.guide, 3)


class Images(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(16, 4), torch.nn.Linear(2, 16)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        assert x.shape[1:] == (1, 4, 4)
        return self.encoder(x.flatten(1)).chunk(2, -1)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).reshape(-1, 1, 4, 4)


@pytest.mark.parametrize("kind", ["mean", "logits", "distribution", "likelihood", "pair"])
def test_functions(kind: str, generator: Generator) -> None:
    """The same five readings of a decoder's numbers as log p(x|z), by hand."""
    nets = Images()
    decode: Any = nets.decode
    likelihood: Any = None
    if kind == "mean":
        likelihood = FixedScale(0.5)
    elif kind == "logits":
        likelihood = ConditionalBernoulli
    elif kind == "likelihood":
        likelihood = lambda numbers: Normal(numbers, 0.5)  # noqa: E731
    elif kind == "distribution":
        decode = lambda z: Bernoulli(logits=nets.decode(z))  # noqa: E731
    else:
        decode = lambda z: (nets.decode(z), 2 * math.log(0.5) * torch.ones_like(nets.decode(z)))  # noqa: E731
    model = from_functions(nets.encode, decode, latent_features=2, event_shape=(1, 4, 4), likelihood=likelihood)
    x = (torch.rand(3, 16, generator=generator) > 0.5).float()
    z = torch.randn(7, 3, 2, generator=generator)
    numbers = nets.decoder(z)
    discrete = kind in ("logits", "distribution")
    expected = (Bernoulli(logits=numbers) if discrete else Normal(numbers, 0.5)).log_prob(x).sum(-1)
    assert torch.allclose(model.decoder.log_prob(x, z), expected, atol=1e-4)
    assert model.measure is (Measure.COUNTING if discrete else Measure.LEBESGUE)
    mean, log_variance = nets.encoder(x).chunk(2, -1)
    assert torch.allclose(
        model.encoder.log_prob(z, x), Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(-1), atol=1e-4
    )
    assert model.log_density(x, draws=50, generator=generator).method.endswith(model.reading)
    assert model.sample(4, generator=generator).shape == (4, 16)


def test_functions_say_what_is_missing() -> None:
    nets = Images()
    with pytest.raises(ValueError, match="needs latent_features="):
        from_functions(nets.encode, nets.decode)
    with pytest.raises(TypeError, match="say what they mean"):
        from_functions(nets.encode, nets.decode, latent_features=2, event_shape=(1, 4, 4))
    with pytest.raises(ValueError, match="the prior has 3 features"):
        from_functions(nets.encode, nets.decode, StandardNormal(3), latent_features=2)
    with pytest.raises(TypeError, match="to return a Distribution, a tensor"):
        from_functions(nets.encode, lambda z: "x", latent_features=2)
