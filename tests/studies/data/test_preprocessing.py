"""Preprocessing is a chain of a flow's layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flows import Affine, Chain, Logit
from flows.transform import Transform
from studies.data.preprocessing import ALPHA, Preprocessing


def as_layers(preprocessing: Preprocessing) -> Transform:
    """The same map, from data to the coordinates that models are fitted in, made of layers."""
    layers: list[Transform] = []
    if preprocessing.levels is not None:
        width = torch.tensor(preprocessing.levels / (1 - 2 * ALPHA), dtype=torch.float64)
        layers += [Affine(-ALPHA * width, width), Logit()]
    if preprocessing.shift is not None and preprocessing.scale is not None:
        layers.append(Affine(torch.as_tensor(preprocessing.shift), torch.as_tensor(preprocessing.scale)))
    return Chain(*layers)


@pytest.mark.parametrize("rows", [50, 5000])  # below and beyond what is done at once
def test_preprocessing_is_the_transform_that_it_says(rows: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (rows, 3)) + generator.random((rows, 3))
    for preprocessing in (
        Preprocessing.standardise(x),
        Preprocessing(levels=256),
        Preprocessing(np.full(3, 0.3), np.array([1.0, 2.0, 3.0]), 256),
    ):
        y, log_det = preprocessing(x)
        transform = as_layers(preprocessing)
        z, log_abs_det = transform(torch.as_tensor(x))
        # Each is a handful of float64 operations on numbers below 1e3; near the edges of [0, 1] the logit multiplies
        # rounding by 1/alpha = 1e6.
        assert y == pytest.approx(z.numpy(), abs=1e-8)
        assert log_det == pytest.approx(log_abs_det.numpy(), abs=1e-8)
        assert transform.inverse(z)[0].numpy() == pytest.approx(x, abs=1e-6)
