"""log p(x) of a chain by grids: against normals in closed form, and against one sum over all latents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from density import Kind
from density.families.nets import mlp
from density.families.timed import Timed
from lvm import CosineSchedule, GaussianDiffusion
from lvm.diffusion.denoiser import alpha, sigma
from studies.diffusion.grid import grid_claim

SCHEDULE = CosineSchedule(-5.0, 4.0)
SHARE = 0.9


class Share(nn.Module):
    """ε̂ = b σ z, by which all latents and x are normal."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return SHARE * sigma(gamma) * z


def in_units(model: GaussianDiffusion) -> GaussianDiffusion:
    """The model in float64, of data in other units than its latents'."""
    model = model.double()
    model.layer.standardise.shift.fill_(0.3)
    model.layer.standardise.scale.fill_(2.0)
    return model


@pytest.mark.parametrize(("features", "steps"), [(1, 1), (1, 2), (1, 60), (2, 1), (2, 4)])
def test_normal_chains_have_their_closed_form(features: int, steps: int) -> None:
    model = in_units(GaussianDiffusion(Share(), features, steps, SCHEDULE))
    gammas = model.layer.gammas()
    variance = torch.ones((), dtype=torch.float64)
    for low, high in zip(gammas[:-1].flip(0), gammas[1:].flip(0), strict=True):
        change = -torch.expm1(low - high)
        slope = alpha(low) / alpha(high) * (1 - change * sigma(high) ** 2 * SHARE)
        variance = slope**2 * variance + change * sigma(low) ** 2
    slope = (1 - sigma(gammas[0]) ** 2 * SHARE) / alpha(gammas[0])
    std = 2.0 * (slope**2 * variance + gammas[0].exp()).sqrt()
    x = 0.3 + std * torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None].expand(-1, features)
    expected = torch.distributions.Normal(0.3, std).log_prob(x).sum(1)
    claim = grid_claim(model, x, 1e-6)
    assert claim.kind is Kind.EXACT
    torch.testing.assert_close(claim.value, expected, rtol=0, atol=1e-6)


def random_model(features: int, steps: int) -> GaussianDiffusion:
    torch.manual_seed(features)
    network = Timed(mlp(features + 1, features, (16,)), features, unit=10.0)
    return in_units(GaussianDiffusion(network, features, steps, SCHEDULE))


def log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x)


@torch.no_grad()
def test_a_chain_of_two_steps_is_one_sum_over_both_latents() -> None:
    model = random_model(1, 2)
    low, high = model.layer.gammas()
    axis = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    change = -torch.expm1(low - high)
    mean = alpha(low) / alpha(high) * (axis[:, None] - change * sigma(high) * model.layer.denoiser(axis[:, None], high))
    both = log_normal(axis[:, None], 0 * axis[:, None], torch.ones(())) + log_normal(
        axis, mean, change.sqrt() * sigma(low)
    )
    first = both.logsumexp(0) + math.log(0.01)
    clean = model.layer.denoiser.clean(axis[:, None], low)[:, 0]
    x = torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None]
    given = log_normal((x - 0.3) / 2, clean, (low / 2).exp())
    expected = (first + given).logsumexp(1) + math.log(0.01) - math.log(2)
    claim = grid_claim(model, x, 1e-6)
    torch.testing.assert_close(claim.value, expected, rtol=0, atol=1e-6)
    assert claim.numerical_error is not None
    assert ((claim.value - expected).abs() <= claim.numerical_error + 1e-9).all()


@torch.no_grad()
def test_a_chain_of_one_step_in_the_plane_is_a_sum_over_its_latent() -> None:
    model = random_model(2, 1)
    (last,) = model.layer.gammas()
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    clean = model.layer.denoiser.clean(z, last)
    x = torch.tensor([[0.0, 0.0], [1.0, -2.0]], dtype=torch.float64)
    prior = log_normal(z, 0 * z, torch.ones(())).sum(1)
    given = log_normal((x[:, None] - 0.3) / 2, clean, (last / 2).exp()).sum(2)
    expected = (prior + given).logsumexp(1) + 2 * math.log(0.05) - 2 * math.log(2)
    torch.testing.assert_close(grid_claim(model, x, 1e-6).value, expected, rtol=0, atol=1e-6)


def test_grids_that_do_not_agree_are_an_estimate() -> None:
    claim = grid_claim(random_model(1, 2), torch.zeros(1, 1, dtype=torch.float64), 1e-300)
    assert claim.kind is Kind.ESTIMATE
