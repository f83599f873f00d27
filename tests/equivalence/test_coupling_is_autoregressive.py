"""A coupling layer is a Gaussian autoregressive layer whose first features have nothing to look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from bridge import as_autoregressive
from flows import AffineCoupling
from tests.equivalence.examples import randomise


@pytest.mark.parametrize("context_features", [0, 3])
@pytest.mark.parametrize("mask", [[1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1], [0, 1], [1, 0, 0, 1, 1, 1, 0, 0]])
def test_equal_density_from_equal_weights(
    mask: list[int],
    context_features: int,
    generator: Generator,
    record_measurement: Callable[[str, float, float], None],
) -> None:
    hidden = (7, 9)
    coupling = AffineCoupling([bool(m) for m in mask], hidden, context_features).double()
    randomise(coupling, generator, 1.0)
    layer = as_autoregressive(coupling)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = draw(64, len(mask))
    context = draw(64, context_features) if context_features else None
    for direction in ("forward", "inverse"):
        z, log_det = getattr(coupling, direction)(x, context)
        other, other_log_det = getattr(layer, direction)(x, context)
        assert (z - x).abs().max() > 0.1
        error = max(float((z - other).detach().abs().max()), float((log_det - other_log_det).detach().abs().max()))
        # The same products in another order of summation, on numbers up to 100.
        record_measurement(
            "4  coupling = autoregressive, same weights", error / max(1, float(z.detach().abs().max())), 1e-13
        )
