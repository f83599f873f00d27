"""bfloat16 in the networks of a fit, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Model, Training
from density.families.nets import mlp
from density.fitting.autocast import lowered
from flows import glow, maf, real_nvp
from lvm import VAE

TRAINING = Training(epochs=25, batch_size=50, learning_rate=1e-2, validation=0.2, progress=False)
MODELS: dict[str, Callable[[], Model]] = {
    "real_nvp": lambda: real_nvp(3, 2, (16,)),
    "glow": lambda: glow(3, 2, (16,)),
    "maf": lambda: maf(3, 2, (16,)),
    "vae": lambda: VAE.gaussian(3, 2, hidden=(16,)),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    x = torch.randn(400, 3, generator=generator).cumsum(1)
    x[:, 2] += x[:, 0].square()
    return x


def fitted(name: str, x: Tensor, autocast: torch.dtype | None) -> tuple[Model, list[float]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    training = Training(**{**vars(TRAINING), "autocast": autocast})
    history = model.fit(x, training, generator=Generator().manual_seed(1))  # type: ignore[call-arg]
    return model, history.validation


@pytest.mark.parametrize("name", MODELS)
def test_it_trains(name: str, x: Tensor) -> None:
    """As well as float32 does: a relative 2⁻⁸ in a network's outputs is small beside the noise of minibatches."""
    low, values = fitted(name, x, torch.bfloat16)
    _, full = fitted(name, x, None)
    assert values != full
    assert max(values) > values[0] + 0.1
    assert abs(max(values) - max(full)) < 0.1
    assert all(tensor.dtype == torch.float32 for tensor in low.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in low.modules())


@pytest.mark.parametrize("name", ["real_nvp", "glow", "maf"])
def test_a_flow_stays_the_change_of_variables_that_it_computes(name: str, x: Tensor) -> None:
    """log|det| is that of the map as computed: the inverse comes back to float32's rounding, not to bfloat16's."""
    flow, _ = fitted(name, x, None)
    with torch.no_grad(), lowered(flow, torch.bfloat16):
        z, forward = flow.transform.forward(x)  # type: ignore[union-attr, operator]
        back, backward = flow.transform.inverse(z)  # type: ignore[union-attr, operator]
    full = flow.transform.forward(x)[0]  # type: ignore[union-attr, operator]
    assert (z - full).abs().max() > 1e-3, "nothing was rounded"
    assert z.dtype == forward.dtype == torch.float32
    # An autoregressive inverse feeds the networks values that float32 has rounded: a bfloat16 may round the other way.
    tolerance = 0.1 if name == "maf" else 1e-4
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(backward, -forward, rtol=tolerance, atol=tolerance)


def test_hooks_go_even_when_a_network_fails() -> None:
    net = nn.ModuleList([mlp(2, 2)])
    with pytest.raises(RuntimeError, match="shapes"), lowered(net, torch.bfloat16):
        net[0](torch.zeros(1, 3))
    assert not torch.is_autocast_enabled("cpu")
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks


def test_nothing_changes_without_a_dtype() -> None:
    net = mlp(2, 2)
    with lowered(net, None):
        assert not net._forward_hooks


def test_what_autocast_takes(x: Tensor) -> None:
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match=r"autocast takes torch.bfloat16 or None; got torch.float"):
            Training(autocast=dtype)
    with pytest.raises(ValueError, match=r"the data is torch.float64. Convert with x.float\(\)"):
        real_nvp(3, 2).fit(x.double(), Training(autocast=torch.bfloat16))
