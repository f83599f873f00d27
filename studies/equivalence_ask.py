"""Measure the theorem on random flows: value, gradient, training path, and the limit of Gaussians that tend to deltas.

The two sides are computed apart. The flow's side sums its layers' log-determinants. The VAE's side takes z = f(x) from
the encoder and its log-ratio from the decoder alone, −log|det ∂g/∂z|, by differentiating g at z.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn

from bridge import FlowVAE, GaussianRelaxation
from bridge.relaxation import value_and_jacobian
from flows import Flow, glow, iaf, linear_flow, maf, real_nvp
from studies.kit.compute import usable_device
from studies.kit.rows import Row
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.equivalence import FlowName, Settings

NODES = 5  # of the Gauss-Hermite rule along each axis: exact for polynomials of degree 9 in each ε
FEWER = 3  # enough for a training that is meant to differ
PATHS = ("elbo", "reordered", "relaxed")

ARCHITECTURES: dict[FlowName, Callable[[int, int, tuple[int, ...]], Flow]] = {
    "linear": lambda features, layers, hidden: linear_flow(features),
    "coupling": real_nvp,
    "glow": glow,
    "maf": maf,
    "iaf": iaf,
}


def random_flow(settings: Settings, name: FlowName, seed: int) -> Flow:
    """In float64, every parameter away from its start, so that nothing is measured at an identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "flow", name))
        flow = ARCHITECTURES[name](settings.features, settings.layers, settings.hidden).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(settings.spread * torch.randn_like(parameter))
    return flow.to(usable_device(settings.device))


def points(settings: Settings, seed: int) -> Tensor:
    """A bent Gaussian ``[n, D]``: each feature is noise plus half the square of the one before it, less its mean."""
    generator = Generator().manual_seed(derived_seed(seed, "points"))
    noise = torch.randn(settings.points, settings.features, generator=generator, dtype=torch.float64)
    bent = noise.clone()
    bent[:, 1:] = 0.7 * noise[:, 1:] + 0.5 * (noise[:, :-1].square() - 1)
    return bent.to(usable_device(settings.device))


def elbo_from_the_decoder(vae: FlowVAE, x: Tensor) -> Tensor:
    """log p(z) − log|det ∂g/∂z| at z = f(x), differentiable; the transform's own log-determinants are not used."""
    z = vae.link.infer(x)[0].squeeze(0)
    jacobian = value_and_jacobian(vae.link.generate, z)[1]
    return vae.prior.log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet


def _gradient(objective: Tensor, module: nn.Module) -> Tensor:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(objective, parameters)])


def theorem(settings: Settings, name: FlowName, seed: int) -> Row:
    """Largest differences of values, relative to the largest |log p(x)|, and of gradients, to their largest entry."""
    torch.set_num_threads(settings.threads)
    flow, x = random_flow(settings, name, seed), points(settings, seed)
    vae = FlowVAE(flow)
    log_p, elbo = flow.log_prob(x), elbo_from_the_decoder(vae, x)
    log_weights = vae.log_weights(x, 3).detach()
    likelihood, bound = _gradient(log_p.mean(), flow), _gradient(elbo.mean(), flow)
    return {
        "points": len(x),
        "parameters": likelihood.numel(),
        "log_p": log_p.mean().item(),
        "log_p_error": (log_p.std() / len(x) ** 0.5).item(),
        "value_error": ((elbo - log_p).abs().max() / log_p.abs().max()).item(),
        "gradient_error": ((bound - likelihood).abs().max() / likelihood.abs().max()).item(),
        "log_weight_spread": (log_weights - log_weights[0]).abs().max().item(),
    }


def path(settings: Settings, name: FlowName, seed: int) -> Row:
    """Weights along training by log p(x), and how far three other trainings from the same start are from them.

    ``elbo`` maximises the ELBO of the delta VAE, ``reordered`` again log p(x) with the rows in another order (what
    rounding alone does), ``relaxed`` the ELBO with Gaussians of a visible width instead of deltas.
    """
    torch.set_num_threads(settings.threads)
    start, x = random_flow(settings, name, seed), points(settings, seed)
    nodes, masses = hermite(settings.features, x, FEWER)

    def relaxed(flow: Flow) -> Tensor:
        log_weights = GaussianRelaxation(flow, settings.width).log_weights_at(x, nodes.unsqueeze(1))
        return (masses @ log_weights).mean()

    objectives: dict[str, Callable[[Flow], Tensor]] = {
        "likelihood": lambda flow: flow.log_prob(x).mean(),
        "elbo": lambda flow: elbo_from_the_decoder(FlowVAE(flow), x).mean(),
        "reordered": lambda flow: flow.log_prob(x.flip(0)).mean(),
        "relaxed": relaxed,
    }
    marks = sorted({round(step) for step in np.geomspace(1, settings.steps, 16)})
    weights = {which: _train(deepcopy(start), objective, marks, settings) for which, objective in objectives.items()}
    reference = weights["likelihood"]
    origin = _weights(start)
    row: Row = {"steps": _series(marks), "moved": _series((reference - origin).abs().amax(1).tolist())}
    for which in PATHS:
        row[which] = _series((weights[which] - reference).abs().amax(1).tolist())
    return row


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


def limit(settings: Settings, name: FlowName, sigma: float, seed: int) -> Row:
    """ELBO(σ) with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ) against log p(x): values and gradients."""
    torch.set_num_threads(settings.threads)
    flow, x = random_flow(settings, name, seed), points(settings, seed)
    nodes, masses = hermite(settings.features, x)
    log_p = flow.log_prob(x)
    log_weights = GaussianRelaxation(flow, sigma).log_weights_at(x, nodes.unsqueeze(1))
    elbo = masses @ log_weights
    off = (elbo - log_p).detach().abs()
    likelihood, bound = _gradient(log_p.mean(), flow), _gradient(elbo.mean(), flow)
    return {
        "relaxed_error": off.mean().item(),
        "relaxed_error_se": (off.std() / len(x) ** 0.5).item(),
        "relaxed_largest": off.max().item(),
        "relaxed_gradient_error": ((bound - likelihood).norm() / likelihood.norm()).item(),
    }


def hermite(features: int, like: Tensor, nodes: int = NODES) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite rule for N(0, I): places ``[N, D]`` and masses ``[N]``, N = nodesᴰ.

    >>> places, masses = hermite(2, torch.zeros(()).double())
    >>> (masses @ places.pow(4)).tolist()  # E ε⁴ = 3
    [3.0000, 3.0000]
    """
    places, masses = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    grid = torch.cartesian_prod(*[places] * features).reshape(-1, features)
    mass = torch.cartesian_prod(*[masses / masses.sum()] * features).reshape(-1, features).prod(1)
    return grid.to(like), mass.to(like)


def _series(numbers: list[int] | list[float]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)
