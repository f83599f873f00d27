"""Models whose encoder is a network, which may see rows with missing entries too."""

from __future__ import annotations

from abc import ABC

from lvm.vae.bounded import FittedByBound
from lvm.vae.observed import ObservedModel


class AmortisedModel(FittedByBound, ABC):
    """A latent-variable model whose encoder is a network that is trained with prior and decoder.

    >>> from lvm import VAE, AmortisedModel, HierarchicalVAE
    >>> issubclass(VAE, AmortisedModel), issubclass(HierarchicalVAE, AmortisedModel)
    (True, True)
    """

    @property
    def observed(self) -> ObservedModel:
        """The model of rows with missing entries, which nan marks: bounds, evidence, imputation and fit."""
        return ObservedModel(self)
