"""A coupling layer is a Gaussian autoregressive layer whose first features have nothing to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Generator, Tensor

from flows import AffineCoupling, GaussianAutoregressive
from flows.autoregressive import MaskedLinear, MaskedMLP
from tests.equivalence.examples import randomise


def as_autoregressive(coupling: AffineCoupling, hidden: Sequence[int]) -> GaussianAutoregressive:
    """The same numbers in a masked network: hidden units see features that pass, moved features see hidden units."""
    passed, moved, d = coupling.passed, coupling.moved, coupling.features
    order = torch.cat([passed, moved])
    degrees = [torch.full((width,), len(passed)) for width in hidden]
    net = MaskedMLP(order, hidden=hidden, context_features=coupling.context_features, hidden_degrees=degrees).double()
    masked = [layer for layer in net.layers if isinstance(layer, MaskedLinear)]
    dense = [layer for layer in coupling.conditioner if isinstance(layer, torch.nn.Linear)]
    inputs = torch.cat([passed, torch.arange(d, d + coupling.context_features)])
    outputs = torch.cat([moved, d + moved])
    with torch.no_grad():
        for to, of in zip(masked, dense, strict=True):
            rows = outputs if to is masked[-1] else torch.arange(of.out_features)
            columns = inputs if to is masked[0] else torch.arange(of.in_features)
            to.weight[rows[:, None], columns] = of.weight
            to.bias[rows] = of.bias
    return GaussianAutoregressive(
        d,
        order=order,
        context_features=coupling.context_features,
        conditioner=net,
        log_scale_bound=coupling.log_scale_bound,
    )


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
    layer = as_autoregressive(coupling, hidden)

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
