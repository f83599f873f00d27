"""The same density before and after: flows, Gaussians, PPCA, linear VAEs, couplings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, nn

from bridge import FlowVAE, as_autoregressive, as_flow, as_linear_vae, as_ppca, as_vae
from density import DiagonalGaussian, ExactModel, Gaussian, StandardNormal
from flows import (
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    LULinear,
    QRLinear,
    glow,
    iaf,
    linear_flow,
    maf,
    real_nvp,
)
from flows.layers.linear_maps.linear import Linear
from lvm import PPCA, VAE, GaussianMixture, LinearVAE
from tests.bridge.comparison import BAR, Record, normal, relative
from tests.laws.transforms import randomise

LINEAR = [LULinear, QRLinear]

# ---------------------------------------------------------------------------------------------------------------------
# Flows, Gaussians, PPCA, linear VAE
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_flow(4),
        lambda: linear_flow(4, QRLinear),
        lambda: real_nvp(4, 3, (8,)),
        lambda: maf(4, 2, (8,)),
        lambda: iaf(4, 2, (8,)),
        lambda: glow(4, 2, (8,)),
    ],
)
def test_as_vae(make: Callable[[], Flow], generator: Generator, record_measurement: Record) -> None:
    flow = randomise(make(), generator)
    vae = as_vae(flow)
    x = normal(generator, 50, 4)
    assert isinstance(vae, FlowVAE)
    record_measurement("conversion: flow → VAE", relative(flow.log_prob(x), vae.log_prob(x)), BAR)
    record_measurement("conversion: flow → VAE", relative(flow.log_prob(x), vae.elbo(x, draws=3)), BAR)
    assert {id(p) for p in vae.parameters()} == {id(p) for p in flow.parameters()}


GAUSSIANS: dict[str, Callable[[int], ExactModel | StandardNormal]] = {
    "Gaussian": Gaussian,
    "diagonal Gaussian": DiagonalGaussian,
    "standard normal": StandardNormal,
    "PPCA, q = 1": lambda d: PPCA(d, 1),
    "PPCA, q = D − 1": lambda d: PPCA(d, d - 1),
    "linear VAE, q = 1": lambda d: LinearVAE(d, 1),
    "linear VAE, q = D": lambda d: LinearVAE(d, d),
    "linear VAE, q > D": lambda d: LinearVAE(d, d + 2),
}


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("features", [2, 6, 20])
@pytest.mark.parametrize("name", GAUSSIANS)
def test_as_flow(
    name: str, features: int, linear: type[Linear], generator: Generator, record_measurement: Record
) -> None:
    model = randomise(GAUSSIANS[name](features), generator, 0.7 if features < 20 else 0.2)
    flow = as_flow(model, linear)
    assert isinstance(flow.transform, linear)
    x = 2 * normal(generator, 60, features)
    record_measurement(
        "conversion: Gaussian, PPCA, linear VAE → flow", relative(model.log_prob(x), flow.log_prob(x)), BAR
    )
    draws = flow.sample(20_000, generator=generator).detach()
    theirs = model.sample(20_000, generator=generator).detach()
    size = theirs.std(0)
    assert ((draws.mean(0) - theirs.mean(0)) / size).abs().max() < 0.06
    assert ((draws.T.cov() - theirs.T.cov()) / torch.outer(size, size)).abs().max() < 0.1
    with torch.no_grad():
        model_before = model.log_prob(x)
        for parameter in flow.parameters():
            parameter.add_(1.0)
        assert model.log_prob(x).equal(model_before), "the flow shares memory with the model"


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("std", [1e-2, 1e-5])
def test_as_flow_keeps_its_digits_when_the_noise_is_small(
    std: float, linear: type[Linear], generator: Generator, record_measurement: Record
) -> None:
    """Condition (s/σ)² of Σ is 1e10 at σ = 1e-5. The oracle is scipy on Σ's eigenvectors, without forming Σ."""
    model = randomise(PPCA(5, 2), generator, 0.7)
    with torch.no_grad():
        model.decoder.log_std.fill_(float(np.log(std)))
    x = model.sample(100, generator=generator).detach()
    axes, singular, _ = np.linalg.svd(model.decoder.weight.detach().numpy(), full_matrices=True)
    scale = np.full(5, std)
    scale[:2] = np.hypot(singular, std)
    along = (x - model.decoder.mean.detach()).numpy() @ axes
    expected = torch.from_numpy(stats.norm.logpdf(along, scale=scale).sum(1))
    # (x − μ)/σ itself rounds: x is of size 1, so by 1e-16/σ, and log p by that times its size.
    error = relative(expected, as_flow(model, linear).log_prob(x))
    record_measurement(f"conversion: PPCA → flow at σ = {std:g}", error, max(BAR, 1e-15 / std))


@pytest.mark.parametrize(("features", "latent"), [(2, 1), (6, 3), (20, 7)])
def test_ppca_and_linear_vae(features: int, latent: int, generator: Generator, record_measurement: Record) -> None:
    ppca = randomise(PPCA(features, latent), generator, 0.7)
    x = 2 * normal(generator, 60, features)
    log_p = ppca.log_prob(x)
    vae = as_linear_vae(ppca)
    record_measurement("conversion: PPCA → linear VAE", relative(log_p, vae.log_prob(x)), BAR)
    # The diagonal encoder of a turned latent is the posterior: nothing is lost.
    record_measurement("conversion: PPCA → linear VAE, its ELBO", relative(log_p, vae.elbo_closed_form(x)), BAR)
    assert vae.log_weights(x, 5, generator=generator).std(0).max() < 1e-8
    gram = vae.decoder.weight.mT @ vae.decoder.weight
    assert (gram - gram.diagonal().diag()).abs().max() < 1e-10
    record_measurement("conversion: linear VAE → PPCA", relative(log_p, as_ppca(vae).log_prob(x)), BAR)
    # From any linear VAE, whose encoder was worse.
    vae = randomise(LinearVAE(features, latent), generator, 0.7)
    ppca = as_ppca(vae)
    record_measurement("conversion: linear VAE → PPCA", relative(vae.log_prob(x), ppca.log_prob(x)), BAR)
    assert ppca.decoder.weight.equal(vae.decoder.weight)
    assert ppca.decoder.weight.data_ptr() != vae.decoder.weight.data_ptr()
    assert (vae.log_prob(x) - vae.elbo_closed_form(x)).min() > 0.01
    z = ppca.encode(x)
    turned = as_linear_vae(ppca)
    assert (torch.linalg.svdvals(torch.linalg.lstsq(z, turned.encode(x)).solution) - 1).abs().max() < 1e-8


def test_conversions_keep_dtype(generator: Generator) -> None:
    ppca = PPCA(4, 2)
    x = normal(generator, 5, 4).float()
    for model in (as_flow(ppca), as_linear_vae(ppca), as_ppca(as_linear_vae(ppca)), as_flow(Gaussian(4))):
        assert model.log_prob(x).dtype == torch.float32
    assert as_autoregressive(AffineCoupling([True, False]).double())(x[:, :2].double())[0].dtype == torch.float64


def test_what_is_no_linear_flow_says_why() -> None:
    network = VAE.gaussian(3, 2, hidden=(4,))
    for model, reason in (
        (GaussianMixture(3, 2), "GaussianMixture is not one Gaussian"),
        (network, "VAE has no exact log p"),
        (linear_flow(3), "Flow is a flow already"),
        (LULinear(3), "got LULinear"),
        (None, "got NoneType"),
    ):
        with pytest.raises(TypeError, match=f"as_flow takes a Gaussian, PPCA or LinearVAE; {reason}"):
            as_flow(model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="FlowVAE takes a Flow; got PPCA"):
        as_vae(PPCA(3, 1))  # type: ignore[arg-type]
    assert as_vae(glow(3, 2, (4,), context_features=2)).context_features == 2
    with pytest.raises(TypeError, match="as_linear_vae takes a PPCA; got LinearVAE"):
        as_linear_vae(LinearVAE(3, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="as_ppca takes a LinearVAE; got PPCA"):
        as_ppca(PPCA(3, 1))  # type: ignore[arg-type]
    for latent in (3, 4):
        with pytest.raises(ValueError, match=f"this linear VAE has {latent} for 3.*take as_flow"):
            as_ppca(LinearVAE(3, latent))


# ---------------------------------------------------------------------------------------------------------------------
# Coupling to autoregressive
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_features", [0, 3])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 9)])
@pytest.mark.parametrize("mask", [[1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1], [0, 1]])
def test_as_autoregressive(
    mask: list[int], hidden: Sequence[int], context_features: int, generator: Generator, record_measurement: Record
) -> None:
    """As densities; z itself, both ways, is tests/equivalence's."""
    coupling = AffineCoupling([bool(m) for m in mask], hidden, context_features, log_scale_bound=2.0)
    coupling = randomise(coupling, generator, 0.5)
    layer = as_autoregressive(coupling)
    x, context = normal(generator, 40, len(mask)), normal(generator, 40, context_features) if context_features else None
    base = StandardNormal(len(mask)).double()
    before, after = Flow(base, coupling).log_prob(x, context), Flow(base, layer).log_prob(x, context)
    record_measurement("conversion: coupling → autoregressive", relative(before, after), BAR)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1.0)
    assert Flow(base, coupling).log_prob(x, context).equal(before), "memory is shared"
    # No feature looks at what it may not, whatever the weights become.
    jacobian = torch.autograd.functional.jacobian(
        lambda row: layer(row, None if context is None else context[0])[0], x[0]
    )[layer.order][:, layer.order]
    assert (jacobian.triu(1) == 0).all()


def test_as_autoregressive_takes_any_activation(generator: Generator) -> None:
    net = nn.Sequential(nn.Linear(2, 6, bias=False), nn.Tanh(), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    coupling = randomise(AffineCoupling([True, False, True], conditioner=net), generator, 0.5)
    layer = as_autoregressive(coupling)
    x = normal(generator, 20, 3)
    for one, other in zip(coupling(x), layer(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert all(a is not b for a, b in zip(coupling.modules(), layer.modules(), strict=False))


def test_without_any_feature_to_condition_on(generator: Generator) -> None:
    coupling = randomise(AffineCoupling([False, False], (5,), context_features=2), generator, 0.5)
    x, context = normal(generator, 20, 2), normal(generator, 20, 2)
    torch.testing.assert_close(as_autoregressive(coupling)(x, context)[0], coupling(x, context)[0])


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2)), "Linear, Linear"),
        (nn.Sequential(nn.Linear(1, 4), nn.SiLU(), nn.Linear(4, 2), nn.Tanh()), "Linear, SiLU, Linear, Tanh"),
        (nn.Sequential(nn.Linear(1, 2), nn.Sequential(nn.Linear(2, 2)), nn.Identity()), "Linear, Sequential, Identity"),
        (nn.Bilinear(1, 1, 2), "Bilinear"),
        (nn.Sequential(), ""),
    ],
)
def test_a_network_that_cannot_be_masked_says_so(net: nn.Module, names: str) -> None:
    with pytest.raises(ValueError, match=f"this coupling's network is {names}. Give GaussianAutoregressive a masked"):
        as_autoregressive(AffineCoupling([True, False], conditioner=net))


@pytest.mark.parametrize(
    "other", [GaussianAutoregressive(2), Chain(AffineCoupling([True, False])), real_nvp(2, 2, (4,))]
)
def test_only_one_coupling_is_one_autoregressive_layer(other: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"takes one AffineCoupling; got \w+\. The couplings of a flow become"):
        as_autoregressive(other)  # type: ignore[arg-type]
