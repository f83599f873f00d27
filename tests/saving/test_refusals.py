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
from flows import AffineCoupling, Chain, Flow, Inverse, Logit, Sigmoid, real_nvp
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


class Remembering(Rebuildable, nn.Module):
    """Has a state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}


def refused(model: nn.Module, error: type[Exception], message: str, folder: Path) -> None:
    with pytest.raises(error, match=message):
        save(model, folder / "model.pt")
    assert not os.listdir(folder)


def test_a_foreign_part_is_refused(tmp_path: Path) -> None:
    density = ConditionalGaussian(Foreign(), 2, 3)
    advice = r"ConditionalGaussian, argument network: a file cannot hold a .*Foreign.*density\.Rebuildable"
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


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    refused(
        nn.Sequential(Remembering()), TypeError, r"Sequential: a file cannot hold the extra state .*calls", tmp_path
    )


def test_a_model_changed_after_it_was_built_is_refused(tmp_path: Path) -> None:
    changes: list[tuple[Callable[[], nn.Module], Callable[[nn.Module], object], str]] = [
        (
            lambda: VAE.gaussian(3, 1),
            lambda m: delattr(m, "encoder"),
            r"Missing key\(s\).* \"encoder\.",
        ),
        (lambda: VAE.gaussian(3, 1), lambda m: setattr(m, "extra", nn.Tanh()), "extra was added"),
        (
            lambda: real_nvp(2, 2, (4,), base=StandardNormal),
            lambda m: setattr(m, "base", Gaussian(2)),
            r"Unexpected key\(s\).* \"base\.mean\", \"base\.factor\"",
        ),
        (
            lambda: AffineCoupling([True, False]),
            lambda m: setattr(m, "log_scale_bound", 2.0),
            "log_scale_bound .* 2.0, not 5.0",
        ),
        (lambda: PPCA(3, 1), lambda m: m.decoder.register_buffer("note", torch.ones(2)), "note"),  # type: ignore[union-attr]
        (
            lambda: real_nvp(2, 2, (4,), base=StandardNormal),
            lambda m: m.base.zero.add_(1),  # type: ignore[union-attr]
            r"base\.zero is \[2\] torch\.float32",
        ),
        (
            lambda: Flow(StandardNormal(2), Chain(Sigmoid(), first := Logit(), Inverse(first))),
            lambda m: setattr(m.transform.parts[2], "transform", Logit()),  # type: ignore[union-attr]
            r"first name of transform\.parts\.2\.transform is transform\.parts\.2\.transform, not transform\.parts\.1",
        ),
        (
            lambda: AffineCoupling([True, False], activation=nn.ReLU),
            lambda m: setattr(m.conditioner, "1", nn.Tanh()),
            r"conditioner\.1 is a .*Tanh, not a .*ReLU",
        ),
    ]
    for register in ("forward", "forward_pre", "full_backward", "full_backward_pre", "load_state_dict_post"):
        hook = f"register_{register}_hook"
        changes.append((lambda: PPCA(3, 1), lambda m, hook=hook: getattr(m.decoder, hook)(print), "hooks of decoder"))  # type: ignore[misc]
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
