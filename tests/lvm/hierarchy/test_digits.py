"""The evidence of three levels, trained on digits, is known on the model's own data."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator

from density import DiscretisedLogistic, Training
from lvm import VAE, HierarchicalVAE
from lvm.evidence import sandwich
from lvm.vae.gradients import AnalyticKL
from lvm.vae.kl_weights import WarmUp


@pytest.mark.slow
def test_annealing_closes_from_both_sides(generator: Generator) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(load_digits().data).float()
    model = HierarchicalVAE.above(VAE.image((1, 8, 8), 8, DiscretisedLogistic(levels=17)), (4, 2))
    model.fit(x, Training(epochs=15), estimator=AnalyticKL(kl_weight=WarmUp(steps=100)), generator=generator)
    result = sandwich(model, 20, generator=generator)
    print(result)
    assert result.mean_width < 0.2
