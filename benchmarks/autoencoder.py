"""VAE evidence and training step against pythae's, on the very same networks."""

from __future__ import annotations

from itertools import pairwise

import torch
from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

from benchmarks.timing import Row, Work, race
from density import adam
from lvm import VAE
from lvm.vae.gradients import AnalyticKL

DRAWS = 5000
FEATURES, LATENT, HIDDEN = 784, 16, (256, 256)


class Encoder(BaseEncoder):
    """Our encoder's network and its bounded log σ, in the form that pythae asks for."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.network, self.scale = model.encoder.network, model.encoder.scale

    def forward(self, x: Tensor) -> ModelOutput:
        mean, raw = self.network(x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=2 * self.scale(raw, mean).log())


class Decoder(BaseDecoder):
    """Our decoder's network with the sigmoid that pythae's cross-entropy asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z).sigmoid())


def both(dtype: torch.dtype = torch.float32) -> tuple[VAE, PythaeVAE, Tensor]:
    """One VAE of binary data seen by both libraries (networks shared), and 256 points of it."""
    torch.manual_seed(0)
    model = VAE.bernoulli(FEATURES, LATENT, hidden=HIDDEN).to(dtype)
    config = VAEConfig(input_dim=(FEATURES,), latent_dim=LATENT, reconstruction_loss="bce")
    theirs = PythaeVAE(config, Encoder(model), Decoder(model.decoder.network)).to(dtype)
    return model, theirs, (torch.rand(256, FEATURES) < 0.2).to(dtype)


def training_step(model: nn.Module, loss: Work) -> Work:
    """A step of Adam by the optimiser of ours, the same for both."""
    optimiser = adam(list(model.parameters()), 1e-3)

    def work() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return work


def check() -> float:
    """The largest difference of the ELBO's mean at the same noise, in float64, and in nats."""
    model, theirs, x = both(torch.float64)
    torch.manual_seed(1)
    ours = -AnalyticKL()(model, x).mean()
    torch.manual_seed(1)
    difference = (ours - theirs({"data": x}).loss).abs().item()
    if difference > 1e-8:
        raise AssertionError(f"not the same ELBO: {difference}")
    return difference


def rows(seconds: float) -> list[Row]:
    """Evidence of a few points with 5,000 draws, and a training step on 256."""
    note = {"pythae": f"|Δ ELBO| {check():.1e} nats at the same noise (float64)"}
    model, theirs, x = both()
    few = x[:2]
    gap = abs(model.log_density(few, draws=DRAWS).mean - _nll(theirs, few, 100))
    widest = {**note, "pythae": f"{note['pythae']}; estimates differ by {gap:.3f} nats"}
    evidence: dict[str, Work] = {
        "ours": lambda: model.log_density(few, draws=DRAWS),
        "pythae": lambda: _nll(theirs, few, 100),
        "pythae, 5,000 at once": lambda: _nll(theirs, few, DRAWS),
        "floor": _decoder_products(model, len(few) * DRAWS),
    }
    size = f"D={FEATURES} d={LATENT} hidden={HIDDEN[0]}"
    result = race(f"evidence, K={DRAWS:,}, {len(few)} points, {size}", evidence, notes=widest, seconds=seconds)
    estimator = AnalyticKL()
    ours, other, x = both()
    own = VAE.bernoulli(FEATURES, LATENT, hidden=HIDDEN)  # each steps on networks of its own
    own.load_state_dict(ours.state_dict())
    steps: dict[str, Work] = {
        "ours": training_step(own, lambda: -estimator(own, x).mean()),
        "pythae": training_step(other, lambda: other({"data": x}).loss),
        "floor": _training_products(len(x)),
    }
    return result + race(f"VAE training step, n={len(x)}, {size}", steps, notes=note, seconds=seconds)


def _nll(model: PythaeVAE, x: Tensor, batch_size: int) -> float:
    with torch.no_grad():
        return float(model.get_nll(x, n_samples=DRAWS, batch_size=batch_size))


def _layers(model: VAE) -> list[nn.Linear]:
    return [layer for layer in model.decoder.network if isinstance(layer, nn.Linear)]


def _decoder_products(model: VAE, draws: int) -> Work:
    """The decoder's three products for that many draws, in blocks of 1,024."""
    pairs = [
        (torch.randn(1024, layer.in_features), torch.randn(layer.in_features, layer.out_features))
        for layer in _layers(model)
    ]
    outs = [torch.empty(1024, weight.shape[1]) for _, weight in pairs]

    def work() -> None:
        for _ in range(-(-draws // 1024)):
            for (rows, weight), out in zip(pairs, outs, strict=True):
                torch.mm(rows, weight, out=out)

    return work


def _training_products(n: int) -> Work:
    """Forward products, those for the weights, and those for the inputs (which the first layer does not need)."""
    widths = [FEATURES, *HIDDEN, 2 * LATENT], [LATENT, *HIDDEN, FEATURES]
    sizes = [(a, b) for path in widths for a, b in pairwise(path)]
    held = [(torch.randn(n, a), torch.randn(a, b), torch.randn(n, b)) for a, b in sizes]

    def work() -> None:
        for index, (rows, weight, gradient) in enumerate(held):
            rows @ weight
            rows.T @ gradient
            if index:
                gradient @ weight.T

    return work
