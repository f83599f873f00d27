"""A latent-variable model as the finite mixture that its decoder is at some latents: it knows its marginals."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.contract import Density
from density.evaluating import evaluated
from density.families.bernoulli import BernoulliFamily
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from density.families.likelihoods.bernoulli import BernoulliLikelihood
from density.families.rescaled import Rescaled
from density.families.scale import DiagonalScale
from lvm.finite_mixture.model import FiniteMixture
from lvm.latent import LatentVariableModel
from lvm.mixture.covariance import Diagonal
from lvm.mixture.model import GaussianMixture

ON_A_LATTICE = 2  # latents; more take quasi-random points
REACH = 6.0  # standard deviations of a normal prior; 2e-9 of its mass lies farther out along an axis


@evaluated
def as_mixture(
    model: LatentVariableModel, nodes: int = 4096, *, generator: Generator | None = None
) -> GaussianMixture | FiniteMixture:
    r"""The decoder at N latents of the prior, as an exact mixture (Correia et al. 2023, "Continuous mixtures").

    .. math:: p(x) = \int p(z)\, p(x|z)\, dz \approx \sum_k \pi_k\, p(x|z_k)

    The sum is a density of its own, with log p(x), marginals, conditionals and samples in closed form: a
    :class:`~lvm.mixture.model.GaussianMixture` with diagonal covariances or a Bernoulli
    :class:`~lvm.finite_mixture.model.FiniteMixture`. Nodes and weights are

    - of a normal prior over one or two latents, a lattice with the prior's density as weights (the trapezoidal rule);
    - of one over more, scrambled Sobol points through its quantiles, with equal weights;
    - of a one-hot latent, all its values: the mixture is the model;
    - of any other prior, draws of it.

    How far it is from the model is a claim like any other, ``mixture.log_density(x) - evidence(model, x)``. A lattice
    is good while its nodes are closer than about twice the posterior's standard deviations; Sobol points and draws
    serve while posteriors are broad, as those of a few bits are.

    Args:
        model: a VAE or another model with a Gaussian decoder (diagonal covariances) or a Bernoulli one.
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
        z, log_weights = _nodes(model.prior, nodes, generator)
        return _mixture(model.decoder, z, log_weights.log_softmax(0))


def _nodes(prior: Density, n: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Latents ``[N, d]`` and the logarithms of their weights up to a constant, ``[N]``, float64."""
    equal = torch.zeros(n, dtype=torch.float64, device=prior.reference.device)
    if isinstance(prior, CategoricalFamily):
        z = prior.enumerate()
        return z, prior.log_prob(z).double()
    if not isinstance(prior, GaussianFamily):
        return prior.sample(n, generator=generator), equal
    if prior.features > ON_A_LATTICE:
        noise, log_weights = _normal_sobol(n, prior, generator), equal
    else:
        noise = _lattice(n, prior)
        log_weights = -0.5 * noise.square().sum(-1)
    mean, scale = prior.at(None)
    return mean + scale.color(noise.to(mean)), log_weights


def _lattice(n: int, prior: Density) -> Tensor:
    """A square of nodes, of a normal density as broad as balances what it leaves out and what lies between them."""
    each = math.floor(n ** (1 / prior.features) + 1e-9)
    reach = min(math.sqrt(math.pi * each), REACH)
    axis = torch.linspace(-reach, reach, each, dtype=torch.float64, device=prior.reference.device)
    return torch.cartesian_prod(*[axis] * prior.features).reshape(-1, prior.features)


def _normal_sobol(n: int, prior: Density, generator: Generator | None) -> Tensor:
    """Scrambled Sobol points ``[n, d]`` at the quantiles of a standard normal density."""
    device = prior.reference.device
    seed = int(torch.randint(2**31, (), generator=generator, device=device if generator is None else generator.device))
    points = torch.quasirandom.SobolEngine(prior.features, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(2**-31, 1 - 2**-31)).to(device)


def _mixture(decoder: Density, z: Tensor, log_weights: Tensor) -> GaussianMixture | FiniteMixture:
    """The mixture of what a decoder says at latents ``[N, d]``."""
    if isinstance(decoder, BernoulliFamily):
        logits = decoder.logits_at(z)
        mixture = FiniteMixture(decoder.features, len(z), BernoulliLikelihood()).to(logits)
        mixture.prior.logits.copy_(log_weights)
        mixture.decoder.numbers.copy_(logits)
        return mixture
    inner = decoder.density if isinstance(decoder, Rescaled) else decoder
    scale = inner.at(z)[1] if isinstance(inner, GaussianFamily) else None
    if not isinstance(inner, GaussianFamily) or not isinstance(scale, DiagonalScale):
        raise TypeError(
            f"as_mixture takes a Bernoulli decoder, or a Gaussian one with diagonal covariances; got "
            f"{type(decoder).__name__}"
        )
    mean, std = inner.at(z)[0], scale.std.expand(len(z), -1)
    if isinstance(decoder, Rescaled):
        mean, std = decoder.standardise.inverse(mean), std * decoder.standardise.scale
    found = GaussianMixture(decoder.features, len(z), Diagonal()).to(mean)
    found.prior.logits.copy_(log_weights)
    found.decoder.means.copy_(mean)
    found.decoder.factor.copy_(std.log())
    return found
