"""The likelihood of the mixture that a decoder is at nodes of the prior: training without an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density.checks import settle_counts
from density.contract import Density
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from density.measure import Measure
from density.own_precision import in_own_precision
from lvm.components import MixtureModel
from lvm.latent import LatentVariableModel
from lvm.prior_nodes import PriorNodes
from lvm.vae.estimator import GradientEstimator


@dataclass(frozen=True)
class MixtureLikelihood(GradientEstimator):
    r"""log p(x) of the mixture that the decoder is at K nodes of the prior, in place of a bound (Correia et al. 2023).

    .. math:: \log \sum_k \pi_k\, p(x|z_k) \approx \log \int p(z)\, p(x|z)\, dz

    Prior and decoder are trained by it, and nothing else: the encoder gets no gradient, and its posterior costs
    nothing. The nodes are those of :class:`~lvm.prior_nodes.PriorNodes`, the same for all points of a batch.

    - Fresh ones in every step, without a seed: randomised quasi-Monte Carlo, whose sum is unbiased for p(x), and its
      logarithm below log p(x) in expectation, by Jensen's inequality, the less the more nodes. What is trained is the
      model; any number of nodes compiles it (``bridge.as_mixture``).
    - Always the same ones, with a seed: what is trained is that mixture, whose log p(x) this is, exactly. It may learn
      to be good at its nodes alone; compile it with them, ``as_mixture(model, nodes, generator=g)`` for g of that seed.

    Afterwards an encoder can be fitted to what has been trained, ``model.decoder.requires_grad_(False)`` and another
    ``fit``: log p(x) does not depend on it.

    Args:
        nodes: K.
        seed: of fixed nodes; None for fresh ones.

    Raises:
        ValueError: fewer than 2 nodes; or a conditional model, which is another mixture for every context.
        TypeError: the prior has parameters on which its nodes do not depend by a differentiable path.

    Cost: K passes of the decoder a batch, however many points, and O(BKD) for B points: one matrix product where bits
    or categories are decoded.

    >>> from density import Training
    >>> from lvm import VAE
    >>> generator = torch.manual_seed(0)
    >>> x = (torch.randn(200, 1, generator=generator) + torch.randn(200, 5, generator=generator) > 0).float()
    >>> vae = VAE.bernoulli(5, latent_features=1, hidden=(8,))
    >>> history = vae.fit(x, Training(epochs=5), estimator=MixtureLikelihood(nodes=64), generator=generator)
    >>> history.objective[-1] > history.objective[0]
    True
    """

    nodes: int = 1024
    seed: int | None = None

    def __post_init__(self) -> None:
        settle_counts(self, "nodes", least=2)

    @property
    def draws(self) -> int:  # type: ignore[override]  # computed, not stored
        """K: each point is compared with every node."""
        return self.nodes

    @in_own_precision
    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        if model.context_features:
            raise ValueError(
                f"MixtureLikelihood trains one mixture; {type(model).__name__} is another one for every context"
            )
        if self.seed is not None:
            generator = Generator(x.device).manual_seed(self.seed)
        nodes = PriorNodes.of(model.prior, self.nodes, generator, lattice=self.seed is not None)
        self._require_gradient(model, nodes)
        each = model.decoder._log_prob_at_each(x.reshape(-1, model.features), nodes.z)
        log_p = (each + nodes.log_weights.to(each)).logsumexp(-1).reshape(x.shape[:-1])
        return log_p, log_p

    def _require_gradient(self, model: LatentVariableModel, nodes: PriorNodes) -> None:
        prior = model.prior
        if not torch.is_grad_enabled() or not any(p.requires_grad for p in prior.parameters()):
            return
        if isinstance(prior, GaussianFamily | CategoricalFamily):
            return
        if not nodes.z.requires_grad or any(_chooses(part) for part in prior.modules()):
            raise TypeError(
                f"MixtureLikelihood differentiates through the nodes, and draws of {type(prior).__name__} do not "
                "depend on its parameters by a differentiable path. Fix them, prior.requires_grad_(False), or take "
                "another estimator"
            )


def _chooses(part: nn.Module) -> bool:
    """Whether it is a density with parameters whose draws choose between values, along which no gradient passes."""
    chooses = isinstance(part, MixtureModel) or (isinstance(part, Density) and part.measure is Measure.COUNTING)
    return chooses and any(p.requires_grad for p in part.parameters())
