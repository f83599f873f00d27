"""The table of models that take units from data, for the law of units: a new model is one new line."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bridge import (
    Abs,
    Augmentation,
    DeltaLink,
    Featured,
    FlowVAE,
    GaussianRelaxation,
    HalfNormal,
    LinkChain,
    Log,
    Max,
    ReLU,
    Slice,
    Sort,
    Spacings,
    StochasticPermutation,
    UniformDequantisation,
    VariationalDequantisation,
    coupling_posterior,
    flow_with_vae_top,
    layered,
    with_flow_decoder,
    with_flow_prior,
    with_posterior,
)
from density import ConditionalBernoulli, ConditionalGaussian, Rescaled, Standardisation, StandardNormal, mlp
from flows import (
    ActNorm,
    Chain,
    ElementwiseSpline,
    EmbeddedContext,
    Flow,
    Inverse,
    LULinear,
    Permutation,
    QRLinear,
    StandardisedContext,
    glow,
    iaf,
    linear_flow,
    maf,
    neural_spline_flow,
    real_nvp,
    spline_maf,
)
from lvm import VAE, GaussianMixture, StochasticLink
from tests.laws.units import UnitsCase

NARROW = (6,)
ONLY_SCALED = 0.0


def vae() -> VAE:
    return VAE.gaussian(3, 2, hidden=NARROW)


def standardised(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Standardisation(inputs), mlp(inputs, outputs, NARROW))


def positive(x: Tensor) -> Tensor:
    return x.abs() + 0.1


def rectified(x: Tensor) -> Tensor:
    return x.clamp_min(0)


def integers(x: Tensor) -> Tensor:
    return (3 * x).floor()


def conditional(make: Callable[[], Flow]) -> UnitsCase:
    return UnitsCase(lambda unit: make(), 3, 2)


FLOWS: dict[str, UnitsCase] = {
    "linear, lu": UnitsCase(lambda unit: linear_flow(3), 3),
    "linear, qr": UnitsCase(lambda unit: linear_flow(3, QRLinear), 3),
    "real nvp": UnitsCase(lambda unit: real_nvp(3, 2, NARROW), 3),
    "glow": UnitsCase(lambda unit: glow(3, 2, NARROW), 3),
    "neural spline flow": UnitsCase(lambda unit: neural_spline_flow(3, 2, NARROW), 3),
    "maf": UnitsCase(lambda unit: maf(3, 2, NARROW), 3),
    "iaf": UnitsCase(lambda unit: iaf(3, 2, NARROW), 3),
    "spline maf": UnitsCase(lambda unit: spline_maf(3, 2, NARROW), 3),
    "real nvp, context": conditional(lambda: real_nvp(3, 2, NARROW, 2)),
    "glow, context": conditional(lambda: glow(3, 2, NARROW, 2)),
    "neural spline flow, context": conditional(lambda: neural_spline_flow(3, 2, NARROW, 2)),
    "maf, context": conditional(lambda: maf(3, 2, NARROW, 2)),
    "iaf, context": conditional(lambda: iaf(3, 2, NARROW, 2)),
    "spline maf, context": conditional(lambda: spline_maf(3, 2, NARROW, 2)),
    "embedded context": conditional(
        lambda: Flow(StandardNormal(3), EmbeddedContext(standardised(2, 4), real_nvp(3, 2, NARROW, 4).transform, 2))
    ),
    "conditional base, standardised": conditional(
        lambda: Flow(ConditionalGaussian(standardised(2, 6), 3, 2), Chain(ActNorm(3), LULinear(3)))
    ),
    "context inside an inverse": conditional(
        lambda: Flow(
            StandardNormal(3), Chain(ActNorm(3), Inverse(real_nvp(3, 2, NARROW, 2).transform), ActNorm(3), LULinear(3))
        )
    ),
    "elementwise spline": UnitsCase(
        lambda unit: Flow(StandardNormal(3), Chain(ActNorm(3), ElementwiseSpline(3), maf(3, 1, NARROW).transform)), 3
    ),
    "flow on a flow": UnitsCase(lambda unit: Flow(maf(3, 1, NARROW), Permutation([2, 0, 1])), 3),
    "flow on a conditional flow": conditional(lambda: Flow(maf(3, 2, NARROW, 2), Permutation([2, 0, 1]))),
    "flow on a rescaled": UnitsCase(lambda unit: Flow(Rescaled(maf(3, 1, NARROW)), Permutation([2, 0, 1])), 3),
}

MODELS: dict[str, UnitsCase] = {
    "FlowVAE": UnitsCase(lambda unit: FlowVAE(maf(3, 2, NARROW)), 3),
    "FlowVAE, context": UnitsCase(lambda unit: FlowVAE(maf(3, 2, NARROW, 2)), 3, 2),
    "VAE, context": UnitsCase(lambda unit: VAE.gaussian(3, 2, hidden=NARROW, context_features=2), 3, 2),
    "VAE, embedding": UnitsCase(
        lambda unit: VAE.gaussian(3, 2, hidden=NARROW, context_features=2, embedding=standardised(2, 4)), 3, 2
    ),
    "relaxation": UnitsCase(  # which is built in float32, with a σ that is rounded so
        lambda unit: GaussianRelaxation(real_nvp(3, 2, NARROW), 0.1 * unit), 3, tolerance=1e-6
    ),
    "VAE": UnitsCase(lambda unit: vae(), 3),
    "VAE, flow prior": UnitsCase(lambda unit: with_flow_prior(vae(), real_nvp(2, 2, NARROW)), 3),
    "VAE, flow posterior": UnitsCase(
        lambda unit: with_posterior(vae(), coupling_posterior(3, 2, layers=2, hidden=NARROW, standardise=True)), 3
    ),
    "VAE, conditional flow as encoder": UnitsCase(lambda unit: with_posterior(vae(), glow(2, 2, NARROW, 3)), 3),
    "VAE, flow decoder": UnitsCase(lambda unit: with_flow_decoder(vae(), layers=2, hidden=NARROW), 3),
    "VAE, flow decoder that starts itself": UnitsCase(
        lambda unit: with_flow_decoder(vae(), layers=2, hidden=NARROW, standardise=False), 3
    ),
    "VAE on a flow": UnitsCase(lambda unit: flow_with_vae_top(real_nvp(3, 2, NARROW).transform, vae()), 3),
    "link of encoder and decoder": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), StochasticLink(vae().encoder, vae().decoder)), 3
    ),
    "max": UnitsCase(lambda unit: layered(maf(2, 1, NARROW), Max(2, 2)), 4),
    "max, given z": UnitsCase(lambda unit: layered(maf(2, 1, NARROW), Max(2, 2, HalfNormal(2, 2))), 4),
    "slice": UnitsCase(lambda unit: layered(maf(1, 1, NARROW), Slice(3, [1], maf(2, 1, NARROW))), 3),
    "slice, given z": UnitsCase(lambda unit: layered(maf(2, 1, NARROW), Slice(3, [2, 0], maf(1, 1, NARROW, 2))), 3),
    "slice of a rescaled, given z": UnitsCase(
        lambda unit: layered(
            maf(2, 1, NARROW), Slice(3, [2, 0], Rescaled(ConditionalGaussian(standardised(2, 2), 1, 2)))
        ),
        3,
    ),
    "max under a mixture": UnitsCase(lambda unit: layered(Rescaled(GaussianMixture(2, 3)), Max(2, 2)), 4),
    "layers in layers": UnitsCase(
        lambda unit: layered(
            layered(maf(1, 1, NARROW), Slice(2, [0], maf(1, 1, NARROW, 1))), Slice(3, [2, 0], maf(1, 1, NARROW, 2))
        ),
        3,
    ),
    "augmentation": UnitsCase(lambda unit: layered(maf(4, 1, NARROW), Augmentation(3, maf(1, 1, NARROW, 3))), 3),
    "augmentation, independent": UnitsCase(
        lambda unit: layered(maf(4, 1, NARROW), Augmentation(3, StandardNormal(1))), 3
    ),
    "stochastic permutation": UnitsCase(lambda unit: layered(maf(3, 1, NARROW), StochasticPermutation(3)), 3),
    "sort": UnitsCase(lambda unit: layered(maf(3, 1, NARROW), LinkChain(Sort(3), DeltaLink(Spacings(3)))), 3),
    "abs": UnitsCase(lambda unit: layered(HalfNormal(2), Abs(2)), 2, shift=ONLY_SCALED),
    "abs on a flow": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), LinkChain(Abs(2), DeltaLink(Log(), 2))),
        2,
        shift=ONLY_SCALED,
        told=False,
    ),
    "abs, signs given z": UnitsCase(
        lambda unit: layered(HalfNormal(2), Abs(2, signs=ConditionalBernoulli(standardised(2, 2), 2, 2))),
        2,
        shift=ONLY_SCALED,
    ),
    "relu": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), ReLU(2)),
        2,
        domain=rectified,
        shift=ONLY_SCALED,
        counted=lambda x: (x > 0).double().sum(-1),
    ),
    "relu, given x": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), ReLU(2, HalfNormal(2, 2))),
        2,
        domain=rectified,
        shift=ONLY_SCALED,
        counted=lambda x: (x > 0).double().sum(-1),
    ),
    "uniform dequantisation": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), UniformDequantisation(2)), 2, domain=integers, scales=(1.0,), shift=1e3
    ),
    "variational dequantisation": UnitsCase(
        lambda unit: layered(maf(2, 1, NARROW), VariationalDequantisation(glow(2, 2, NARROW, 2))),
        2,
        domain=integers,
        scales=(1.0,),
        shift=1e3,
    ),
}

PARTS: dict[str, UnitsCase] = {
    "standardised context": UnitsCase(
        lambda unit: Flow(StandardNormal(3), StandardisedContext(real_nvp(3, 2, NARROW, 2).transform)), 3, 2
    ),
    "features of a context": UnitsCase(
        lambda unit: Featured(nn.Sequential(Standardisation(2), nn.Linear(2, 4)), maf(3, 2, NARROW, 4), 2), 3, 2
    ),
    "half-normal": UnitsCase(lambda unit: HalfNormal(3), 3, domain=positive, shift=ONLY_SCALED),
    "half-normal, context": UnitsCase(
        lambda unit: HalfNormal(3, 2), 3, 2, domain=positive, shift=ONLY_SCALED, least_told=1e3
    ),
    "rescaled": UnitsCase(lambda unit: Rescaled(StandardNormal(3)), 3),
}

UNITS: dict[str, UnitsCase] = FLOWS | MODELS | PARTS
