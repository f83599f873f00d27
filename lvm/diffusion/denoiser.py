"""The network of a diffusion model: what it sees, and what its numbers mean."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from density.families.network import refusal
from density.rebuildable import Rebuildable


class Prediction(Enum):
    """What the network of a diffusion says of a latent z = α x + σ ε.

    >>> [prediction.value for prediction in Prediction]
    ['ε', 'x', 'α ε − σ x']
    """

    NOISE = "ε"
    DATA = "x"
    VELOCITY = "α ε − σ x"


class Denoiser(Rebuildable, nn.Module):
    r"""What a network says of the noise in latents, whatever it predicts.

    .. math:: \hat\varepsilon = \frac{z - \alpha \hat x}{\sigma} = \sigma z + \alpha \hat v, \qquad
              \hat x = \frac{z - \sigma \hat\varepsilon}{\alpha}, \qquad \nabla_z \log p(z) = -\hat\varepsilon / \sigma

    Args:
        network: module called as ``network(z, gamma)``, or ``network(z, gamma, c)`` if conditional, with latents
            ``[n, D]``, γ ``[n, 1]`` and contexts ``[n, C]``; it returns ``[n, D]``.
        prediction: what these are.

    Raises:
        TypeError: not a module and a :class:`Prediction`.
        ValueError: in use, the network returns another shape.

    >>> import torch
    >>> class OfANormal(nn.Module):  # ε̂ = σ z where the data are standard normal
    ...     def forward(self, z, gamma):
    ...         return gamma.sigmoid().sqrt() * z
    >>> z, gamma = torch.ones(1, 1), torch.zeros(1, 1)
    >>> round(Denoiser(OfANormal()).clean(z, gamma).item(), 4)  # α z, α² = ½
    0.7071
    """

    def __init__(self, network: nn.Module, prediction: Prediction = Prediction.NOISE) -> None:
        super().__init__()
        if not isinstance(network, nn.Module) or not isinstance(prediction, Prediction):
            raise TypeError(
                "a Denoiser takes a network as an nn.Module, called as network(z, gamma), and a Prediction; got "
                f"{type(network).__name__} and {prediction!r}"
            )
        self.network = network
        self.prediction = prediction

    def forward(self, z: Tensor, gamma: Tensor, context: Tensor | None = None) -> Tensor:
        """ε̂ of latents ``[*batch, D]`` at γ that broadcasts to ``[*batch, 1]``, and contexts to ``[*batch, C]``."""
        gamma = gamma.expand(*z.shape[:-1], 1)
        seen = [z, gamma] if context is None else [z, gamma, context.expand(*z.shape[:-1], -1)]
        output: object = self.network(*(part.reshape(-1, part.shape[-1]) for part in seen))
        n = z.shape[:-1].numel()
        if not isinstance(output, Tensor) or output.shape != (n, z.shape[-1]):
            raise ValueError(refusal(output, n, z.shape[-1], type(self).__name__, "a prediction for each feature"))
        output = output.reshape(z.shape)
        match self.prediction:
            case Prediction.NOISE:
                return output
            case Prediction.DATA:
                return (z - alpha(gamma) * output) / sigma(gamma)
            case Prediction.VELOCITY:
                return sigma(gamma) * z + alpha(gamma) * output

    def clean(self, z: Tensor, gamma: Tensor, context: Tensor | None = None) -> Tensor:
        """x̂ of latents ``[*batch, D]``."""
        return (z - sigma(gamma) * self(z, gamma, context)) / alpha(gamma)


def alpha(gamma: Tensor) -> Tensor:
    """√sigmoid(−γ), the share of x in a latent."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """√sigmoid(γ), the share of ε."""
    return torch.sigmoid(gamma).sqrt()
