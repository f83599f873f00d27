"""The same density in another form: flows, Gaussians, PPCA, linear VAEs, coupling and autoregressive layers.

A conversion copies numbers; from then on the two sides live apart (``as_vae`` alone shares, being the same flow).
Densities are equal to rounding. What has no counterpart is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from bridge.flow_vae import FlowVAE
from density.contract import Bound, Density, ExactModel
from density.families.gaussian import DiagonalGaussian, Gaussian, StandardNormal
from flows.flow import Flow
from flows.layers.conditional.autoregressive import GaussianAutoregressive
from flows.layers.conditional.coupling import AffineCoupling
from flows.layers.linear_maps.linear import Linear
from flows.layers.linear_maps.lu import LULinear
from flows.networks.masked import MaskedLinear, MaskedMLP
from lvm.linear_gaussian import LinearGaussian
from lvm.ppca.model import PPCA
from lvm.ppca.spectrum import fix_signs
from lvm.vae.linear import LinearVAE


def as_vae(flow: Flow) -> FlowVAE:
    """The flow as the VAE with delta encoder and decoder that it is; parameters are shared.

    Raises:
        TypeError: not a Flow.
        ValueError: the flow is conditional.

    >>> from flows import linear_flow
    >>> as_vae(linear_flow(2)).elbo(torch.zeros(1, 2)).item()
    -1.8379
    """
    return FlowVAE(flow)


def as_flow(
    model: StandardNormal | DiagonalGaussian | Gaussian | PPCA | LinearVAE, linear: type[Linear] = LULinear
) -> Flow:
    r"""A Gaussian density as a linear flow z = Wx + b over a standard normal, W a root of its precision: WΣWᵀ = I.

    For N(μ, LLᵀ), W = L⁻¹. PPCA and the linear VAE have the marginal N(μ, AAᵀ + σ²I); with A = U diag(s) Vᵀ, U square,

    .. math:: W = \operatorname{diag}\big((s_i^2 + \sigma^2)^{-1/2}\big)\, U^\top,

    where forming the covariance would lose half the digits at small σ. The flow has D(D+1) parameters and no longer
    knows that it had q latents: z has all D coordinates, and training moves W freely. b = −Wμ: points whose mean is far
    from the origin, in units of the standard deviation, round by as much. O(D³), once.

    Args:
        model: whose ``log_prob`` the flow is to have. Of a linear VAE that is the exact marginal, not its ELBO.
        linear: how W is held, :class:`~flows.LULinear` or :class:`~flows.QRLinear`.

    Raises:
        TypeError: the model is not Gaussian, or has no density of its own.
        ValueError: W is singular to working precision.

    >>> model = PPCA(3, 1)
    >>> x = torch.ones(1, 3)
    >>> bool((as_flow(model).log_prob(x) - model.log_prob(x)).abs() < 1e-5)
    True
    """
    if isinstance(model, PPCA | LinearVAE):
        mean, root = model.decoder.mean.detach(), _root_of_precision(model.decoder)
    elif isinstance(model, StandardNormal | DiagonalGaussian | Gaussian):
        mean, scale = model.at(None)
        factor, mean = scale.dense().detach(), mean.detach()
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        root = torch.linalg.solve_triangular(factor, identity, upper=False)
    else:
        raise TypeError(_why_not_a_linear_flow(model))
    return Flow(StandardNormal(len(mean)).to(mean), linear.from_matrix(root, -root @ mean))


@torch.no_grad()
def as_linear_vae(ppca: PPCA) -> LinearVAE:
    r"""PPCA as a linear VAE with the same ``log_prob`` whose ELBO is log p(x) too.

    A rotation of the latent does not change p(x). W = U diag(s) Vᵀ is turned to principal axes, U diag(s), where the
    posterior's covariance is diagonal, so that the VAE's diagonal encoder is exact: gap 0 (Lucas et al. 2019). PPCA's
    latent is then V times the VAE's, up to signs. O(Dq²).

    Raises:
        TypeError: not a PPCA.

    >>> vae = as_linear_vae(PPCA(5, 2))
    >>> bool(vae.closed_form_gap().abs() < 1e-5)
    True
    """
    if not isinstance(ppca, PPCA):
        raise TypeError(f"as_linear_vae takes a PPCA; got {type(ppca).__name__}")
    decoder = ppca.decoder
    axes, singular, _ = torch.linalg.svd(decoder.weight, full_matrices=False)
    vae = LinearVAE(ppca.features, ppca.latent_features).to(decoder.weight)
    _set(vae.decoder, fix_signs(axes) * singular, decoder)
    vae.set_optimal_encoder()
    return vae


@torch.no_grad()
def as_ppca(vae: LinearVAE) -> PPCA:
    """The PPCA with a linear VAE's decoder: the same ``log_prob``, and an encoder that is exact instead of learnt.

    Raises:
        TypeError: not a LinearVAE.
        ValueError: it has as many latent features as features, or more.

    >>> vae = LinearVAE(5, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.ones(1, 5)
    >>> bool(as_ppca(vae).log_prob(x) >= vae.elbo_closed_form(x))
    True
    """
    if not isinstance(vae, LinearVAE):
        raise TypeError(f"as_ppca takes a LinearVAE; got {type(vae).__name__}")
    if vae.latent_features >= vae.features:
        raise ValueError(
            f"as_ppca: PPCA has fewer latent features than features, and this linear VAE has {vae.latent_features} for "
            f"{vae.features}. Its noise is then no longer identified: take as_flow(vae), or density.Gaussian"
        )
    ppca = PPCA(vae.features, vae.latent_features).to(vae.decoder.weight)
    _set(ppca.decoder, vae.decoder.weight, vae.decoder)
    return ppca


@torch.no_grad()
def as_autoregressive(coupling: AffineCoupling) -> GaussianAutoregressive:
    """A coupling as the autoregressive layer that it is: the same numbers in a masked network, the same z both ways.

    The features that pass come first and look at nothing; every hidden unit sees all of them, and every moved feature
    sees every hidden unit. The converse does not hold: an autoregressive layer is not a coupling, unless its network
    looks at no feature that it moves. The copy's inverse takes D passes of its network, the coupling's one.

    Raises:
        TypeError: not one AffineCoupling.
        ValueError: its network is not linear layers with an activation between two of them, as
            :func:`~density.families.nets.mlp` makes them, so that there are no weights to mask.

    >>> coupling = AffineCoupling([True, False, True])
    >>> x = torch.tensor([[1.0, 2.0, 3.0]])
    >>> as_autoregressive(coupling)(x)[0].equal(coupling(x)[0])
    True
    """
    if not isinstance(coupling, AffineCoupling):
        raise TypeError(
            f"as_autoregressive takes one AffineCoupling; got {type(coupling).__name__}. The couplings of a flow "
            "become autoregressive layers one by one: their composition is a chain of such layers, and not one of them"
        )
    dense, activations = _layers(coupling.conditioner)
    passed, moved, d = coupling.passed.cpu(), coupling.moved.cpu(), coupling.features
    order = torch.cat([passed, moved])
    between: Iterator[nn.Module] = iter(activations)
    net = MaskedMLP(
        order,
        context_features=coupling.context_features,
        activation=lambda: next(between),
        hidden_degrees=[torch.full((layer.out_features,), len(passed), device="cpu") for layer in dense[:-1]],
    )
    masked = [layer for layer in net.layers if isinstance(layer, MaskedLinear)]
    inputs = torch.cat([passed, torch.arange(d, d + coupling.context_features, device="cpu")])
    outputs = torch.cat([moved, d + moved])
    net = net.to(dense[0].weight)
    for to, of in zip(masked, dense, strict=True):
        rows = outputs if to is masked[-1] else torch.arange(of.out_features, device="cpu")
        columns = inputs if to is masked[0] else torch.arange(of.in_features, device="cpu")
        to.weight.zero_()
        to.bias.zero_()
        to.weight[rows[:, None], columns] = of.weight
        if of.bias is not None:
            to.bias[rows] = of.bias
    layer = GaussianAutoregressive(
        d,
        order=order,
        context_features=coupling.context_features,
        conditioner=net,
        log_scale_bound=coupling.log_scale_bound,
    )
    return layer.to(dense[0].weight.device).train(coupling.training)


def _root_of_precision(decoder: LinearGaussian) -> Tensor:
    """W with WΣWᵀ = I for the marginal covariance Σ of a linear-Gaussian model, without forming Σ."""
    axes, singular, _ = torch.linalg.svd(decoder.weight.detach(), full_matrices=True)
    noise = decoder.log_std.detach().exp()
    std = noise.repeat(len(axes))
    std[: len(singular)] = torch.hypot(singular, noise)
    return axes.mT / std.unsqueeze(-1)


def _set(decoder: LinearGaussian, weight: Tensor, like: LinearGaussian) -> None:
    """Give a decoder this W, and the mean and noise of another."""
    decoder.weight.copy_(weight)
    decoder.mean.copy_(like.mean)
    decoder.log_std.copy_(like.log_std)


def _layers(net: nn.Module) -> tuple[list[nn.Linear], list[nn.Module]]:
    """The linear layers of a network, and copies of the activations between them, or the error that says why not."""
    parts = list(net) if isinstance(net, nn.Sequential) else [net]
    dense = [part for part in parts[::2] if type(part) is nn.Linear]
    if len(dense) != len(parts[::2]) or len(parts) % 2 == 0 or any(isinstance(p, nn.Linear) for p in parts[1::2]):
        names = ", ".join(type(part).__name__ for part in parts)
        raise ValueError(
            "as_autoregressive copies the weights of linear layers with one activation between two of them, as in "
            f"density.mlp; this coupling's network is {names}. Give GaussianAutoregressive a masked network of your own"
        )
    return dense, [deepcopy(part) for part in parts[1::2]]


def _why_not_a_linear_flow(model: object) -> str:
    name = type(model).__name__
    expected = "as_flow takes a Gaussian, PPCA or LinearVAE"
    if isinstance(model, Flow):
        return f"{expected}; {name} is a flow already"
    if isinstance(model, Bound) and not isinstance(model, ExactModel):
        return (
            f"{expected}; {name} has no exact log p(x), only bounds on it, and a flow's is exact. Fit a flow "
            "to its samples"
        )
    if isinstance(model, Density):
        return f"{expected}; {name} is not one Gaussian, and a linear map of a normal is. Fit a flow to its samples"
    return f"{expected}; got {name}"
