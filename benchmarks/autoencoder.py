"""VAE evidence and training step against pythae's, on the very same networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.contestants import Absent, Work, each, peer, present
from benchmarks.timing import Race
from density import adam
from lvm import VAE
from lvm.vae.gradients import AnalyticKL

TOLERANCE = 1e-8  # nats, of the ELBO's mean at the same noise in float64


class Size(NamedTuple):
    """Features, latent features, hidden units of two layers each way, rows of a batch, draws of an evidence."""

    features: int
    latent: int
    hidden: int
    rows: int
    draws: int

    def __str__(self) -> str:
        return f"D={self.features} d={self.latent} hidden={self.hidden}"


def autoencoders(size: Size, device: torch.device) -> Iterator[Race]:
    """A training step on a batch, and the evidence of two points by importance weighting."""
    difference = present(lambda: check(size, device))
    absent = difference if isinstance(difference, Absent) else None
    note = "" if absent else f"|Δ ELBO| {difference:.1e} nats at the same noise (float64)"
    model, x = ours(size, torch.float32, device)
    theirs = absent or present(lambda: peer("pythae").autoencoder(ours(size, torch.float32, device)[0]).to(device))
    estimator = AnalyticKL()
    losses: dict[str, tuple[nn.Module, Callable[[], Tensor]] | Absent] = {
        "ours": (model, lambda: -estimator(model, x).mean()),
        "pythae": theirs if isinstance(theirs, Absent) else (theirs, lambda: theirs({"data": x}).loss),
    }
    steps = each(losses, lambda one: training_step(*one)) | {"floor": _training_products(size, device)}
    yield Race(f"VAE training step, n={size.rows}, {size}", steps, {"pythae": note})

    model, x = ours(size, torch.float32, device)
    few = x[:2]
    estimated = absent or present(lambda: _evidence(model, few, size.draws, 100))
    if not isinstance(estimated, Absent):
        off = abs(model.log_density(few, draws=size.draws).mean - estimated())
        note = f"{note}; estimates differ by {off:.3f} nats"
    evidence: dict[str, Work | Absent] = {
        "ours": lambda: model.log_density(few, draws=size.draws),
        "pythae": estimated,
        "pythae, all draws at once": absent or present(lambda: _evidence(model, few, size.draws, size.draws)),
        "floor": _decoder_products(model, len(few) * size.draws, device),
    }
    yield Race(f"evidence, K={size.draws:,}, {len(few)} points, {size}", evidence, {"pythae": note})


def ours(size: Size, dtype: torch.dtype, device: torch.device) -> tuple[VAE, Tensor]:
    """A VAE of binary data, and points of it, always the same."""
    torch.manual_seed(0)
    model = VAE.bernoulli(size.features, size.latent, hidden=(size.hidden, size.hidden)).to(dtype)
    x = (torch.rand(size.rows, size.features) < 0.2).to(dtype)
    return model.to(device), x.to(device)


def check(size: Size, device: torch.device) -> float:
    """The difference of the ELBO's mean from theirs at the same noise, in float64 and in nats.

    Raises:
        Absent: it is no rounding.
    """
    model, x = ours(size, torch.float64, device)
    theirs = peer("pythae").autoencoder(model).to(x)
    torch.manual_seed(1)
    mean = -AnalyticKL()(model, x).mean()
    torch.manual_seed(1)
    difference = (mean - theirs({"data": x}).loss).abs().item()
    if not difference < TOLERANCE:
        raise Absent(f"not the same ELBO, off by {difference:.1e} nats")
    return difference


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Work:
    """A step of Adam by the optimiser of our fits, the same for both."""
    optimiser = adam(list(model.parameters()), 1e-3)

    def work() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return work


def _evidence(model: VAE, x: Tensor, draws: int, batch_size: int) -> Callable[[], float]:
    """Theirs, of the same networks."""
    theirs = peer("pythae").autoencoder(model).to(x)

    def work() -> float:
        with torch.no_grad():
            return float(theirs.get_nll(x, n_samples=draws, batch_size=batch_size))

    return work


def _decoder_products(model: VAE, draws: int, device: torch.device) -> Work:
    """The decoder's three products for that many draws, in blocks of 1,024."""
    layers = [layer for layer in model.decoder.network if isinstance(layer, nn.Linear)]
    pairs = [
        (torch.randn(1024, layer.in_features).to(device), torch.randn(layer.in_features, layer.out_features).to(device))
        for layer in layers
    ]
    outs = [torch.empty(1024, weight.shape[1], device=device) for _, weight in pairs]

    def work() -> None:
        for _ in range(-(-draws // 1024)):
            for (rows, weight), out in zip(pairs, outs, strict=True):
                torch.mm(rows, weight, out=out)

    return work


def _training_products(size: Size, device: torch.device) -> Work:
    """Forward products, those for the weights, and those for the inputs (which the first layer does not need)."""
    hidden = size.hidden, size.hidden
    widths = [size.features, *hidden, 2 * size.latent], [size.latent, *hidden, size.features]
    sizes = [(a, b) for path in widths for a, b in pairwise(path)]
    n = size.rows
    held = [[torch.randn(shape).to(device) for shape in ((n, a), (a, b), (n, b))] for a, b in sizes]

    def work() -> None:
        for index, (rows, weight, gradient) in enumerate(held):
            rows @ weight
            rows.T @ gradient
            if index:
                gradient @ weight.T

    return work
