"""What cannot be saved says so, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import Featured
from density import ConditionalGaussian, Gaussian, Rebuildable, StandardNormal, UnusableFile, load, save
from flows import AffineCoupling, Flow, real_nvp
from lvm import PPCA, VAE
from tests.cases.transforms import TRANSFORMS


class Foreign(nn.Module):
    """A network of one's own that does not say what it was built with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Narrowing(Rebuildable, nn.Linear):
    """A network of one's own that says what it was built with."""


def refused(model: nn.Module, error: type[Exception], message: str, folder: Path) -> None:
    with pytest.raises(error, match=message):
        save(model, folder / "model.pt")
    assert not os.listdir(folder)


def test_a_foreign_part_is_refused(tmp_path: Path) -> None:
    density = ConditionalGaussian(Foreign(), 2, 3)
    advice = r"ConditionalGaussian, argument network: a file cannot rebuild a .*Foreign.*density\.Rebuildable"
    refused(density, TypeError, advice, tmp_path)
    refused(Featured(nn.Sequential(nn.Tanh(), Foreign()), density, 3), TypeError, "Sequential, argument 1", tmp_path)
    refused(
        Flow(StandardNormal(3), TRANSFORMS["nflows autoregressive spline"].make(Generator())),
        TypeError,
        "nflows",
        tmp_path,
    )
    refused(
        AffineCoupling([True, False], activation=lambda: nn.Tanh()), TypeError, r"activation.*pass its class", tmp_path
    )


def test_a_model_changed_after_it_was_built_is_refused(tmp_path: Path) -> None:
    changes: list[tuple[Callable[[], nn.Module], Callable[[nn.Module], object], str]] = [
        (lambda: VAE.gaussian(3, 1), lambda m: delattr(m, "encoder"), "encoder was removed"),
        (lambda: VAE.gaussian(3, 1), lambda m: setattr(m, "extra", nn.Tanh()), "extra was added"),
        (
            lambda: real_nvp(2, 2, (4,)),
            lambda m: setattr(m, "base", Gaussian(2)),
            r"tensor base\.factor as \[2, 2\], but is built with None",
        ),
        (
            lambda: AffineCoupling([True, False]),
            lambda m: setattr(m, "log_scale_bound", 2.0),
            "log_scale_bound .* 2.0, not 5.0",
        ),
        (lambda: nn.Sequential(nn.Dropout(0.1)), lambda m: m[0].register_forward_hook(print), "hooks"),  # type: ignore[index]
        (lambda: PPCA(3, 1), lambda m: m.decoder.register_buffer("note", torch.ones(2)), "note"),  # type: ignore[union-attr]
    ]
    for make, change, message in changes:
        model = make()
        change(model)
        refused(
            model,
            ValueError,
            f"was changed after it was built: .*{message}",
            tmp_path,
        )


def test_own_classes_must_be_given_to_load(tmp_path: Path) -> None:
    save(ConditionalGaussian(Narrowing(3, 4), 2, 3), tmp_path / "model.pt")
    with pytest.raises(UnusableFile, match=r"it holds a Narrowing, .*load\(classes="):
        load(tmp_path / "model.pt")
