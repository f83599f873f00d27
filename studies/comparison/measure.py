"""What `comparison` measures of VAE and flow, by the same calls: all that the lecture's table says of them."""

from __future__ import annotations

import io
import math
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bridge import DiagonalJacobianEncoder, FlowVAE, GaussianRelaxation, JacobianEncoder
from bridge.relaxation import value_and_jacobian
from density import Kind, LogDensity, PerFeatureScale, StandardNormal, Training
from flows import Flow, real_nvp
from lvm import VAE
from lvm.evidence import gap
from lvm.evidence.quadrature.adaptive import quadrature
from lvm.layered import LayeredModel
from lvm.links import StochasticLink
from studies.comparison.settings import Key, Settings
from studies.data.load import Dataset
from studies.data.ring import ENTROPY, ring_log_density
from studies.kit.compute import place, seeded, seeded_start
from studies.kit.rows import Row, write_whole
from studies.kit.study import Task

QUANTILES = 1000  # kept of the log-weights, for the figure
NODES = 7  # of the Gauss-Hermite rule, along each axis
ENCODERS = {"full": JacobianEncoder, "diagonal": DiagonalJacobianEncoder}


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    if task.key.model == "relaxed flow":
        return relax(settings, task.data, task.key, *task.needs)
    return judge(settings, task.data, task.key, *task.makes)


def judge(settings: Settings, data: Dataset, key: Key, path: Path) -> Row:
    """Fit a model and measure all cells of its column; its weights go to ``path``.

    Raises:
        InputError: the device cannot be used.
        ValueError, ArithmeticError: the model cannot be fitted.
    """
    device, dtype = place(settings)
    train, test = (torch.as_tensor(rows).to(device, dtype) for rows in (data.train, data.test))
    started = time.perf_counter()
    with seeded_start(key.seed, "start", key.model):
        fitted = flow(settings) if key.model == "flow" else vae(settings)
    training = Training(settings.epochs, settings.batch_size, settings.learning_rate, annealing=1, patience=None)
    fitted.fit(train, training, generator=seeded(device, key.seed, "fit", key.model))
    seconds = time.perf_counter() - started
    draws = seeded(device, key.seed, "draws", key.model)
    model = FlowVAE(fitted) if isinstance(fitted, Flow) else fitted
    known = None
    if isinstance(model, VAE):
        known = quadrature(model, test, tolerance=settings.tolerance, generator=draws)
    found = gap(model, test, draws=settings.draws, log_density=known, generator=draws)
    claim, elbo, difference = found.log_density, found.elbo, found.difference
    truth = LogDensity(torch.as_tensor(ring_log_density(data.test)).to(device), Kind.EXACT, "the density of the data")
    forward = truth - claim
    row: Row = {
        "train_rows": len(train),
        "test_rows": len(test),
        "unit": data.unit,
        "entropy": ENTROPY,
        "value": claim.mean,
        "standard_error": claim.standard_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "measure": claim.measure.value,
        "elbo": elbo.mean,
        "elbo_standard_error": elbo.standard_error,
        "elbo_monte_carlo_error": elbo.mean_monte_carlo_error,
        "elbo_kind": elbo.kind.value,
        "gap": difference.mean,
        "gap_standard_error": math.hypot(difference.standard_error, difference.mean_monte_carlo_error),
        "gap_kind": difference.kind.value,
        "forward_kl": forward.mean,
        "forward_kl_standard_error": forward.standard_error,
        "forward_kl_kind": forward.kind.value,
        "tight": "yes" if model.link.tight else "no",
        **spreads(model, test, claim.value, settings.repeats, draws),
        **shared_parameters(model, test[:32], draws),
    }
    if isinstance(fitted, Flow):
        row |= theorem(deepcopy(fitted).double(), test.double())
    weights = io.BytesIO()
    torch.save(fitted.state_dict(), weights)
    write_whole(path, weights.getvalue())
    return row | {"seconds": round(seconds, 3), "seconds_asking": round(time.perf_counter() - started - seconds, 3)}


def vae(settings: Settings) -> VAE:
    """Gaussian encoder, Gaussian decoder of one learnt standard deviation a feature."""
    return VAE.gaussian(2, settings.latents, hidden=settings.hidden, scale=PerFeatureScale(2, settings.decoder_std))


def flow(settings: Settings) -> Flow:
    """Affine couplings on tanh networks: smooth, as the σ² rate needs."""
    return real_nvp(2, layers=settings.couplings, hidden=settings.hidden, whiten=False, base=StandardNormal)


@torch.no_grad()
def spreads(model: LayeredModel, x: Tensor, log_p: Tensor, repeats: int, generator: Generator) -> Row:
    """What changes when a point is encoded again, and when a code is decoded again; each copy is computed anew.

    Spreads are root mean squares over points and features of standard deviations over repeats.
    """
    link = model.link
    z, log_ratio = link.infer(x.expand(repeats, *x.shape), generator=generator)
    z, log_weights = z[0], (model.prior.log_prob(z) + log_ratio)[0]
    codes = z[0].expand(repeats, *z[0].shape)
    decoded = link.generate(codes, generator=generator)
    encoder_entropy = decoder_entropy = -math.inf  # of a delta
    if isinstance(link, StochasticLink):
        encoder_entropy = -link.encoder.log_prob(z, x).mean().item()
        decoder_entropy = -link.decoder.log_prob(decoded, codes).mean().item()
    probabilities = (np.arange(QUANTILES) + 0.5) / QUANTILES
    deviations = np.quantile((log_weights.double() - log_p.double()).cpu().numpy(), probabilities)
    return {
        "repeats": repeats,
        "encoder_spread": _spread(z),
        "encoder_entropy": encoder_entropy,
        "decoder_spread": _spread(decoded),
        "decoder_entropy": decoder_entropy,
        "log_weight_spread": _spread(log_weights),
        "log_weight_quantiles": " ".join(f"{deviation:.4g}" for deviation in deviations),
    }


def _spread(values: Tensor) -> float:
    """Of what is repeated along the first axis. Deviations from the first repeat, so that equal values give exactly 0.

    >>> _spread(torch.full((3, 5), 0.1)), _spread(torch.tensor([[0.0], [2.0]]))
    (0.0, 1.4142)
    """
    return (values - values[0]).double().var(0).mean().sqrt().item()


def shared_parameters(model: LayeredModel, x: Tensor, generator: Generator) -> Row:
    """How many parameters move the code of x, how many move what a code is decoded to, and how many do both.

    Not by where modules hang but by what autograd finds on the way.
    """
    parameters = list(model.parameters())

    def moving(output: Tensor) -> list[bool]:
        return [g is not None for g in torch.autograd.grad(output.sum(), parameters, allow_unused=True)]

    z = model.link.infer(x, generator=generator)[0][0]
    encoding, decoding = moving(z), moving(model.link.generate(z.detach(), generator=generator))
    used = list(zip((p.numel() for p in parameters), encoding, decoding, strict=True))
    return {
        "parameters": sum(size for size, _, _ in used),
        "encoder_parameters": sum(size for size, encodes, _ in used if encodes),
        "decoder_parameters": sum(size for size, _, decodes in used if decodes),
        "shared_parameters": sum(size for size, encodes, decodes in used if encodes and decodes),
    }


def theorem(flow: Flow, x: Tensor) -> Row:
    r"""The ELBO of the delta VAE from its decoder alone, against the flow's log p(x): values and gradients.

    .. math:: \log w = \log p(z) - \log|\det \partial g/\partial z| \text{ at } z = f(x),

    with the Jacobian of the decoder g by automatic differentiation, and log p(x) by the layers' own log-determinants.
    The gradient in θ, through f and through the Jacobian of g, is compared with that of maximum likelihood: largest
    difference relative to the largest entry.
    """
    z = flow.transform.forward(x)[0]
    decoded, jacobian = value_and_jacobian(lambda z: flow.transform.inverse(z)[0], z)
    elbo = flow.base.log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet
    log_p = flow.log_prob(x)
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    ours, likelihood = (
        torch.cat([g.flatten() for g in torch.autograd.grad(value.mean(), parameters)]) for value in (elbo, log_p)
    )
    return {
        "theorem_error": (elbo - log_p).abs().max().item(),
        "theorem_gradient_error": ((ours - likelihood).abs().max() / likelihood.abs().max()).item(),
        "inversion_error": (decoded - x).abs().max().item(),
    }


@torch.no_grad()
def relax(settings: Settings, data: Dataset, key: Key, path: Path) -> Row:
    """ELBO(σ) of the flow with Gaussian encoder and decoder, against log p(x), in float64.

    Expectations over ε are by a Gauss-Hermite rule, without noise: exact for polynomials of degree 13 in each ε.
    """
    device, _ = place(settings)
    fitted = flow(settings).to(device, torch.float64)
    fitted.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    x = torch.as_tensor(data.test).to(device)
    nodes, masses = (part.to(device) for part in hermite(NODES))
    relaxed = GaussianRelaxation(fitted, float(key.sigma), ENCODERS[key.encoder])
    log_weights = relaxed.log_weights_at(x, nodes.unsqueeze(1))
    log_p = fitted.log_prob(x)
    elbo = (masses.unsqueeze(1) * log_weights).sum(0)
    return {
        "relaxed_error": (elbo - log_p).abs().mean().item(),
        "relaxed_gap": (log_p - elbo).mean().item(),
        "relaxed_largest": (elbo - log_p).abs().max().item(),
        "limiting_gap": relaxed.limiting_gap(x).mean().item(),
    }


def hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite rule for N(0, I) in the plane: places ``[nodes², 2]`` and masses ``[nodes²]``.

    >>> places, masses = hermite(3)
    >>> (masses @ places.pow(4)).tolist()  # E ε⁴ = 3
    [3.0000, 3.0000]
    """
    places, masses = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    return torch.cartesian_prod(places, places), torch.cartesian_prod(masses, masses).prod(1) / masses.sum() ** 2
