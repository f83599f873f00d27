"""Velocities and scores of other libraries, against the density that they belong to."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import from_score, from_velocity
from lvm import CosineSchedule
from lvm.diffusion.denoiser import alpha
from tests.flows.continuous.velocities import StraightToNoise
from tests.lvm.diffusion.gaussians import normal_log_prob, variance_at

STD = torch.tensor([0.4, 1.7], dtype=torch.float64)
POINTS = STD * torch.randn(10, 2, generator=Generator().manual_seed(0), dtype=torch.float64)


def test_a_velocity_from_noise_to_data_is_turned_round() -> None:
    """As ``flow_matching`` and ``torchcfm`` have it: t = 0 is noise, and the path is z + t (x − z)."""
    ours = StraightToNoise(STD)

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ours

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return -ours(x, 1 - t)

    for velocity in (Theirs(), lambda x, t: -ours(x, 1 - t)):
        flow = from_velocity(velocity, 2, tolerance=1e-5)
        torch.testing.assert_close(flow.log_prob(POINTS), normal_log_prob(POINTS, STD), rtol=0, atol=1e-6)
        assert any(parameter is ours.factor for parameter in flow.parameters())


def test_the_flow_of_a_score_is_the_density_that_it_is_the_score_of() -> None:
    """Of the latent at the first time, whose noise is e^−6 of its variance; what signal is left at the end costs."""
    schedule = CosineSchedule(-6.0, 8.0)

    def score(z: Tensor, t: Tensor) -> Tensor:
        return -z / variance_at(STD, schedule(t))

    first = schedule(torch.zeros((), dtype=torch.float64))
    z = alpha(first) * POINTS
    flow = from_score(score, 2, schedule, tolerance=1e-4).double()
    value = flow.log_density(z).value
    torch.testing.assert_close(value, normal_log_prob(z, variance_at(STD, first).sqrt()), rtol=0, atol=5e-3)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a module or a function"):
        from_velocity(3, 2)  # type: ignore[arg-type]
