"""Models that are built on the CPU follow their data to the device, and come to the same there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases.fits import FEATURES, FITS, ROWS
from tests.device.comparing import both, seed


@pytest.mark.parametrize("name", FITS)
def test_a_model_follows_its_data(name: str) -> None:
    x = torch.randn(ROWS, FEATURES, generator=seed("cpu"), dtype=torch.float64)

    def call(device: str) -> nn.Module:
        torch.manual_seed(3)
        return FITS[name](x.to(device), seed(device))

    both(call)
