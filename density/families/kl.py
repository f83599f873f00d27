"""Kullback-Leibler divergences that have a closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from density.contract import Density
from density.families.bernoulli import BernoulliFamily
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from density.families.likelihoods.univariate import IndependentFamily


def kl(q: Density, p: Density, context: Tensor | None = None, *, p_context: Tensor | None = None) -> Tensor | None:
    r"""KL(q(·|c) ‖ p) in nats where a closed form exists, else None.

    Two Gaussians with Σ = S Sᵀ:

    .. math:: \tfrac12\big(\lVert S_p^{-1}S_q\rVert_F^2 + \lVert S_p^{-1}(\mu_q-\mu_p)\rVert^2 - D\big)
              + \log\det S_p - \log\det S_q

    (O(D) for two diagonal ones, O(D³) otherwise); two Bernoullis and two categoricals: the sum over values; independent
    features of one family: what the family says.

    Args:
        q: may be conditional; then the context is its.
        p: unconditional, or conditional on the same context, or on one of its own.
        context: shape ``[*batch, C]``.
        p_context: p's own.

    Returns:
        Shape ``[*batch]``, differentiable, or None.

    Raises:
        ValueError: q and p have different numbers of features, or a context is missing, superfluous or of another size.

    >>> from density.families.gaussian import DiagonalGaussian, StandardNormal
    >>> kl(DiagonalGaussian(3), StandardNormal(3)).item()
    0.0
    """
    if q.features != p.features:
        raise ValueError(f"kl compares densities over the same space; got {q.features} and {p.features} features")
    for_q = context if q.context_features else None
    for_p = context if p.context_features and p_context is None else p_context
    if context is not None and for_q is None and for_p is None:
        raise ValueError(f"{type(q).__name__} and {type(p).__name__} take no context; got one")
    q._check_context(for_q)
    p._check_context(for_p)
    if isinstance(q, GaussianFamily) and isinstance(p, GaussianFamily):
        return p._kl_from(*q.at(for_q), for_p)
    if isinstance(q, BernoulliFamily) and isinstance(p, BernoulliFamily):
        return _bernoulli(q.logits_at(for_q), p.logits_at(for_p))
    if isinstance(q, CategoricalFamily) and isinstance(p, CategoricalFamily):
        return _categorical(q.logits_at(for_q), p.logits_at(for_p))
    if isinstance(q, IndependentFamily) and isinstance(p, IndependentFamily) and q.likelihood == p.likelihood:
        terms = q.likelihood.kl(q.parameters_at(for_q), p.parameters_at(for_p))
        return None if terms is None else terms.sum(-1)
    return None


def _bernoulli(logits_q: Tensor, logits_p: Tensor) -> Tensor:
    on = logits_q.sigmoid() * (functional.logsigmoid(logits_q) - functional.logsigmoid(logits_p))
    off = (-logits_q).sigmoid() * (functional.logsigmoid(-logits_q) - functional.logsigmoid(-logits_p))
    return (on + off).sum(-1)


def _categorical(logits_q: Tensor, logits_p: Tensor) -> Tensor:
    log_q, log_p = logits_q.log_softmax(-1), logits_p.log_softmax(-1)
    terms = log_q.exp() * (log_q - log_p)
    return torch.where(log_q.isneginf(), torch.zeros_like(terms), terms).sum(-1)
