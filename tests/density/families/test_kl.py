"""Closed forms of KL(q ‖ p) against torch.distributions, quadrature, enumeration and Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch import distributions as td

from density import (
    Bernoulli,
    Categorical,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    Gaussian,
    NetworkScale,
    Rescaled,
    StandardNormal,
    kl,
)
from lvm import GaussianMixture
from tests.cases.densities import bits, one_hot
from tests.laws.density_case import grid
from tests.laws.transforms import randomise

CONTEXT = 3

GAUSSIANS: dict[str, Callable[[int], Density]] = {
    "standard": StandardNormal,
    "diagonal": DiagonalGaussian,
    "full": Gaussian,
    "conditional": lambda d: ConditionalGaussian(nn.Linear(CONTEXT, 2 * d), d, CONTEXT, NetworkScale()),
}
DISCRETE: dict[str, tuple[Callable[[int], Density], Callable[[int], Density], Callable[[int], Tensor]]] = {
    "Bernoulli": (Bernoulli, lambda d: ConditionalBernoulli(nn.Linear(CONTEXT, d), d, CONTEXT), bits),
    "categorical": (Categorical, lambda d: ConditionalCategorical(nn.Linear(CONTEXT, d), d, CONTEXT), one_hot),
}


def as_torch(density: Density, context: Tensor | None) -> td.MultivariateNormal:
    """The same Gaussian, from moments by their definitions."""
    assert isinstance(density, StandardNormal | DiagonalGaussian | Gaussian | ConditionalGaussian)
    mean, scale = density.at(context if density.context_features else None)
    return td.MultivariateNormal(mean, scale_tril=scale.dense())


def contexts(generator: Generator, *batch: int) -> Tensor:
    return torch.randn(*batch, CONTEXT, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("p_name", GAUSSIANS)
@pytest.mark.parametrize("q_name", GAUSSIANS)
def test_gaussians(q_name: str, p_name: str, generator: Generator) -> None:
    q, p = randomise(GAUSSIANS[q_name](3), generator), randomise(GAUSSIANS[p_name](3), generator)
    conditional = "conditional" in (q_name, p_name)
    for batch in ((), (5,), (2, 4)):
        context = contexts(generator, *batch) if conditional else None
        ours = kl(q, p, context)
        assert ours is not None
        assert ours.shape == (batch if conditional else ())
        theirs = td.kl_divergence(as_torch(q, context), as_torch(p, context))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert (ours > 0.01).all() or q_name == p_name == "standard"


@pytest.mark.parametrize("p_name", GAUSSIANS)
@pytest.mark.parametrize("q_name", GAUSSIANS)
def test_gaussians_by_quadrature(q_name: str, p_name: str, generator: Generator) -> None:
    """In one dimension the integral of q log(q/p) itself; the trapezoid rule is exact to rounding."""
    q, p = randomise(GAUSSIANS[q_name](1), generator), randomise(GAUSSIANS[p_name](1), generator)
    context = contexts(generator) if "conditional" in (q_name, p_name) else None
    low, high = torch.tensor([-60.0], dtype=torch.float64), torch.tensor([60.0], dtype=torch.float64)
    x, cell = grid(low, high, 60_001)
    log_q = q.log_prob(x, context if q.context_features else None)
    log_p = p.log_prob(x, context if p.context_features else None)
    ours = kl(q, p, context)
    assert ours is not None
    torch.testing.assert_close(ours, (log_q.exp() * (log_q - log_p)).sum() * cell, rtol=1e-9, atol=1e-9)


def test_gaussians_by_monte_carlo(generator: Generator) -> None:
    q = randomise(GAUSSIANS["conditional"](2), generator)
    p = randomise(Gaussian(2), generator)
    context = contexts(generator, 4)
    ours = kl(q, p, context)
    assert ours is not None
    with torch.no_grad():
        x, log_q = q.sample_with_log_prob(20_000, context=context, generator=generator)
        ratio = log_q - p.log_prob(x)
    z = (ratio.mean(0) - ours) / (ratio.std(0) / math.sqrt(20_000))
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_by_enumeration(name: str, generator: Generator) -> None:
    plain, conditional, values = DISCRETE[name]
    for make_q in (plain, conditional):
        for make_p in (plain, conditional):
            q, p = randomise(make_q(3), generator), randomise(make_p(3), generator)
            context = contexts(generator, 5) if conditional in (make_q, make_p) else None
            ours = kl(q, p, context)
            assert ours is not None
            x = values(3).unsqueeze(1) if context is not None else values(3)
            log_q = q.log_prob(x, context if q.context_features else None)
            log_p = p.log_prob(x, context if p.context_features else None)
            expected = (log_q.exp() * (log_q - log_p)).sum(0)
            torch.testing.assert_close(ours, expected.expand_as(ours), rtol=1e-12, atol=1e-12)
            assert (ours > 1e-3).all()


@pytest.mark.parametrize("make", [*GAUSSIANS.values(), *(m for pair in DISCRETE.values() for m in pair[:2])])
def test_of_a_density_and_itself_is_zero(make: Callable[[int], Density], generator: Generator) -> None:
    q = randomise(make(3), generator)
    value = kl(q, q, contexts(generator, 5) if q.context_features else None)
    assert value is not None
    assert value.abs().max() < 1e-14


def test_is_differentiable(generator: Generator) -> None:
    for q_name in GAUSSIANS:
        for p_name in GAUSSIANS:
            q, p = randomise(GAUSSIANS[q_name](2), generator), randomise(GAUSSIANS[p_name](2), generator)
            parameters = [*q.parameters(), *p.parameters()]
            if not parameters:
                continue
            value = kl(q, p, contexts(generator, 5) if "conditional" in (q_name, p_name) else None)
            assert value is not None
            for gradient in torch.autograd.grad((value * torch.rand_like(value)).sum(), parameters):
                assert gradient.isfinite().all()
                assert gradient.any()


def test_impossible_values_of_q_cost_nothing() -> None:
    q, p = Categorical(3).double(), Categorical(3).double()
    with torch.no_grad():
        q.logits.copy_(torch.tensor([0.0, 0.0, -math.inf]))
    value = kl(q, p)
    assert value is not None
    assert value.item() == pytest.approx(math.log(1.5))
    other = kl(p, q)
    assert other is not None
    assert other.item() == math.inf


def test_extreme_log_odds_are_finite() -> None:
    q, p = Bernoulli(1), Bernoulli(1)
    with torch.no_grad():
        q.logits.fill_(200.0)
        p.logits.fill_(-200.0)
    value = kl(q, p)
    assert value is not None
    assert value.item() == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (GaussianMixture(2, 3), StandardNormal(2)),
        (StandardNormal(2), GaussianMixture(2, 3)),
        (Rescaled(StandardNormal(2)), StandardNormal(2)),
        (Bernoulli(2), Categorical(2)),
        (Categorical(2), StandardNormal(2)),
    ],
)
def test_is_none_where_there_is_no_closed_form(q: Density, p: Density) -> None:
    assert kl(q, p) is None


def test_misuse_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="same space; got 2 and 3 features"):
        kl(StandardNormal(2), StandardNormal(3))
    q = GAUSSIANS["conditional"](2)
    with pytest.raises(ValueError, match="ConditionalGaussian needs a context"):
        kl(q, StandardNormal(2))
    with pytest.raises(ValueError, match=r"expects a context of shape \[\*batch, 3\]; got \[5, 4\]"):
        kl(q, StandardNormal(2), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="take no context; got one"):
        kl(StandardNormal(2), StandardNormal(2), torch.zeros(5, 4))
