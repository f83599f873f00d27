"""A VAE in pythae, on our networks."""

from __future__ import annotations

from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

from lvm import VAE


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


def autoencoder(model: VAE) -> PythaeVAE:
    """Theirs, which shares the networks of ours."""
    config = VAEConfig(input_dim=(model.features,), latent_dim=model.latent_features, reconstruction_loss="bce")
    theirs: PythaeVAE = PythaeVAE(config, Encoder(model), Decoder(model.decoder.network))
    return theirs
