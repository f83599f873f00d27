"""Discrete latents, all of whose states are counted: log p(x) and the posterior as functions of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from lvm.evidence.quadrature.latents import Latents
from lvm.layered import LayeredModel


class LatentStates:
    r"""The states s of a model's latents, where these are discrete and few: all about them is a sum.

    .. math:: \log p(x) = \log \sum_s p(x, s), \qquad p(s|x) = p(x, s) / p(x)

    Bits, one-hot vectors and levels, several side by side (``Product``) or above each other (``HierarchicalVAE``).
    ``lvm.evidence.evidence`` makes the claim about data; here are the functions behind it, differentiable in parameters
    and x, to train by maximum likelihood, or to hold an encoder against the posterior that it approximates.

    Args:
        model: of a prior and links, with at most 2¹⁶ latent states.

    Attributes:
        values: all states ``[S, d]``, as the decoder sees them.

    Raises:
        TypeError: the model has no log-joint.
        ValueError: a latent is continuous or cannot be counted, or there are more states.

    >>> from density import Bernoulli, ConditionalBernoulli
    >>> from lvm import VAE
    >>> _ = torch.manual_seed(0)
    >>> encoder = ConditionalBernoulli(torch.nn.Linear(4, 3), 3, 4)
    >>> decoder = ConditionalBernoulli(torch.nn.Linear(3, 4), 4, 3)
    >>> states = LatentStates(VAE(Bernoulli(3), encoder, decoder))
    >>> posterior = states.posterior(torch.ones(2, 4))
    >>> posterior.shape, posterior.sum(1).tolist()
    (torch.Size([2, 8]), [1.0, 1.0])
    """

    def __init__(self, model: LayeredModel) -> None:
        latents = Latents(model)
        if latents.integrated or latents.states is None:
            raise ValueError(
                f"LatentStates counts discrete latents; {latents.name} has continuous ones, which "
                "lvm.evidence.quadrature integrates"
            )
        self.model = latents.model
        self.values = latents.states.at(torch.arange(latents.count, device=self.model.prior.reference.device))

    def log_joint(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x, s) of every state, ``[n, S]``, for x ``[n, D]`` and contexts ``[n, C]`` of a conditional model.

        The decoder sees every state once; of a conditional model, once a point. O(nSD), also of memory.
        """
        return self.model._log_joint(self.model._rows(x, context).unsqueeze(-2), self.values)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), ``[n]``, nats, exact and differentiable; see :meth:`log_joint`."""
        return self.log_joint(x, context).logsumexp(-1)

    def posterior(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """p(s|x) of every state, ``[n, S]``; see :meth:`log_joint`."""
        return self.log_joint(x, context).softmax(-1)
