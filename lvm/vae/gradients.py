r"""Estimators of the gradient of a bound on log p(x): which random number does one differentiate?

With log w(z) = log p(x, z) − log q(z|x), θ the parameters of prior and decoder and φ those of the encoder, two bounds

.. math:: \mathcal L = E_q \log w, \qquad
          \mathcal L_K = E_{q^K} \log \tfrac1K \textstyle\sum_k w_k, \qquad w_k = w(z_k)

have gradients that can be estimated in many ways. In θ these agree: the mean of ∇θ log p(x, zₖ) over the draws, plain
or weighted by w̃ₖ = wₖ / Σ w. In φ, on which the draws depend too, they differ. Either one uses the score-function
identity ∇φ E_q f = E_q[f ∇φ log q] + E_q[∇φ f]; or, where z = T(ε, φ) is a differentiable function of noise whose law
does not depend on φ, one takes the expectation over ε (LOTUS), through which ∇φ passes. Mohamed et al. (2020, JMLR
21:132) review both; neither always has the smaller variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.func import functional_call

from density.contract import Density
from lvm.latent import LatentVariableModel
from lvm.vae.estimator import GradientEstimator
from lvm.vae.kl_weights import KLWeight, weight_of


@dataclass(frozen=True)
class ScoreFunction(GradientEstimator):
    r"""The score-function estimator of the ELBO's gradient, or REINFORCE (Williams 1992; Ranganath et al. 2014).

    .. math:: \hat g_\varphi = \tfrac1K \sum_k \log w_k \, \nabla_\varphi \log q(z_k|x), \qquad z_k \sim q

    Unbiased for the ELBO with any encoder that can be drawn from and has a log_prob, discrete ones too: nothing is
    differentiated in z. (∇φ log w = −∇φ log q has mean zero and is left out.) Its variance grows with the level of
    log w, a constant that does not matter: see :class:`LeaveOneOut`. Cost: two passes of the encoder on x, K of the
    decoder.

    >>> from lvm import GaussianMixture
    >>> mixture, x = GaussianMixture(2, components=3), torch.zeros(5, 2)  # whose latent is discrete
    >>> ScoreFunction(draws=4)(mixture, x).allclose(mixture.log_prob(x), atol=1e-5)
    True
    """

    draws: int = 1

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            z = model.encoder.sample(self.draws, context=x, generator=generator)
        log_q = model.encoder.log_prob(z, x)
        log_p = model._log_joint(x, z)
        log_w = (log_p - log_q).detach()
        return log_w.mean(0), (log_p + self._centred(log_w) * log_q).mean(0)

    def _centred(self, log_w: Tensor) -> Tensor:
        return log_w


@dataclass(frozen=True)
class LeaveOneOut(ScoreFunction):
    r"""The score-function estimator whose baseline for each draw is the mean log-weight of the others.

    .. math:: \hat g_\varphi = \tfrac1K \sum_k \Big(\log w_k - \tfrac1{K-1}\sum_{j\ne k} \log w_j\Big)
              \nabla_\varphi \log q(z_k|x)

    Unbiased for the ELBO, since the baseline is independent of zₖ and E_q ∇φ log q = 0 (Kool et al. 2019; Mnih &
    Rezende 2016, VIMCO, use the same idea for the importance-weighted bound). Free of the level of log w, so that its
    φ part vanishes at q = posterior. Cost as :class:`ScoreFunction`.

    Raises:
        ValueError: fewer than 2 draws.

    >>> from lvm import VAE
    >>> LeaveOneOut(draws=5)(VAE.gaussian(3, 1, hidden=(4,)), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    draws: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 2:
            raise ValueError("LeaveOneOut needs at least 2 draws, to have another one as the baseline; got 1")

    def _centred(self, log_w: Tensor) -> Tensor:
        return (log_w - log_w.mean(0)) * (self.draws / (self.draws - 1))


@dataclass(frozen=True)
class Reparametrised(GradientEstimator):
    r"""The ELBO differentiated along the path z = T(ε, φ), the LOTUS trick (Kingma & Welling; Rezende et al. 2014).

    .. math:: \hat g = \tfrac1K \sum_k \nabla_{\theta,\varphi} \log w(T(\varepsilon_k, \varphi))

    Unbiased for the ELBO. Its φ part is the path derivative plus the score −∇φ log q, whose mean is zero and whose
    variance is not, even at q = posterior. Cost: one pass of the encoder on x, K of the decoder.

    >>> from lvm import PPCA
    >>> model, x = PPCA(3, 1), torch.zeros(5, 3)
    >>> Reparametrised()(model, x).allclose(model.log_prob(x), atol=1e-5)  # at the posterior the ELBO is log p(x)
    True
    """

    draws: int = 1

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, log_q = self._pathwise(model, x, generator)
        bound = (model._log_joint(x, z) - log_q).mean(0)
        return bound, bound


@dataclass(frozen=True)
class AnalyticKL(GradientEstimator):
    r"""Reparametrised reconstruction term, KL term in closed form (Kingma & Welling 2014, equation 7).

    .. math:: \hat g = \nabla_{\theta,\varphi} \Big[ \tfrac1K \sum_k \log p(x|T(\varepsilon_k, \varphi))
              - \beta \, KL(q(z|x) \,\|\, p(z)) \Big]

    Unbiased for the ELBO at β = 1. Where the KL has no closed form it is sampled, with the same draws. Not always of
    smaller variance than :class:`Reparametrised`: near q = posterior the noise of the reconstruction term would have
    been cancelled by that of a sampled KL (Roeder et al. 2017). Cost as :class:`Reparametrised`.

    Args:
        draws: K.
        kl_weight: β; other than 1 it is the β-VAE (Higgins et al. 2017), whose value is reconstruction − β · KL: a
            bound on log p(x) for β ≥ 1 only. A :class:`~lvm.vae.kl_weights.WarmUp` or
            :class:`~lvm.vae.kl_weights.Cyclical` changes it as a fit goes on.
        free_nats: KL that costs nothing: where a point's is smaller, this is in its place, with no gradient. These are
            the free bits of Kingma et al. (2016, arXiv:1606.04934, equation 15) for all latents together, and for each
            point rather than for a batch, so that points do not see each other.

    In a fit, held-out rows are judged by what β comes to, and without free nats; patience lasts longer by the steps
    that β takes to grow, or by a cycle.

    Raises:
        ValueError: draws < 1, or a kl_weight or free_nats that is negative or not finite.

    >>> from lvm import VAE
    >>> vae, x = VAE.gaussian(3, 1, hidden=(4,)), torch.zeros(5, 3)
    >>> terms = vae.elbo_terms(x, generator=torch.manual_seed(0))
    >>> AnalyticKL(kl_weight=2.0)(vae, x, torch.manual_seed(0)).allclose(terms.reconstruction - 2 * terms.kl)
    True
    """

    draws: int = 1
    kl_weight: float | KLWeight = 1.0
    free_nats: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        weight_of(self.kl_weight)
        if not (math.isfinite(self.free_nats) and self.free_nats >= 0):
            raise ValueError(f"free_nats must be finite and at least 0; got {self.free_nats}")

    @property
    def period(self) -> int:
        return weight_of(self.kl_weight).period

    def at(self, step: int) -> AnalyticKL:
        return replace(self, kl_weight=weight_of(self.kl_weight).at(step))

    def settled(self) -> AnalyticKL:
        settled = replace(self, kl_weight=weight_of(self.kl_weight).weight, free_nats=0.0)
        return self if settled == self else settled

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, divergence = model._draw_latents(x, self.draws, generator)
        self._require_path(model.encoder, z)
        if self.free_nats:
            divergence = divergence.clamp_min(self.free_nats)
        reconstruction = _mean(model._log_likelihood(x, z))
        bound = torch.sub(reconstruction, divergence, alpha=weight_of(self.kl_weight).weight)
        return bound, bound


@dataclass(frozen=True)
class StickingTheLanding(GradientEstimator):
    r"""The path derivative alone: φ is held fixed in log q, and differentiated in the draws (Roeder et al. 2017).

    .. math:: \hat g_\varphi = \tfrac1K \sum_k \nabla_z \log w(z_k) \, \nabla_\varphi T(\varepsilon_k, \varphi)

    Unbiased for the ELBO at any K, since the score it leaves out has mean zero. At q = posterior log w is constant in
    z, so every draw gives 0: the variance vanishes. Cost as :class:`Reparametrised`, plus a second pass of the encoder
    on x.

    Args:
        draws: K.
        importance_weighted: use w̃ₖ instead of 1/K, aiming at the importance-weighted bound. **Biased** in φ for K > 1:
            there the score does not have mean zero (Tucker et al. 2019, section 4). :class:`DoublyReparametrised`
            mends it. Kept to show the bias.

    >>> from lvm import VAE
    >>> vae, x = VAE.gaussian(3, 1, hidden=(4,)), torch.zeros(5, 3)
    >>> same = StickingTheLanding()(vae, x, torch.manual_seed(0)), Reparametrised()(vae, x, torch.manual_seed(0))
    >>> same[0].allclose(same[1])  # the values; gradients differ by the score
    True
    """

    draws: int = 1
    importance_weighted: bool = False

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, _ = self._pathwise(model, x, generator)
        log_w = model._log_joint(x, z) - _log_prob_with_fixed_parameters(model.encoder, z, x)
        bound = _log_mean_exp(log_w) if self.importance_weighted else log_w.mean(0)
        return bound, bound


@dataclass(frozen=True)
class ImportanceWeighted(GradientEstimator):
    r"""The importance-weighted bound of K draws, differentiated along the path (Burda et al. 2016, section 3).

    .. math:: \hat g = \nabla_{\theta,\varphi} \log \tfrac1K \sum_k w_k
              = \sum_k \tilde w_k \nabla_{\theta,\varphi} \log w(T(\varepsilon_k, \varphi))

    Unbiased for the importance-weighted bound, which is the ELBO at K = 1 and tightens to log p(x). As K grows, the
    signal-to-noise ratio of the φ part falls as K^(−1/2) while that of θ grows as K^(1/2) (Rainforth et al. 2018).
    Cost: one pass of the encoder on x, K of the decoder.

    >>> from lvm import VAE
    >>> vae, x = VAE.gaussian(3, 1, hidden=(4,)), torch.zeros(5, 3)
    >>> bounds = ImportanceWeighted(draws=100), Reparametrised(draws=100)
    >>> tighter, elbo = (bound(vae, x, torch.manual_seed(0)) for bound in bounds)
    >>> bool((tighter >= elbo).all())  # of the same draws, by Jensen's inequality
    True
    """

    draws: int = 1

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, log_q = self._pathwise(model, x, generator)
        bound = _log_mean_exp(model._log_joint(x, z) - log_q)
        return bound, bound


@dataclass(frozen=True)
class DoublyReparametrised(GradientEstimator):
    r"""The importance-weighted bound, its score term reparametrised once more: DReG (Tucker et al. 2019).

    .. math:: \hat g_\varphi = \sum_k \tilde w_k^2 \, \nabla_z \log w(z_k) \, \nabla_\varphi T(\varepsilon_k, \varphi),
              \qquad \hat g_\theta = \sum_k \tilde w_k \nabla_\theta \log p(x, z_k)

    Unbiased for the importance-weighted bound, and the signal-to-noise ratio of the φ part grows as K^(1/2). It is
    :class:`StickingTheLanding` at K = 1. Cost as :class:`ImportanceWeighted`, plus a second pass of the encoder on x.

    >>> from lvm import VAE
    >>> vae, x = VAE.gaussian(3, 1, hidden=(4,)), torch.zeros(5, 3)
    >>> weight = next(vae.encoder.parameters())
    >>> one, other = (
    ...     torch.autograd.grad(estimator(vae, x, torch.manual_seed(0)).sum(), weight)[0]
    ...     for estimator in (DoublyReparametrised(draws=1), StickingTheLanding(draws=1))
    ... )
    >>> one.allclose(other)
    True
    """

    draws: int = 1

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, _ = self._pathwise(model, x, generator)
        log_w = model._log_joint(x, z) - _log_prob_with_fixed_parameters(model.encoder, z, x)
        normalised = log_w.detach().softmax(0)
        if z.requires_grad:  # what flows back into the draws gets the second w̃; what flows into θ has the first alone
            z.register_hook(lambda gradient: gradient * normalised.unsqueeze(-1))
        return _log_mean_exp(log_w), (normalised * log_w).sum(0)


@dataclass(frozen=True)
class WrongGradient(GradientEstimator):
    r"""A counter-example, **biased**: ∇φ moved inside E_q as if q did not depend on φ. Do not train with it.

    .. math:: \nabla_\varphi E_q \log p(x|z) \ne E_q \nabla_\varphi \log p(x|z) = 0

    For a given draw, log p(x|z) does not contain φ, so the reconstruction term never moves the encoder and only the KL
    term does, towards the prior: q collapses onto it. This is what code computes that draws z without reparametrising
    it and then differentiates the ELBO. θ's gradient and the value are right. Cost as :class:`AnalyticKL`.

    >>> from density import kl
    >>> from lvm import VAE
    >>> vae, x = VAE.gaussian(3, 1, hidden=(4,)), torch.randn(5, 3)
    >>> weight = next(vae.encoder.parameters())
    >>> (wrong,) = torch.autograd.grad(WrongGradient()(vae, x).sum(), weight)
    >>> (of_kl,) = torch.autograd.grad(-kl(vae.encoder, vae.prior, x).sum(), weight)
    >>> wrong.allclose(of_kl)  # the data has no say
    True
    """

    draws: int = 1

    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, divergence = model._draw_latents(x, self.draws, generator)
        self._require_path(model.encoder, z)
        bound = model._log_likelihood(x, z.detach()).mean(0) - divergence
        return bound, bound


def _mean(of_draws: Tensor) -> Tensor:
    """The mean over draws ``[draws, *batch]``, of which there often is one."""
    return of_draws.squeeze(0) if len(of_draws) == 1 else of_draws.mean(0)


def _log_mean_exp(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) - math.log(log_w.shape[0])


def _log_prob_with_fixed_parameters(density: Density, z: Tensor, context: Tensor) -> Tensor:
    """log q(z|x), differentiable in z but not in the parameters of q, which may be shared with other densities.

    Nor in its context, which an embedding network of the model may have made.
    """
    fixed = {name: p.detach() for name, p in density.named_parameters()}
    return torch.as_tensor(functional_call(density, fixed, (z, context.detach())))
