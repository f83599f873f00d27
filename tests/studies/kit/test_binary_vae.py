"""VAEs of binary images: where their pixels start, and fits that are kept whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from density import Training
from density.families.bernoulli import ConditionalBernoulli
from density.saving import files
from lvm.vae.gradients import AnalyticKL
from studies.data.binary_images import binary_images
from studies.kit.binary_vae import FEWEST, KIND, restored, saved_fit, start_at_log_odds, tanh_vae
from studies.kit.settings import CommonSettings

SETTINGS = CommonSettings(dtype="float64", threads=torch.get_num_threads())


def test_pixels_start_at_their_log_odds() -> None:
    images = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 0]], np.uint8)
    model = tanh_vae(3, 4, (8,), (8,)).double()
    start_at_log_odds(model, images)
    assert isinstance(model.decoder, ConditionalBernoulli)
    *_, last = (m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    torch.nn.init.zeros_(last.weight)
    expected = torch.tensor([[FEWEST, 1 - FEWEST, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(model.decode(torch.ones(1, 4, dtype=torch.float64)), expected, rtol=1e-6, atol=1e-9)


def test_a_fit_is_kept_whole_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    data, path = binary_images(SETTINGS, 0), tmp_path / "model.weights"
    model = tanh_vae(64, 4, (8,), (8,))
    generator = torch.Generator().manual_seed(0)
    row = saved_fit(model, data.train[:200], SETTINGS, Training(epochs=1), AnalyticKL(), generator, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert row["train_rows"] == 200
    back = restored(tanh_vae(64, 4, (8,), (8,)), path, SETTINGS)
    for name, tensor in files.read(path, KIND).items():
        assert torch.equal(back.state_dict()[name], tensor)
        assert torch.equal(model.state_dict()[name], tensor)
