"""Files of the first version of the format: parts with tensors of their own, and names of modules that have moved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from density import GlobalScale, Measure, Rebuildable, StandardNormal, UnusableFile, load, save
from density.saving import files
from density.saving.models import KIND
from flows import Affine, AffineCoupling
from lvm import Components, Diagonal, LinearGaussian, LinearGaussianPosterior
from tests.saving.saved_models import FOLDERS, values


class Mean(Rebuildable, nn.Module):
    """A network of one's own; it also asks one that it does not register."""

    def __init__(self, aside: nn.Linear, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.aside = [aside]


WEIGHT, BIAS, OTHER, SHIFT = torch.randn(2, 2).double().T, torch.randn(2).double(), torch.randn(2), torch.randn(2)
LINEAR: dict[str, Any] = {
    "class": "torch.nn.Linear",
    "variadic": [],
    "named": {"in_features": 2, "out_features": 2},
    "dtype": {"dtype": "float64"},
}
# A tree with all that a file of the first version could hold: shared parts, a tied and frozen weight, mixed types, a
# part that nothing registers, tensors as arguments, and classes by the modules that they were in.
CONTENT: dict[str, Any] = {
    "root": 6,
    "parts": [
        {**LINEAR, "tensors": {"weight": 0, "bias": 1}},
        {**LINEAR, "tensors": {"weight": 0, "bias": 2}},
        {**LINEAR, "tensors": {"weight": 3, "bias": 4}},
        {
            "class": "density.gaussian.StandardNormal",
            "variadic": [],
            "named": {"features": 2},
            "tensors": {},
            "dtype": {"dtype": "float64"},
        },
        {
            "class": "flows.elementwise.Affine",
            "variadic": [],
            "named": {"shift": {"tensor": 5}, "scale": 2.0},
            "tensors": {"shift": 6, "scale": 7},
            "dtype": {"dtype": "float32"},
        },
        {
            "class": "torch.nn.Sequential",
            "variadic": [],
            "named": {"a": {"part": 0}, "b": {"part": 1}, "c": {"part": 0}},
            "tensors": {},
            "dtype": None,
        },
        {
            "class": "Mean",
            "variadic": [{"part": 5}, {"part": 3}, {"part": 4}],
            "named": {"aside": {"part": 2}},
            "tensors": {},
            "dtype": None,
        },
    ],
    "tensors": [
        {"data": WEIGHT, "parameter": True, "trained": False},
        {"data": BIAS, "parameter": True, "trained": True},
        {"data": OTHER, "parameter": True, "trained": True},
        {"data": torch.ones(2, 2), "parameter": True, "trained": True},
        {"data": torch.ones(2), "parameter": True, "trained": True},
        {"data": SHIFT, "parameter": False, "trained": False},
        {"data": SHIFT + 1, "parameter": False, "trained": False},
        {"data": torch.tensor(2.0), "parameter": False, "trained": False},
    ],
    "evaluating": ["networks.0.b", "networks.1"],
}


def written(content: dict[str, Any], path: Path) -> Path:
    torch.save({"format": files.FORMAT, "version": 1, "kind": KIND, "content": content}, path)
    return path


def test_everything_that_the_first_version_could_hold_is_read(tmp_path: Path) -> None:
    model: Any = load(written(CONTENT, tmp_path / "model.pt"), classes=[Mean])
    for _ in range(2):
        network, base, affine = model.networks
        assert network.a is network.c
        assert network.a.weight is network.b.weight
        assert network.a.weight.equal(WEIGHT)
        assert network.a.weight.stride() == (1, 2)
        assert network.a.bias.equal(BIAS)
        assert network.b.bias.equal(OTHER)
        assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"networks.0.a.weight"}
        assert [name for name, m in model.named_modules() if not m.training] == ["networks.0.b", "networks.1"]
        assert isinstance(base, StandardNormal)
        assert base.zero.dtype == torch.float64
        assert isinstance(affine, Affine)
        assert affine.shift.equal(SHIFT + 1)
        assert affine.shift.dtype == torch.float32
        assert model.aside[0].weight.equal(torch.ones(2, 2))
        save(model, tmp_path / "again.pt")
        model = load(tmp_path / "again.pt", classes=[Mean])


def renamed(value: Any) -> Any:  # noqa: ANN401 - plain data
    """The same content, with every class of ours in a module that is no more."""
    if isinstance(value, dict):
        return {
            key: f"{name.partition('.')[0]}.former.place.{name.rpartition('.')[2]}"
            if key in ("class", "type", "enum", "value") and isinstance(name := item, str) and "torch" not in name
            else renamed(item)
            for key, item in value.items()
        }
    return [renamed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", sorted(FOLDERS[1].glob("*.pt")), ids=lambda path: path.stem)
def test_classes_may_have_moved_within_their_room(path: Path, tmp_path: Path) -> None:
    content = renamed(files.read(path, KIND))
    assert any("former" in part["class"] for part in content["parts"])
    assert values(load(written(content, tmp_path / "moved.pt"))).equal(values(load(path)))


def test_classes_that_were_once_written_by_their_modules_are_found(tmp_path: Path) -> None:
    numbers = [torch.randn(3, 2), torch.randn(3), torch.randn(())]
    content = {
        "root": 1,
        "parts": [
            {
                "class": "lvm.linear_gaussian.LinearGaussian",
                "variadic": [],
                "named": {"features": 3, "latent_features": 2, "generator": None},
                "tensors": {"weight": 0, "mean": 1, "log_std": 2},
                "dtype": {"dtype": "float32"},
            },
            {
                "class": "lvm.linear_gaussian.LinearGaussianPosterior",
                "variadic": [],
                "named": {"decoder": {"part": 0}},
                "tensors": {},
                "dtype": None,
            },
        ],
        "tensors": [{"data": data, "parameter": True, "trained": True} for data in numbers],
        "evaluating": [],
    }
    posterior = load(written(content, tmp_path / "model.pt"))
    assert isinstance(posterior, LinearGaussianPosterior)
    assert isinstance(posterior.decoder, LinearGaussian)
    assert posterior.decoder.weight.equal(numbers[0])

    covariance = {"value": "lvm.covariance.Diagonal", "fields": {}}
    named = {"features": 2, "components": 3, "covariance": covariance}
    part = {"class": "lvm.components.Components", "variadic": [], "named": named, "tensors": {"means": 0, "factor": 0}}
    content["tensors"] = [{"data": torch.randn(3, 2), "parameter": True, "trained": True}]
    content |= {"root": 0, "parts": [part | {"dtype": {"dtype": "float32"}}]}
    components = load(written(content, tmp_path / "model.pt"))
    assert isinstance(components, Components)
    assert isinstance(components.covariance, Diagonal)


def test_layers_that_follow_from_their_tensors_are_told(tmp_path: Path) -> None:
    """A coupling reads its mask's buffers when they are loaded; here they are not those that it was built with."""
    content = files.read(FOLDERS[1] / "real_nvp.pt", KIND)
    places = content["parts"][2]["tensors"]
    kept = [content["tensors"][places[name]] for name in ("passed", "moved")]
    assert [data["data"].tolist() for data in kept] == [[0, 2], [1]]
    kept[0]["data"], kept[1]["data"] = torch.tensor([0, 1]), torch.tensor([2])
    model: Any = load(written(content, tmp_path / "model.pt"))
    layer: AffineCoupling = model.transform.parts[1]
    fresh = AffineCoupling([True, True, False], (4,)).double()
    fresh.conditioner.load_state_dict(layer.conditioner.state_dict())
    x = torch.randn(5, 3).double()
    assert layer(x)[0].equal(fresh(x)[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["parts"][0]["tensors"].pop("bias"),
        lambda c: c["parts"][0]["tensors"].update(slope=0),
        lambda c: c["parts"][0]["tensors"].update(weight=1),
        lambda c: c["parts"][5]["tensors"].update({"a.weight": 0}),
        lambda c: c["parts"][2]["tensors"].clear(),
        lambda c: c["parts"][0].pop("tensors"),
        lambda c: c["parts"][4]["named"].update(shift={"tensor": 99}),
        lambda c: c["parts"].reverse(),
        lambda c: c["tensors"].pop(),
        lambda c: c.update(root=7),
        lambda c: c["parts"][3].update({"class": "density.gaussian.Vanished"}),
        lambda c: c["parts"][3].update({"class": "density.checkpoint.Checkpoint"}),
    ],
)
def test_a_file_that_does_not_fit_is_unusable(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    change(content)
    with pytest.raises(UnusableFile, match=r"model\.pt"):
        load(written(content, tmp_path / "model.pt"), classes=[Mean])


def test_enums_and_types_are_read(tmp_path: Path) -> None:
    class Measured(Rebuildable, nn.Module):
        def __init__(
            self, measure: Measure, scale: type[nn.Module], sizes: tuple[int, ...], dtype: torch.dtype
        ) -> None:
            super().__init__()
            self.held = [measure, scale, sizes, dtype]

    named = {
        "measure": {"enum": "density.log_density.Measure", "member": "COUNTING"},
        "scale": {"type": "density.gaussian.GlobalScale"},
        "sizes": {"tuple": [1, {"list": []}]},
        "dtype": {"dtype": "bfloat16"},
    }
    part = {"class": "Measured", "variadic": [], "named": named, "tensors": {}, "dtype": None}
    content = {"root": 0, "parts": [part], "tensors": [], "evaluating": []}
    model: Any = load(written(content, tmp_path / "model.pt"), classes=[Measured])
    assert model.held == [Measure.COUNTING, GlobalScale, (1, []), torch.bfloat16]
