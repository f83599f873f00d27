"""Multi-scale flows: exactness, precision, starts, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

from density import StandardNormal, Training
from flows import (
    Flow,
    PixelWise,
    QRLinear,
    RationalQuadratic,
    convolutional_network,
    image_flow,
    image_nvp,
    residual_network,
)
from tests.laws.transforms import randomise

Record = Callable[[str, float, float], None]

NARROW = partial(convolutional_network, hidden=(8, 8))
RESIDUAL = partial(residual_network, channels=6, blocks=1)

FLOWS: dict[str, Callable[[], Flow]] = {
    "glow": lambda: image_flow((2, 4, 4), 2, 2, NARROW),
    "glow, splines, QR": lambda: image_flow((3, 2, 4), 1, 2, NARROW, linear=QRLinear, spline=RationalQuadratic(4, 6.0)),
    "glow, odd sides": lambda: image_flow((4, 3, 1), 2, 2, RESIDUAL),
    "real nvp": lambda: image_nvp((1, 4, 6), 2, 2, RESIDUAL),
}


@pytest.mark.parametrize("name", FLOWS)
def test_multi_scale_flows_are_exact(name: str, generator: Generator, record_measurement: Record) -> None:
    """Sixteen digits, through matrices of condition below 10³ and scales within e^±3."""
    transform = randomise(FLOWS[name](), generator, 0.2).transform
    x = torch.randn(2, transform.features, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z, log_det = transform(x)
        back, log_det_back = transform.inverse(z)
    jacobians = [torch.autograd.functional.jacobian(lambda x: transform(x)[0], point) for point in x]
    expected = torch.linalg.slogdet(torch.stack(jacobians)).logabsdet
    record_measurement("multi-scale flow, log-determinant by autograd", (log_det - expected).abs().max(), 1e-10)
    record_measurement("multi-scale flow, round trip", (back - x).abs().max(), 1e-10)
    record_measurement("multi-scale flow, both directions", (log_det + log_det_back).abs().max(), 1e-10)
    # No feature passes, and none is forgotten.
    assert all(bool((jacobian != torch.eye(len(jacobian))).any(1).all()) for jacobian in jacobians)


def test_single_precision_is_enough_for_pixels(generator: Generator, record_measurement: Record) -> None:
    """28×28, three levels of eight steps, on pixels of 256 levels, after a start from data."""
    flow = image_flow((1, 28, 28), 3, 8, partial(convolutional_network, hidden=(16, 16)))
    with torch.no_grad():
        for parameter in flow.transform.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    x = 256 * torch.rand(8, 784, generator=generator)
    flow.initialise(x)
    double = deepcopy(flow).double()
    with torch.no_grad():
        z, log_det = flow.transform(x)
        back, _ = flow.transform.inverse(z)
        exact = double.transform(x.double())[1]
    assert z.isfinite().all()
    record_measurement("28×28 in float32, round trip, levels of 256", (back - x).abs().max(), 1e-3)
    record_measurement("28×28 in float32, log-determinant, nats", (log_det - exact).abs().max(), 1e-2)


def norms(flow: Flow) -> list[Tensor]:
    return [part.transform.parts[0].std for part in flow.transform.parts if isinstance(part, PixelWise)]


def test_fit_starts_from_the_data_and_learns(generator: Generator) -> None:
    """Images of one bright bar: the rows of a bar say the same."""
    bars = torch.randn(120, 1, 4, generator=generator).expand(-1, 4, -1).flatten(1)
    x = 100 + 20 * (bars + 0.3 * torch.randn(120, 16, generator=generator))
    flow = image_flow((1, 4, 4), 2, 2, NARROW)
    flow.initialise(x)
    torch.testing.assert_close(norms(flow)[0], torch.full((4,), 20.9), rtol=0.1, atol=0.0)
    start = flow.log_prob(x).mean()
    flow.fit(x, Training(epochs=6, learning_rate=1e-2), generator=generator)
    assert flow.log_prob(x).mean() > start + 3
    with pytest.raises(ValueError, match="other units"):
        flow.fit(x / 256, Training(epochs=1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: image_flow((1, 7, 7)), "^image_flow: one channel of 7×7 pixels has neither an even side"),
        (lambda: image_flow((1, 8, 8), 7, 1, NARROW), "^image_flow: one channel of 1×1 pixels .* take fewer levels"),
        (lambda: image_flow((1, 8, 8), 0), "^image_flow: levels must be a positive int"),
        (lambda: image_flow((1, 8, 8), steps=0), "^image_flow: steps must be a positive int"),
        (lambda: image_flow((8, 8)), r"^image_flow expects the shape of an image, \(C, H, W\); got \(8, 8\)"),
        (lambda: image_nvp((1, 8, 8), steps=1), "^image_nvp: steps must be an int, 2 or more"),
        (lambda: image_nvp((1, 2, 2), 2), "^image_nvp: 2 channels of 1×1 pixels leave nothing to couple"),
        (lambda: image_flow((1, 4, 4), base=StandardNormal(4)), "StandardNormal has 4 features"),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
