"""What `equivalence` measures on random flows: value, gradient, training path, and the limit of Gaussians as deltas.

The two sides are computed apart. The flow's side sums its layers' log-determinants. The VAE's side takes z = f(x) from
the encoder and its log-ratio from the decoder alone, −log|det ∂g/∂z|, by differentiating g at z.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from bridge import FlowVAE, GaussianRelaxation
from bridge.relaxation import value_and_jacobian
from flows import Flow, glow, iaf, linear_flow, maf, real_nvp
from studies.equivalence.settings import FlowName, Key, Settings
from studies.kit.compute import curve, gauss_hermite, mean_and_error, place, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

NODES = 5  # of the Gauss-Hermite rule along each axis: exact for polynomials of degree 9 in each ε
FEWER = 3  # enough for a training that is meant to differ
DIGITS = 4  # of a curve

ARCHITECTURES: dict[FlowName, Callable[[int, int, tuple[int, ...]], Flow]] = {
    "linear": lambda features, layers, hidden: linear_flow(features),
    "coupling": real_nvp,
    "glow": glow,
    "maf": maf,
    "iaf": iaf,
}


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    """The columns of a row."""
    flow, x = flow_and_points(settings, task.key.flow, task.key.seed)
    match task.key.part:
        case "theorem":
            return theorem(flow, x)
        case "path":
            return path(settings, flow, x)
        case "limit":
            assert task.key.sigma is not None
            return limit(flow, x, task.key.sigma)


def flow_and_points(settings: Settings, name: FlowName, seed: int) -> tuple[Flow, Tensor]:
    """A random flow, and points ``[n, D]`` of a bent Gaussian.

    Every parameter of the flow is away from its start, so that nothing is measured at an identity. Each feature is
    noise plus half the square of the one before it, less its mean.
    """
    device, dtype = place(settings)
    with seeded_start(seed, "flow", name), torch.no_grad():
        flow = ARCHITECTURES[name](settings.features, settings.layers, settings.hidden).to(dtype)
        for parameter in flow.parameters():
            parameter.add_(settings.spread * torch.randn_like(parameter))
    generator = seeded(torch.device("cpu"), seed, "points")
    noise = torch.randn(settings.points, settings.features, generator=generator, dtype=dtype)
    bent = noise.clone()
    bent[:, 1:] = 0.7 * noise[:, 1:] + 0.5 * (noise[:, :-1].square() - 1)
    return flow.to(device), bent.to(device)


def elbo_from_the_decoder(vae: FlowVAE, x: Tensor) -> Tensor:
    """log p(z) − log|det ∂g/∂z| at z = f(x), differentiable; the transform's own log-determinants are not used."""
    z = vae.link.infer(x)[0].squeeze(0)
    jacobian = value_and_jacobian(vae.link.generate, z)[1]
    return vae.prior.log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet


def relaxed_elbo(flow: Flow, x: Tensor, sigma: float, nodes: int) -> Tensor:
    """ELBO(σ) ``[n]`` with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ), by so many nodes along each axis."""
    places, masses = gauss_hermite(x.shape[1], nodes, x)
    return masses @ GaussianRelaxation(flow, sigma).log_weights_at(x, places.unsqueeze(1))


def _gradient(objective: Tensor, module: nn.Module) -> Tensor:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(objective, parameters)])


def theorem(flow: Flow, x: Tensor) -> Row:
    """Largest differences of values, relative to the largest |log p(x)|, and of gradients, to their largest entry."""
    vae = FlowVAE(flow)
    log_p, elbo = flow.log_prob(x), elbo_from_the_decoder(vae, x)
    log_weights = vae.log_weights(x, 3).detach()
    likelihood, bound = _gradient(log_p.mean(), flow), _gradient(elbo.mean(), flow)
    return {
        "points": len(x),
        "parameters": likelihood.numel(),
        **mean_and_error("log_p", log_p),
        "value_error": ((elbo - log_p).abs().max() / log_p.abs().max()).item(),
        "gradient_error": ((bound - likelihood).abs().max() / likelihood.abs().max()).item(),
        "log_weight_spread": (log_weights - log_weights[0]).abs().max().item(),
    }


def path(settings: Settings, start: Flow, x: Tensor) -> Row:
    """Weights along training by log p(x), and how far three other trainings from the same start are from them.

    ``elbo`` maximises the ELBO of the delta VAE, ``reordered`` again log p(x) with the rows in another order (what
    rounding alone does), ``relaxed`` the ELBO with Gaussians of a visible width instead of deltas.
    """
    objectives: dict[str, Callable[[Flow], Tensor]] = {
        "likelihood": lambda flow: flow.log_prob(x).mean(),
        "elbo": lambda flow: elbo_from_the_decoder(FlowVAE(flow), x).mean(),
        "reordered": lambda flow: flow.log_prob(x.flip(0)).mean(),
        "relaxed": lambda flow: relaxed_elbo(flow, x, settings.width, FEWER).mean(),
    }
    marks = sorted({round(step) for step in np.geomspace(1, settings.steps, 16)})
    weights = {which: _train(deepcopy(start), objective, marks, settings) for which, objective in objectives.items()}
    reference = weights.pop("likelihood")
    moved = {"moved": reference - _weights(start), **{which: other - reference for which, other in weights.items()}}
    curves = {which: curve(differences.abs().amax(1).tolist(), DIGITS) for which, differences in moved.items()}
    return {"steps": curve(marks, DIGITS), **curves}


def _train(flow: Flow, objective: Callable[[Flow], Tensor], marks: list[int], settings: Settings) -> Tensor:
    """Weights ``[marks, P]`` after those numbers of steps of Adam."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate)
    kept = []
    for step in range(1, settings.steps + 1):
        optimiser.zero_grad()
        (-objective(flow)).backward()
        optimiser.step()
        if step in marks:
            kept.append(_weights(flow))
    return torch.stack(kept)


def _weights(flow: Flow) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in flow.parameters()])


def limit(flow: Flow, x: Tensor, sigma: float) -> Row:
    """ELBO(σ) against log p(x): values and gradients."""
    log_p, elbo = flow.log_prob(x), relaxed_elbo(flow, x, sigma, NODES)
    off = (elbo - log_p).detach().abs()
    likelihood, bound = _gradient(log_p.mean(), flow), _gradient(elbo.mean(), flow)
    return {
        "relaxed_error": off.mean().item(),
        "relaxed_error_se": (off.std() / len(x) ** 0.5).item(),
        "relaxed_largest": off.max().item(),
        "relaxed_gradient_error": ((bound - likelihood).norm() / likelihood.norm()).item(),
    }
