"""A latent-variable model as the finite mixture that its decoder is at some latents: it knows its marginals."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from bridge.conversions.components import ComponentColumns
from density.checks import check_count
from density.evaluating import evaluated
from lvm.finite_mixture.model import FiniteMixture
from lvm.hierarchy.model import HierarchicalVAE
from lvm.latent import LatentVariableModel
from lvm.mixture.covariance import Diagonal
from lvm.mixture.model import GaussianMixture
from lvm.prior_nodes import PriorNodes


@evaluated
def as_mixture(
    model: LatentVariableModel, nodes: int = 4096, *, generator: Generator | None = None
) -> GaussianMixture | FiniteMixture:
    r"""The decoder at N latents of the prior, as an exact mixture (Correia et al. 2023, "Continuous mixtures").

    .. math:: p(x) = \int p(z)\, p(x|z)\, dz \approx \sum_k \pi_k\, p(x|z_k)

    The sum is a density of its own, with log p(x), marginals, conditionals and samples in closed form: a
    :class:`~lvm.mixture.model.GaussianMixture` with diagonal covariances where all columns are numbers, else a
    :class:`~lvm.finite_mixture.model.FiniteMixture` of bits, categories, counts and numbers. Nodes and weights are
    those of :class:`~lvm.prior_nodes.PriorNodes`: a lattice over one or two normal latents, scrambled Sobol points over
    more, all values of a one-hot latent, so that the mixture is the model, and draws of any other prior.

    How far it is from the model is a claim like any other, ``mixture.log_density(x) - evidence(model, x)``. A lattice
    is good while its nodes are closer than about twice the posterior's standard deviations; Sobol points and draws
    serve while posteriors are broad, as those of a few bits are.

    Args:
        model: a VAE or another model whose decoder is of bits, categories, Poisson counts, numbers with diagonal
            covariances, or of columns of these (:class:`~density.families.composed.columns.Columns`).
        nodes: N at most: a lattice over two latents has the largest square in it.
        generator: of scrambling and draws, on the model's device.

    Raises:
        TypeError: no such model, or a decoder of another kind.
        ValueError: a conditional model, or fewer than 2 nodes.

    Parameters are copied. O(N) passes of the decoder; ``log_prob`` of the mixture costs O(ND) a point.

    >>> from lvm import VAE
    >>> from lvm.evidence import evidence
    >>> _ = torch.manual_seed(0)
    >>> vae = VAE.bernoulli(6, latent_features=1, hidden=(8,))
    >>> mixture, x = as_mixture(vae, nodes=64), vae.sample(20)
    >>> error = mixture.log_density(x) - evidence(vae, x)
    >>> error.kind.value, error.value.abs().max().item() < 1e-5
    ('exact', True)
    >>> mixture.marginal([0, 5]).features, mixture.conditional([0], torch.ones(1)).features
    (2, 5)
    """
    if not isinstance(model, LatentVariableModel):
        raise TypeError(f"as_mixture needs a model with prior and decoder; got {type(model).__name__}")
    if model.context_features:
        raise ValueError(f"as_mixture makes one mixture; {type(model).__name__} is another one for every context")
    nodes = check_count(nodes, "nodes", least=2)
    with torch.no_grad():
        found = PriorNodes.of(model.prior, nodes, generator)
        components = _components(model, found.z)
        mixture = _gaussian(components) if components.gaussian else _finite(components)
        mixture.prior.logits.copy_(found.log_weights)
    return mixture


def _components(model: LatentVariableModel, z: Tensor) -> ComponentColumns:
    """What the decoder says at latents ``[K, d]``; that of a hierarchy reads the first level alone."""
    if isinstance(model, HierarchicalVAE):
        return ComponentColumns.of(model.decoder.density, model.levels(z)[0])
    return ComponentColumns.of(model.decoder, z)


def _gaussian(components: ComponentColumns) -> GaussianMixture:
    mean, log_std = torch.stack(components.numbers, -1).unbind(1)
    found = GaussianMixture(mean.shape[1], len(mean), Diagonal()).to(mean)
    found.decoder.means.copy_(mean)
    found.decoder.factor.copy_(log_std)
    return found


def _finite(components: ComponentColumns) -> FiniteMixture:
    first = components.numbers[0]
    found = FiniteMixture(len(components.numbers), len(first), components.likelihood).to(first)
    blocks = [components.stacked(group.columns) for group in found.decoder.groups]
    found.decoder.numbers.copy_(torch.cat(blocks, -1))
    return found
