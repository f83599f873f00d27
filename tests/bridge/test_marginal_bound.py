"""Flows of rows with missing entries: bounds by importance over what is missing, against quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from bridge import MarginalBound
from density import Bernoulli, Density, Gaussian, StandardNormal, Training
from flows import maf, real_nvp
from lvm import EM, PPCA, GaussianMixture
from tests.laws.density_case import grid
from tests.laws.transforms import randomise
from tests.lvm.missing.incomplete import awkward, holes

QUIET = EM(progress=False)


def by_quadrature(density: Density, x: Tensor) -> Tensor:
    """log of the integral of p over the missing entries of each row, by the trapezoid rule."""
    found = []
    for row in x:
        gaps = row.isnan()
        edge = torch.full((int(gaps.sum()),), 14.0, dtype=x.dtype)
        if not len(edge):
            found.append(density.log_prob(row))
            continue
        values, cell = grid(-edge, edge, {1: 2001, 2: 201}[len(edge)])
        points = row.expand(len(values), -1).clone()
        points[:, gaps] = values
        found.append(density.log_prob(points).logsumexp(0) + math.log(cell))
    return torch.stack(found).detach()


@pytest.mark.parametrize("kind", ["coupling", "maf"])
def test_bound_is_below_the_marginal_and_near_it(kind: str, generator: Generator) -> None:
    flow = {"coupling": real_nvp, "maf": maf}[kind](3, 2, (8,), base=StandardNormal)
    randomise(flow, generator, 0.2)
    x = flow.sample(400, generator=generator).detach()
    proposal = GaussianMixture(3, 3).double()
    proposal.fit(x, QUIET, generator=generator)
    model = MarginalBound(flow, proposal)
    some = awkward(x[:36], generator)
    some = some[some.isnan().sum(-1) < 3][:7]
    truth, claim = by_quadrature(flow, some), model.log_density(some, draws=1500, generator=generator)
    assert claim.monte_carlo_error is not None
    error = claim.monte_carlo_error
    complete = ~some.isnan().any(-1)
    torch.testing.assert_close(claim.value[complete], truth[complete], rtol=1e-12, atol=1e-12)
    assert (error[~complete] < 0.15).all()
    assert ((claim.value - truth).abs() <= 5 * error + error.square() + 1e-5).all()
    assert (model.elbo(some, draws=200, generator=generator).detach()[~complete] < truth[~complete] + 0.05).all()
    nothing = model.log_weights(torch.full((1, 3), torch.nan).double(), 4000, generator=generator)
    assert abs(nothing.exp().mean().item() - 1) < 0.1


@pytest.mark.parametrize("proposal", [GaussianMixture(3, 1), PPCA(3, 2)], ids=["Gaussian", "PPCA"])
def test_a_density_that_is_its_own_proposal_has_no_gap(proposal: GaussianMixture | PPCA, generator: Generator) -> None:
    """Every weight is log p(x_o) then, which the proposal knows."""
    proposal = randomise(proposal, generator, 0.5)
    some = awkward(torch.randn(20, 3, generator=generator).double(), generator)
    model = MarginalBound(proposal, proposal)
    expected = proposal.observed.log_prob(some).expand(3, -1)
    torch.testing.assert_close(model.log_weights(some, 3, generator=generator), expected, rtol=1e-9, atol=1e-9)


def test_fit_learns_from_holes(generator: Generator) -> None:
    """A Gaussian's mean, of entries that are missing where others are large: of the observed alone it would be off."""
    x = torch.randn(400, 2, generator=generator).double() @ torch.tensor([[1.0, 0.9], [0.0, 0.5]]).double()
    some = torch.where((x[:, :1] > 0.5) & (torch.arange(2) == 1), torch.nan, x)
    proposal = GaussianMixture(2, 1).double()
    proposal.observed.fit(some, QUIET)
    density = Gaussian(2).double()
    training = Training(epochs=20, batch_size=200, learning_rate=0.08, progress=False, validation=0.0)
    history = MarginalBound(density, proposal).fit(some, training, draws=5, generator=generator)
    assert history.objective[-1] > history.objective[0]
    # At the maximum of log p(x_o), which EM has found for the proposal, of the same family.
    assert (density.mean - proposal.decoder.means[0]).abs().max() < 0.05
    observed_alone = some[~some[:, 1].isnan(), 1].mean()
    assert (observed_alone - proposal.decoder.means[0, 1]).abs() > 0.3


def test_gradients_and_misuse(generator: Generator) -> None:
    flow, proposal = real_nvp(3, 2, (8,)), GaussianMixture(3, 2)
    some = holes(torch.randn(12, 3, generator=generator), 0.3, generator)
    model = MarginalBound(flow, proposal)
    model.elbo(some, draws=2, generator=generator).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in flow.parameters() if p.grad is not None)
    assert all(p.grad is None for p in proposal.parameters())
    assert model.sample(4, generator=generator).shape == (4, 3)
    with pytest.raises(TypeError, match="takes a Density and a proposal that knows its conditionals"):
        MarginalBound(flow, flow)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be over the same points; got 3 features"):
        MarginalBound(flow, GaussianMixture(2, 2))
    with pytest.raises(ValueError, match="counting measure, and 3 features, Lebesgue measure"):
        MarginalBound(Bernoulli(3), proposal)
    with pytest.raises(ValueError, match="takes an unconditional density; Flow needs a context"):
        MarginalBound(real_nvp(3, 2, (8,), context_features=2), proposal)
    apart = MarginalBound(flow, GaussianMixture(3, 2).double())  # whose fit would move both to its data
    with pytest.raises(TypeError, match=r"MarginalBound's proposal computes in torch\.float64"):
        apart.log_density(some)
    with pytest.raises(ValueError, match="or nan where an entry is missing"):
        model.log_density(some.masked_fill(~some.isnan(), torch.inf))
