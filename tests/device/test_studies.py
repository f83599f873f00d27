"""What a study's preset for a GPU computes there is what it computes on the CPU, at tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies.images.grey_images import grey_images
from studies.images.measure import measure
from studies.images.settings import Key, ModelName, Settings
from studies.kit.study import Task
from tests.device.pretended import pretended

TINY = Settings(
    preset="gpu", sets=("digits",), train_rows=200, test_rows=20, small_steps=3, batch_size=32, flow_levels=2,
    flow_steps=1, flow_channels=(4,), vector_layers=2, wide=4, latents=3, channels=(4,), mixtures=2, components=2,
    draws=4, simulated=4, dtype="float64",
)  # fmt: skip


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in Settings().models if name not in ("gaussian", "glow")]


@pytest.mark.parametrize("model", ["gaussian", "glow", *OTHERS])
def test_images(model: ModelName, tmp_path: Path) -> None:
    settings = TINY.quickened()
    assert settings.device == "cuda"
    data = grey_images("digits", 0, None, train=settings.train_rows, test=settings.test_rows)
    key = Key("digits", data.hash, 0, model)
    rows, values = {}, {}
    for device in ("cpu", "cuda"):
        with pretended():
            rows[device] = measure(
                replace(settings, device=device), Task(key, data, makes=(tmp_path / f"{device}.npz",))
            )
        values[device] = np.load(tmp_path / f"{device}.npz")
    for name in values["cpu"]:
        np.testing.assert_allclose(values["cuda"][name], values["cpu"][name], rtol=1e-6, atol=1e-6)
    assert rows["cuda"]["bits"] == pytest.approx(rows["cpu"]["bits"], rel=1e-9)
