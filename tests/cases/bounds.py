"""The table of models with log-weights that the laws are tried on: a new model is one new line."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Generator, Tensor, nn

from bridge import FlowVAE
from density import (
    BernoulliLikelihood,
    Categorical,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    FixedScale,
    GlobalScale,
    Masked,
    NetworkScale,
    PerFeatureScale,
    Rescaled,
    ScaleModel,
    StandardNormal,
    Timed,
    mlp,
)
from flows import Flow, Inverse, LULinear, glow, maf, real_nvp
from lvm import (
    PPCA,
    VAE,
    FiniteMixture,
    GaussianDiffusion,
    GaussianMixture,
    HierarchicalVAE,
    LatentVariableModel,
    LayeredModel,
    LearnedSchedule,
    LinearVAE,
)
from tests.laws.bounds import BoundCase
from tests.laws.density_case import grid
from tests.laws.transforms import randomise
from tests.lvm.diffusion.gaussians import chain_log_prob

FEATURES = 3
CONTEXT = 2


def broad_encoder(latent: int, std: float = 1.5) -> Density:
    """Close to N(0, std²) whatever x is, and so broader than the posterior: weights of small variance."""
    network = nn.Linear(FEATURES, 2 * latent)
    with torch.no_grad():
        network.weight.mul_(0.2)
        network.bias.copy_(torch.cat([torch.zeros(latent), torch.full((latent,), math.log(std))]))
    return ConditionalGaussian(network, latent, FEATURES, NetworkScale())


def gaussian_decoder(latent: int, scale: ScaleModel, hidden: tuple[int, ...] = (8,)) -> Density:
    network = mlp(latent, scale.outputs * FEATURES, hidden, nn.Tanh)
    return ConditionalGaussian(network, FEATURES, latent, scale)


def vae(make: Callable[[], VAE]) -> Callable[[Generator], VAE]:
    """In float64 with random decoder, prior and embedding, and a slightly random encoder."""

    def build(generator: Generator) -> VAE:
        model = make()
        randomise(model.encoder, generator, 0.03)
        randomise(model.decoder, generator, 0.2)
        randomise(model.prior, generator, 0.3)
        if model.embedding is not None:
            randomise(model.embedding, generator, 0.3)
        return model

    return build


def hierarchical(generator: Generator) -> HierarchicalVAE:
    model = linear_hierarchy()
    randomise(model.encoder, generator, 0.03)
    randomise(model.prior, generator, 0.2)
    randomise(model.decoder, generator, 0.2)
    return model


def random(make: Callable[[], LayeredModel]) -> Callable[[Generator], LayeredModel]:
    return lambda generator: randomise(make(), generator, 0.4)


def rescaled_vae() -> VAE:
    """With an encoder that sees which entries are observed, and is about N(0, 1.5²)."""
    read = nn.Linear(2 * FEATURES, 2)
    with torch.no_grad():
        read.weight.mul_(0.1)
        read.bias.copy_(torch.tensor([0.0, math.log(1.5)]))
    encoder = ConditionalGaussian(nn.Sequential(Masked(FEATURES), read), 1, FEATURES)
    decoder = Rescaled(gaussian_decoder(1, PerFeatureScale(FEATURES, 0.8)))
    decoder.standardise.shift.copy_(torch.tensor([0.5, -0.3, 0.1]))
    decoder.standardise.scale.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return VAE(StandardNormal(1), encoder, decoder)


def flow_encoder() -> Density:
    """A conditional base, stretched by a flow: it still covers the posterior."""
    return Flow(broad_encoder(2), Inverse(LULinear(2)))


def linear_hierarchy() -> HierarchicalVAE:
    """Latents of widths 2, 1 and 1, whose encoders are broad."""
    encoders: list[Density] = [broad_encoder(2), *(broad_given(1, below) for below in (2, 1))]
    decoders: list[Density] = [linear_of(FEATURES, 2, 0.9), linear_of(2, 1, 0.8), linear_of(1, 1, 0.7)]
    return HierarchicalVAE(StandardNormal(1), encoders, decoders)


def broad_given(latent: int, below: int) -> Density:
    return ConditionalGaussian(damped(nn.Linear(below, 2 * latent), latent), latent, below)


def by_quadrature(model: LayeredModel, x: Tensor) -> Tensor:
    """log ∫ p(z) p(x|z) dz by the trapezoid rule, which converges faster than any power for these integrands."""
    assert isinstance(model, LatentVariableModel)
    latent = model.prior.features
    edge = torch.full((latent,), 9.0, dtype=x.dtype)
    z, cell = grid(-edge, edge, 2001 if latent == 1 else 181)
    with torch.no_grad():
        return model.log_joint(x, z.to(x.device).unsqueeze(1)).logsumexp(0) + math.log(cell)


def by_enumeration(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, VAE)
    assert isinstance(model.prior, Categorical)
    with torch.no_grad():
        return model.log_joint(x, model.prior.enumerate().unsqueeze(1)).logsumexp(0)


def by_scipy(model: LayeredModel, x: Tensor) -> Tensor:
    """A linear decoder: N(b, W Wᵀ + σ²I)."""
    assert isinstance(model, VAE)
    decoder = model.decoder
    assert isinstance(decoder, ConditionalGaussian)
    assert isinstance(decoder.scale, GlobalScale)
    (layer,) = decoder.network.children()
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach()
    covariance = weight @ weight.mT + (2 * decoder.scale.log_std.detach()).exp() * torch.eye(FEATURES).to(weight)
    density = stats.multivariate_normal(layer.bias.detach().cpu().numpy(), covariance.cpu().numpy())
    return torch.as_tensor(density.logpdf(x.cpu().numpy())).to(x)


def by_composition(model: LayeredModel, x: Tensor) -> Tensor:
    """Linear decoders, one after the other: a Gaussian whose moments are carried down level by level."""
    assert isinstance(model, HierarchicalVAE)
    mean, covariance = torch.zeros(1).to(x), torch.eye(1).to(x)
    for decoder in (*reversed(model.prior.parts[:-1]), model.decoder.density):
        assert isinstance(decoder, ConditionalGaussian)
        named = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
        weight, noise = named["network.weight"], (2 * named["scale.log_std"]).exp()
        mean = weight @ mean + named["network.bias"]
        covariance = weight @ covariance @ weight.mT + noise * torch.eye(len(weight)).to(x)
    density = stats.multivariate_normal(mean.cpu().numpy(), covariance.cpu().numpy())
    return torch.as_tensor(density.logpdf(x.cpu().numpy())).to(x)


def by_its_marginal(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, PPCA | LinearVAE)
    decoder = model.decoder
    weight = decoder.weight.detach()
    covariance = weight @ weight.mT + (2 * decoder.log_std.detach()).exp() * torch.eye(FEATURES).to(weight)
    density = stats.multivariate_normal(decoder.mean.detach().cpu().numpy(), covariance.cpu().numpy())
    return torch.as_tensor(density.logpdf(x.cpu().numpy())).to(x)


def affine_diffusion(generator: Generator) -> GaussianDiffusion:
    """Of little noise after much: decoders far from the encoder's posterior have weights without a variance."""
    network = randomise(Timed(nn.Linear(FEATURES + 1, FEATURES), FEATURES, unit=10.0), generator, 0.05)
    schedule = LearnedSchedule(-1.0, 2.0, 4)
    return GaussianDiffusion(network, FEATURES, 2, schedule).to(generator.device, torch.float64)


def conditional_diffusion(generator: Generator) -> GaussianDiffusion:
    """The same, of a denoiser that is affine in the context too."""
    network = nn.Linear(FEATURES + 1 + CONTEXT, FEATURES)
    timed = randomise(Timed(network, FEATURES, CONTEXT, unit=10.0), generator, 0.05)
    schedule = LearnedSchedule(-1.0, 2.0, 4)
    model = GaussianDiffusion(timed, FEATURES, 2, schedule, context_features=CONTEXT)
    return model.to(generator.device, torch.float64)


def by_its_chain(model: LayeredModel, x: Tensor, context: Tensor | None = None) -> Tensor:
    assert isinstance(model, GaussianDiffusion)
    with torch.no_grad():
        if context is None:
            return chain_log_prob(model, x)
        return torch.cat([chain_log_prob(model, row[None], c) for row, c in zip(x, context, strict=True)])


def by_components(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, GaussianMixture)
    total = torch.zeros(len(x), dtype=x.dtype)
    for k in range(model.components):
        component = stats.multivariate_normal(model.means[k].detach().numpy(), model.covariances[k].detach().numpy())
        total += model.weights[k].detach() * torch.as_tensor(component.pdf(x.numpy()))
    return total.log()


def by_bits(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, FiniteMixture)
    p = model.decoder.numbers.detach().sigmoid()
    return (model.weights.detach() * (x.unsqueeze(1) * p + (1 - x.unsqueeze(1)) * (1 - p)).prod(-1)).sum(-1).log()


def by_autograd(model: LayeredModel, x: Tensor, context: Tensor | None = None) -> Tensor:
    """The base at f(x) and the Jacobian's determinant, row by row."""
    assert isinstance(model, FlowVAE)
    flow = model.link
    values = []
    for i, row in enumerate(x):
        behind = x.new_zeros(0) if context is None else context[i]
        jacobian = torch.autograd.functional.jacobian(lambda r: flow.infer(torch.cat([r, behind]))[0][0], row)  # noqa: B023
        z = flow.infer(torch.cat([row, behind]))[0][0].detach()
        values.append(stats.norm.logpdf(z.cpu().numpy()).sum() + float(torch.linalg.slogdet(jacobian).logabsdet))
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def conditional_encoder(latent: int, seen: int) -> Density:
    return ConditionalGaussian(damped(nn.Linear(FEATURES + seen, 2 * latent), latent), latent, FEATURES + seen)


def damped(network: nn.Linear, latent: int, std: float = 1.5) -> nn.Linear:
    """Close to mean 0 and log σ = log std whatever it reads."""
    with torch.no_grad():
        network.weight.mul_(0.2)
        network.bias.copy_(torch.cat([torch.zeros(latent), torch.full((latent,), math.log(std))]))
    return network


def linear_of(features: int, context: int, std: float) -> ConditionalGaussian:
    return ConditionalGaussian(nn.Linear(context, features), features, context, GlobalScale(std))


def conditional_linear() -> VAE:
    """Every part linear and Gaussian, the prior too, on features that a linear embedding makes of contexts."""
    seen = 3
    return VAE(
        linear_of(2, seen, 0.8),
        conditional_encoder(2, seen),
        linear_of(FEATURES, 2 + seen, 0.9),
        CONTEXT,
        nn.Linear(CONTEXT, seen),
    )


def conditional_bits() -> VAE:
    network = mlp(1 + CONTEXT, FEATURES, (8,), nn.Tanh)
    decoder = ConditionalBernoulli(network, FEATURES, 1 + CONTEXT)
    return VAE(StandardNormal(1), conditional_encoder(1, CONTEXT), decoder, CONTEXT)


def by_scipy_given(model: LayeredModel, x: Tensor, context: Tensor) -> Tensor:
    """z ~ N(A h + a, s² I) and x ~ N(W z + V h + b, σ² I): N(W (A h + a) + V h + b, s² W Wᵀ + σ² I), row by row."""
    assert isinstance(model, VAE)
    prior, decoder, embedding = model.prior, model.decoder, model.embedding
    assert isinstance(prior, ConditionalGaussian)
    assert isinstance(decoder, ConditionalGaussian)
    assert isinstance(embedding, nn.Linear)
    matrices = {name: p.detach() for name, p in model.named_parameters()}
    h = context @ matrices["embedding.weight"].mT + matrices["embedding.bias"]
    weight, direct = matrices["decoder.network.weight"].split([prior.features, h.shape[1]], 1)
    mean_z = h @ matrices["prior.network.weight"].mT + matrices["prior.network.bias"]
    mean = mean_z @ weight.mT + h @ direct.mT + matrices["decoder.network.bias"]
    s, sigma = (matrices[f"{part}.scale.log_std"].exp() for part in ("prior", "decoder"))
    covariance = s**2 * weight @ weight.mT + sigma**2 * torch.eye(FEATURES).to(weight)
    rows = [stats.multivariate_normal(m.cpu().numpy(), covariance.cpu().numpy()) for m in mean]
    return torch.tensor([d.logpdf(r.cpu().numpy()) for d, r in zip(rows, x, strict=True)]).to(x)


def by_quadrature_given(model: LayeredModel, x: Tensor, context: Tensor) -> Tensor:
    """As :func:`by_quadrature`, of one latent with a standard normal prior."""
    assert isinstance(model, VAE)
    z, cell = grid(*(sign * torch.full((1,), 9.0, dtype=x.dtype) for sign in (-1, 1)), 2001)
    with torch.no_grad():
        return model.log_joint(x, z.to(x.device).unsqueeze(1), context).logsumexp(0) + math.log(cell)


BOUNDS: dict[str, BoundCase] = {
    "diffusion, affine denoiser": BoundCase(affine_diffusion, by_its_chain),
    "diffusion, context": BoundCase(conditional_diffusion, by_its_chain),
    "VAE, linear decoder": BoundCase(
        vae(lambda: VAE(StandardNormal(2), broad_encoder(2), gaussian_decoder(2, GlobalScale(0.9), ()))), by_scipy
    ),
    "VAE, fixed σ": BoundCase(
        vae(lambda: VAE(StandardNormal(1), broad_encoder(1), gaussian_decoder(1, FixedScale(0.8)))), by_quadrature
    ),
    "VAE, network σ, 2 latents": BoundCase(
        vae(lambda: VAE(StandardNormal(2), broad_encoder(2), gaussian_decoder(2, NetworkScale(0.5)))), by_quadrature
    ),
    "VAE, rescaled, of observed entries": BoundCase(lambda g: vae(rescaled_vae)(g).observed, by_quadrature),
    "VAE, Bernoulli": BoundCase(
        vae(
            lambda: VAE(
                StandardNormal(1), broad_encoder(1), ConditionalBernoulli(mlp(1, FEATURES, (8,), nn.Tanh), FEATURES, 1)
            )
        ),
        by_quadrature,
        binary=True,
    ),
    "VAE, mixture prior": BoundCase(
        vae(lambda: VAE(GaussianMixture(2, 3), broad_encoder(2), gaussian_decoder(2, PerFeatureScale(FEATURES)))),
        by_quadrature,
    ),
    "VAE, flow prior": BoundCase(
        vae(lambda: VAE(real_nvp(2, 2, (6,)), broad_encoder(2, 2.5), gaussian_decoder(2, GlobalScale()))), by_quadrature
    ),
    "VAE, flow encoder": BoundCase(
        vae(lambda: VAE(StandardNormal(2), flow_encoder(), gaussian_decoder(2, GlobalScale()))), by_quadrature
    ),
    "VAE, coupling encoder": BoundCase(
        vae(
            lambda: VAE(
                StandardNormal(2),
                glow(2, 2, (4,), FEATURES),
                gaussian_decoder(2, GlobalScale(2.0)),
            )
        ),
        by_quadrature,
    ),
    "VAE, categorical latent": BoundCase(
        vae(
            lambda: VAE(
                Categorical(4),
                ConditionalCategorical(nn.Linear(FEATURES, 4), 4, FEATURES),
                gaussian_decoder(4, GlobalScale()),
            )
        ),
        by_enumeration,
    ),
    "VAE, linear, context": BoundCase(vae(conditional_linear), by_scipy_given),
    "VAE, Bernoulli, context": BoundCase(vae(conditional_bits), by_quadrature_given, binary=True),
    "HierarchicalVAE": BoundCase(hierarchical, by_composition),
    "LinearVAE": BoundCase(random(lambda: LinearVAE(FEATURES, 2)), by_its_marginal),
    "PPCA": BoundCase(random(lambda: PPCA(FEATURES, 2)), by_its_marginal, exact=True),
    "GaussianMixture": BoundCase(random(lambda: GaussianMixture(FEATURES, 3)), by_components, exact=True),
    "FiniteMixture": BoundCase(
        random(lambda: FiniteMixture(FEATURES, 3, BernoulliLikelihood())), by_bits, exact=True, binary=True
    ),
    "FlowVAE": BoundCase(random(lambda: FlowVAE(maf(FEATURES, 2, (6,), base=StandardNormal))), by_autograd, exact=True),
    "FlowVAE, context": BoundCase(
        random(lambda: FlowVAE(maf(FEATURES, 2, (6,), CONTEXT, base=StandardNormal))), by_autograd, exact=True
    ),
}
