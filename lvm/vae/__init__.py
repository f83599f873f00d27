"""Variational autoencoders: the model, the linear one, gradient estimators of the ELBO."""

from lvm.vae.model import VAE

__all__ = [
    "VAE",
]
