"""VAEs of pythae (Chadebec et al. 2022), by the likelihood that their reconstruction loss is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bridge.adapters.calls import is_module
from bridge.adapters.functions import AdaptedVAE, Likelihood, from_functions
from density.families.bernoulli import ConditionalBernoulli
from density.families.conditional_gaussian import FixedScale

# Those with a diagonal Gaussian encoder and a standard normal prior; they differ in how they are trained.
GAUSSIAN = {
    "VAE", "BetaVAE", "DisentangledBetaVAE", "BetaTCVAE", "FactorVAE", "InfoVAE_MMD", "IWAE", "MIWAE", "PIWAE", "CIWAE",
}  # fmt: skip
LARGEST_LOG_ODDS = 100.0  # where pythae's loss stops as well


class _Encode(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = model.encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.encoder(x)
        return output["embedding"], output["log_covariance"]


class _Decode(nn.Module):
    """The reconstruction, or the log-odds of one that holds probabilities."""

    def __init__(self, model: nn.Module, probabilities: bool) -> None:
        super().__init__()
        self.decoder: Any = model.decoder
        self.probabilities = probabilities

    def forward(self, z: Tensor) -> Tensor:
        output: Tensor = self.decoder(z)["reconstruction"]
        return torch.logit(output).clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS) if self.probabilities else output


def from_pythae(model: Any) -> AdaptedVAE:  # noqa: ANN401  # a pythae model
    """A VAE of pythae as a VAE here; parameters are shared, points are flattened to rows.

    Its ``reconstruction_loss`` says what log p(x|z) is, and the claim repeats it: "bce" is a mass of bits (counting
    measure, for data of zeros and ones), "mse" a Gaussian of σ = 1.

    Raises:
        TypeError: not a pythae model; or one without a likelihood, with another prior, or with an encoder that is no
            diagonal Gaussian: give its parts to ``from_functions``.
        ValueError: another reconstruction loss.
    """
    config = getattr(model, "model_config", None)
    if not is_module(model) or not hasattr(config, "latent_dim"):
        raise TypeError(f"from_pythae takes a pythae model; got {type(model).__name__}")
    name = str(getattr(model, "model_name", type(model).__name__))
    if name not in GAUSSIAN:
        raise TypeError(
            f"from_pythae takes models with a Gaussian encoder, a standard normal prior and a likelihood "
            f"({', '.join(sorted(GAUSSIAN))}); {name} is none of these. Where it has a likelihood, give its parts to "
            "from_functions(encode, decode, prior)"
        )
    loss = getattr(config, "reconstruction_loss", None)
    if loss not in ("bce", "mse"):
        raise ValueError(f"from_pythae reads the reconstruction losses 'bce' and 'mse' as likelihoods; got {loss!r}")
    shape = tuple(int(size) for size in model.input_dim)
    bits = loss == "bce"
    likelihood: Likelihood = ConditionalBernoulli if bits else FixedScale(1.0)
    read = "'bce' read as log p(x|z) of bits" if bits else "'mse' read as log N(x; reconstruction, 1)"
    return from_functions(
        _Encode(model),
        _Decode(model, bits),
        event_shape=shape,
        latent_features=int(model.latent_dim),
        likelihood=likelihood,
        reading=f"{name} of pythae, {read}",
    )
