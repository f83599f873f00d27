"""A VAE of real data with holes: its bound against quadrature, and against filling the holes with means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import Kind, Training
from lvm import VAE
from lvm.evidence import annealed, evidence
from tests.lvm.missing.incomplete import holes
from tests.places import SHARED_DATA

OIL_FLOW = SHARED_DATA / "oil_flow.npz"
Record = Callable[[str, float, float], None]


def fitted(x: Tensor, incomplete: bool) -> VAE:
    torch.manual_seed(0)
    model = VAE.gaussian(x.shape[1], 2, hidden=(64,), mask=incomplete)
    fit = model.observed.fit if incomplete else model.fit
    fit(x, Training(epochs=200, batch_size=100, learning_rate=3e-3), generator=Generator().manual_seed(0))
    return model


@pytest.mark.slow
@pytest.mark.skipif(not Path(OIL_FLOW).exists(), reason=f"needs the oil flow data at {OIL_FLOW}")
@pytest.mark.filterwarnings("ignore::density.TiedColumns")
def test_thirty_percent_missing(record_measurement: Record) -> None:
    """On held-out rows the bound is below the truth, and both are far above those of a model of filled holes."""
    generator = Generator().manual_seed(1)
    with np.load(OIL_FLOW) as arrays:
        train, test = (holes(torch.as_tensor(arrays[part]), 0.3, generator) for part in ("train", "test"))
    test = test[:200]
    means = torch.stack([column[~column.isnan()].mean() for column in train.T])
    model, of_filled = fitted(train, True), fitted(torch.where(train.isnan(), means, train), False)
    truth = evidence(model.observed, test, generator=generator)
    bound = annealed(model.observed, test, steps=100, generator=generator)
    filled = evidence(of_filled.observed, test, generator=generator)
    assert truth.kind is filled.kind is Kind.EXACT
    assert bound.kind is Kind.LOWER
    below, better = bound - truth, bound - filled
    record_measurement("VAE of holes, oil flow: bound above the truth, errors", below.mean / below.standard_error, 3)
    record_measurement("the same above mean imputation: 4 errors", 4 * better.standard_error / better.mean, 1)
