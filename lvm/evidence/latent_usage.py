"""Use of the latent: active units, and the parts of the KL term."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.evaluating import evaluated
from density.families.gaussian import GaussianFamily, StandardNormal
from density.families.scale import DiagonalScale
from density.log_density import Claim, Kind
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

PAIRS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class KlParts:
    r"""The mean KL term of the ELBO in two (Hoffman & Johnson 2016): what x and z share, and what the prior misses.

    .. math:: \tfrac1n\sum_i KL(q(z|x_i) \,\|\, p(z)) = I_q(i; z) + KL(q(z) \,\|\, p(z)),
              \qquad q(z) = \tfrac1n \sum_i q(z|x_i)

    Each a :class:`~density.log_density.Claim` whose values are the points' terms; their mean is the quantity.

    Attributes:
        total: KL(q(z|x_i) ‖ p(z)).
        mutual_information: between the index of a point and its latent, at most log n.
        marginal: KL of the aggregate posterior to the prior.

    >>> from lvm import PPCA
    >>> parts = kl_parts(PPCA(3, 1), torch.randn(20, 3), generator=torch.manual_seed(0))
    >>> parts.mutual_information.mean <= math.log(20)
    True
    """

    total: Claim
    mutual_information: Claim
    marginal: Claim


@evaluated
def kl_parts(
    model: LayeredModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    draws: int = 10,
    generator: Generator | None = None,
) -> KlParts:
    """Mutual information and marginal KL of the encoder on x ``[n, D]``, by draws from it.

    Args:
        context: contexts ``[n, C]`` of a conditional model: the index i then stands for a point and its context.
        draws: latent draws for each point, at least 2.

    Raises:
        TypeError: the model has no encoder density, or its prior is conditional: there is no one p(z) to be near to.
        ValueError: draws < 2 or unusable data.

    Cost O(n² · draws) evaluations of log q. The mutual information is that of these n points: with more points it grows
    towards that of the data distribution, and it cannot exceed log n.

    >>> from lvm import PPCA
    >>> parts = kl_parts(PPCA(3, 1), torch.randn(20, 3), generator=torch.manual_seed(0))
    >>> round(parts.total.mean - parts.mutual_information.mean - parts.marginal.mean, 4) + 0.0
    0.0
    """
    draws = check_count(draws, "draws")
    if draws < 2:
        raise ValueError("kl_parts needs at least 2 draws to have a Monte Carlo error; got 1")
    joint = _joint(model, "kl_parts")
    if joint.prior.context_features:
        raise TypeError(
            f"kl_parts measures q(z) by one prior p(z); {type(joint.prior).__name__} is another one for every context"
        )
    given = model._data_rows(x, context)
    n = x.shape[0]
    with torch.no_grad():
        z, log_q = joint.encoder.sample_with_log_prob(draws, context=given, generator=generator)
        log_prior = joint.prior.log_prob(z)
        flat = z.reshape(draws * n, 1, -1)
        step = max(1, PAIRS_AT_ONCE // n)
        log_aggregate = torch.cat(
            [joint.encoder.log_prob(rows, given).logsumexp(-1) for rows in flat.split(step)]
        ).reshape(draws, n) - math.log(n)
    terms = {
        "KL(q(z|x) ‖ p(z))": log_q - log_prior,
        "mutual information": log_q - log_aggregate,
        "KL(q(z) ‖ p(z))": log_aggregate - log_prior,
    }
    return KlParts(
        *(
            Claim(values.double().mean(0), Kind.EXACT, name, values.double().std(0) / math.sqrt(draws))
            for name, values in terms.items()
        )
    )


@dataclass(frozen=True, eq=False)
class LatentUsage:
    """Use of each latent dimension, each ``[d]``: how much it moves with x.

    Attributes:
        activity: Var_x E_q[z_j].
        activity_error: its standard error over the data.
        active: activity above the threshold (Burda et al. 2016, section 5.2).
        undecided: activity within two standard errors of the threshold.
        kl: mean KL(q(z_j|x) ‖ p(z_j)), nats.
        kl_error: its standard error over the data.

    >>> from lvm import VAE
    >>> usage = latent_usage(VAE.gaussian(3, latent_features=2, hidden=(8,)), torch.randn(50, 3))
    >>> [sorted(row) for row in usage.rows()][0]
    ['active', 'activity', 'activity_error', 'dimension', 'kl', 'kl_error', 'undecided']
    """

    activity: Tensor
    activity_error: Tensor
    active: Tensor
    undecided: Tensor
    kl: Tensor
    kl_error: Tensor

    def rows(self) -> list[dict[str, float]]:
        """One plain record for each latent dimension."""
        names = ("activity", "activity_error", "active", "undecided", "kl", "kl_error")
        columns = [getattr(self, name).tolist() for name in names]
        return [
            {"dimension": j} | dict(zip(names, values, strict=True))
            for j, values in enumerate(zip(*columns, strict=True))
        ]


@evaluated
def latent_usage(
    model: LayeredModel, x: Tensor, *, context: Tensor | None = None, threshold: float = 0.01
) -> LatentUsage:
    """Activity and KL of every latent dimension on x ``[n, D]``, in closed form. O(n) encoder passes.

    Of a conditional model at contexts ``[n, C]``; a latent that repeats what its context says counts as active, too.

    Raises:
        TypeError: a model without an encoder density, an encoder that is not a diagonal Gaussian, or a prior that is
            not standard normal: then the KL term does not fall into dimensions.
        ValueError: fewer than two points, or unusable data.

    >>> from lvm import VAE
    >>> vae = VAE.gaussian(3, latent_features=2, hidden=(8,))
    >>> usage = latent_usage(vae, torch.randn(50, 3))
    >>> usage.kl.shape, bool((usage.kl >= 0).all())
    (torch.Size([2]), True)
    """
    joint = _joint(model, "latent_usage")
    rows = model._data_rows(x, context)
    n = x.shape[0]
    if n < 2:
        raise ValueError("latent_usage is about variation over points; got one point")
    if not isinstance(joint.encoder, GaussianFamily) or not isinstance(joint.prior, StandardNormal):
        raise TypeError(
            "latent_usage needs a Gaussian encoder and a standard normal prior; got "
            f"{type(joint.encoder).__name__} and {type(joint.prior).__name__}. kl_parts works for any, but for a "
            "conditional prior"
        )
    with torch.no_grad():
        mean, scale = joint.encoder.at(rows)
        if not isinstance(scale, DiagonalScale):
            raise TypeError("latent_usage needs an encoder with a diagonal covariance; kl_parts works for any")
        mean = mean.double()
        variance = scale.std.double().square().expand_as(mean)
        centred = mean - mean.mean(0)
        activity = centred.square().mean(0) * n / (n - 1)
        activity_error = ((centred**4).mean(0) - centred.square().mean(0).square()).clamp_min(0).sqrt() / math.sqrt(n)
        terms = 0.5 * (mean.square() + variance - 1 - variance.log())
    return LatentUsage(
        activity,
        activity_error,
        activity > threshold,
        (activity - threshold).abs() <= 2 * activity_error,
        terms.mean(0),
        terms.std(0) / math.sqrt(n),
    )


def _joint(model: object, owner: str) -> LatentVariableModel:
    joint = unrolled(model)
    if not isinstance(joint, LatentVariableModel):
        raise TypeError(f"{owner} needs a LatentVariableModel, with an encoder; got {type(model).__name__}")
    return joint
