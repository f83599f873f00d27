"""What the variational autoencoder makes of hostile and of unusable data."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from density import NonFiniteObjective, TiedColumns, Training
from lvm import VAE

SHORT = Training(epochs=5, batch_size=32, learning_rate=1e-2)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def curve(generator: Generator, n: int) -> Tensor:
    """Points near a parabola in 3-D."""
    t = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return torch.cat([t, t**2, -t], 1) + 0.1 * noise


HOSTILE: dict[str, Callable[[Tensor], Tensor]] = {
    "offset 1e8": lambda x: x + 1e8,
    "offset −1e8": lambda x: x - 1e8,
    "scale 1e-8": lambda x: x * 1e-8,
    "scale 1e8": lambda x: x * 1e8,
    "mixed scales": lambda x: x * torch.tensor([1e-8, 1.0, 1e8]).to(x),
    "a constant column": lambda x: torch.cat([x[:, :2], torch.full_like(x[:, :1], 1 / 3)], 1),
    "all rows equal": lambda x: x[:1].expand(len(x), 3).clone(),
    "one row": lambda x: x[:1],
    "two rows": lambda x: x[:2],
    "an outlier": lambda x: torch.cat([x[1:], torch.full_like(x[:1], 1e6)]),
}


TIED = ("a constant column", "all rows equal")  # and in float32 an offset of 1e8, whose steps are 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_data_has_a_finite_bound(name: str, dtype: torch.dtype, generator: Generator) -> None:
    x = HOSTILE[name](curve(generator, 60)).to(dtype)
    model = VAE.gaussian(3, 1, hidden=(8,))
    ties = name in TIED or ("offset" in name and dtype is torch.float32)
    with pytest.warns(TiedColumns) if ties else nullcontext():
        history = model.fit(x, SHORT, generator=seeded())
    assert all(map(math.isfinite, history.objective))
    claim = model.log_density(x, draws=20, generator=seeded())
    assert claim.value.isfinite().all()
    draws = model.sample(20, generator=seeded())
    assert draws.isfinite().all()
    # Samples are where the data is, within its spread or, where there is none, the unit that takes its place.
    spread = (
        (x.double() - x.double().mean(0))
        .abs()
        .max(0)
        .values.clamp_min(1 if name in ("one row", "all rows equal") else 0)
    )
    assert ((draws.double().median(0).values - x.double().mean(0)).abs() <= 20 * spread.clamp_min(1e-9) + 50).all()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.int64), TypeError, r"VAE expects x to be floating point; got torch\.int64"),
        (torch.zeros(5, 3).numpy(), TypeError, r"torch\.Tensor; got ndarray"),
        (torch.zeros(0, 3), ValueError, "at least one row"),
        (torch.zeros(5, 4), ValueError, r"VAE expects x of shape \[\*batch, 3\]; got \[5, 4\]"),
        (torch.zeros(3), ValueError, r"data of shape \[n, 3\]; got \[3\]"),
        (torch.tensor([[0.0, 1.0, math.nan]]), ValueError, "row 0, column 2 is nan"),
        (torch.tensor([[0.0, math.inf, 0.0]]), ValueError, "row 0, column 1 is inf"),
    ],
)
@pytest.mark.parametrize("make", [VAE.gaussian, VAE.bernoulli])
def test_unusable_data_is_one_clear_error(
    make: Callable[[int, int], VAE], data: Tensor, error: type[Exception], message: str
) -> None:
    model = make(3, 1)
    before = deepcopy(model.state_dict())
    for use in (model.fit, model.log_density):
        with pytest.raises(error, match=message):
            use(data)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items()), "a refused fit left traces"


def test_a_refused_fit_leaves_the_dtype() -> None:
    model = VAE.bernoulli(3, 1)
    with pytest.raises(ValueError, match="Binarise the data"):
        model.fit(torch.full((5, 3), 0.5, dtype=torch.float64))
    assert model.prior.reference.dtype == torch.float32


def test_an_overflow_keeps_finite_weights(generator: Generator) -> None:
    model = VAE.gaussian(3, 1, hidden=(8,))
    with pytest.raises(NonFiniteObjective, match="Lower the learning rate"):
        model.fit(curve(generator, 60), Training(epochs=5, learning_rate=1e300, clip=None), generator=seeded())
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.log_density(curve(generator, 5), draws=5).value.isfinite().all()


def test_settings_of_another_kind_are_named() -> None:
    with pytest.raises(TypeError, match=r"fit expects density.Training\(...\) as training; got \{'epochs'"):
        VAE.gaussian(3, 1).fit(torch.zeros(5, 3), {"epochs": 3})  # type: ignore[arg-type]
