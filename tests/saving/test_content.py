"""What a file holds: constructor calls, the model's state_dict(), and what neither says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lvm
from bridge import FlowVAE, TightLayeredModel, layered
from bridge.flow_vae import DeltaLink
from bridge.survae.chain import LinkChain
from bridge.survae.ranges import InverseSoftplus
from bridge.survae.surjections import Abs
from density import ConditionalGaussian, FixedScale, Gaussian, Rebuildable, StandardNormal, load, save
from density.saving.classes import class_named, name_of
from density.saving.files import UnusableFile, read
from density.saving.models import KIND
from flows import Affine, AffineCoupling, Chain, Flow, LULinear, Transform, maf, real_nvp
from lvm import PPCA, VAE, Components, Full


def saved(model: nn.Module, folder: Path, *classes: type[nn.Module]) -> Any:  # noqa: ANN401 - of the model's class
    save(model, folder / "model.pt")
    return load(folder / "model.pt", classes=classes)


def content(folder: Path) -> dict[str, Any]:
    return read(folder / "model.pt", KIND)


def test_a_file_holds_calls_and_the_state_dict(tmp_path: Path) -> None:
    model = Flow(StandardNormal(2), Chain(LULinear(2), AffineCoupling([True, False], (3,), activation=nn.SiLU)))
    saved(model, tmp_path)
    held = content(tmp_path)
    assert [(part["class"], part["path"]) for part in held["parts"]] == [
        ("density.StandardNormal", "base"),
        ("flows.LULinear", "transform.parts.0"),
        ("flows.AffineCoupling", "transform.parts.1"),
        ("flows.Chain", "transform"),
        ("flows.Flow", ""),
    ]
    assert held["parts"][4]["named"] == {"base": {"part": 0}, "transform": {"part": 3}}
    assert held["parts"][3]["variadic"] == [{"part": 1}, {"part": 2}]
    assert held["parts"][2]["named"]["activation"] == {"type": "torch.nn.SiLU"}
    assert held["state"].keys() == model.state_dict().keys()
    model.load_state_dict(held["state"])  # as torch's own reader takes it
    assert held["tied"] == {}
    assert held["frozen"] == []
    assert held["evaluating"] == []
    assert held["dtypes"]["base"] == {"dtype": "float32"}


def test_the_state_is_copied_and_keeps_its_strides(tmp_path: Path) -> None:
    model = LULinear(3)
    model.factors = nn.Parameter(torch.randn(3, 3).T)
    again = saved(model, tmp_path)
    assert again.factors.stride() == (1, 3)
    assert again.factors.equal(model.factors)
    file = (tmp_path / "model.pt").read_bytes()
    with torch.no_grad():
        model.factors.add_(1.0)
    assert (tmp_path / "model.pt").read_bytes() == file


class TwoHeads(Rebuildable, nn.Module):
    """Ties its weights when it is built; a second mask is the first one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.register_buffer("mask", torch.ones(width))
        self.register_buffer("other", self.mask)


def test_tied_parameters_stay_tied(tmp_path: Path) -> None:
    built_so, tied_later = TwoHeads(20), nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20))
    tied_later[2].weight = tied_later[0].weight
    for model, names in ((built_so, ("first", "second")), (tied_later, ("0", "2"))):
        again = saved(model, tmp_path, TwoHeads)
        weights = [again.get_parameter(f"{name}.weight") for name in names]
        assert weights[0] is weights[1]
        assert content(tmp_path)["tied"][f"{names[1]}.weight"] == f"{names[0]}.weight"
        with torch.no_grad():
            weights[0].zero_()
        assert not again.get_submodule(names[1]).weight.any()
        state = content(tmp_path)["state"]
        assert state[f"{names[0]}.weight"] is state[f"{names[1]}.weight"], "a file holds it once"
    again = saved(built_so, tmp_path, TwoHeads)
    assert again.mask is again.other


def test_a_tie_that_was_cut_stays_cut(tmp_path: Path) -> None:
    model = TwoHeads(2)
    model.second.weight = nn.Parameter(model.first.weight + 1)
    again = saved(model, tmp_path, TwoHeads)
    assert again.second.weight.equal(again.first.weight + 1)
    assert content(tmp_path)["tied"] == {"other": "mask"}


def test_frozen_parameters_and_training_modes_are_kept(tmp_path: Path) -> None:
    model = VAE.gaussian(3, 1, hidden=(4,))
    model.decoder.requires_grad_(False)
    model.encoder.eval()
    again = saved(model, tmp_path)
    assert {name for name, p in again.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("decoder.")
    }
    assert [m.training for m in again.modules()] == [m.training for m in model.modules()]
    assert again.training
    assert not again.encoder.training
    model.eval()
    assert not any(m.training for m in saved(model, tmp_path).modules())


class Freezing(Rebuildable, nn.Module):
    """Freezes what it is given, and evaluates."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()


def test_what_a_constructor_freezes_may_be_thawed(tmp_path: Path) -> None:
    model = Freezing(nn.Linear(2, 2))
    assert not saved(model, tmp_path, Freezing).network.weight.requires_grad
    model.requires_grad_(True).train()
    again = saved(model, tmp_path, Freezing)
    assert again.network.weight.requires_grad
    assert again.network.training


def test_buffers_out_of_the_state_have_the_dtype_that_they_had(tmp_path: Path) -> None:
    model = nn.Sequential(StandardNormal(2).double(), StandardNormal(2), StandardNormal(2).bfloat16(), nn.Linear(2, 2))
    again = saved(model, tmp_path)
    assert [again[i].zero.dtype for i in range(3)] == [torch.float64, torch.float32, torch.bfloat16]
    assert "zero" not in again[0].state_dict()
    assert again.double()[1].zero.dtype == torch.float64, "it is a buffer still"


class Distilled(Rebuildable, nn.Module):
    """Asks a teacher that it does not register; its width is read off the teacher's weights."""

    def __init__(self, student: nn.Module, teacher: nn.Linear) -> None:
        super().__init__()
        self.student = student
        self.teachers = [teacher]
        self.largest = teacher.weight.abs().max().item()


def test_parts_that_a_model_does_not_register_are_kept(tmp_path: Path) -> None:
    teacher = nn.Linear(2, 2).double()
    again = saved(Distilled(nn.Linear(2, 2), teacher), tmp_path, Distilled)
    assert again.teachers[0].weight.equal(teacher.weight)
    assert again.teachers[0].weight.dtype == torch.float64
    assert list(again.state_dict()) == list(content(tmp_path)["state"]) == ["student.weight", "student.bias"]


def test_a_part_that_is_kept_beside_the_model_shares_its_tensors(tmp_path: Path) -> None:
    model = FlowVAE(maf(2, 2, (4,)))
    again = saved(model, tmp_path)
    held = content(tmp_path)
    (apart,) = [part for part in held["parts"] if "path" not in part]
    assert apart["class"] == "flows.Flow"
    assert held["state"].keys() == model.state_dict().keys() == again.state_dict().keys()
    assert {id(t) for t in apart["state"].values()} <= {id(t) for t in held["state"].values()}


class Widened(Rebuildable, nn.Module):
    """Writes into the network that it is given, and says what it was given."""

    def __init__(self, network: nn.Linear) -> None:
        super().__init__()
        nn.init.zeros_(network.weight)
        self.network = network


def test_the_state_has_the_last_word_over_constructors(tmp_path: Path) -> None:
    model = Widened(nn.Linear(2, 2))
    nn.init.ones_(model.network.weight)
    assert saved(model, tmp_path, Widened).network.weight.eq(1).all()
    assert content(tmp_path)["state"]["network.weight"].eq(1).all()


def test_constructors_see_parts_as_they_are(tmp_path: Path) -> None:
    """This one runs the prior and the link together, in float64 both."""
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    link = LinkChain(Abs(2), DeltaLink(Chain(InverseSoftplus(), Affine(zero, one))))
    model = layered(real_nvp(2, 2, (4,)).double(), link)
    assert isinstance(saved(model, tmp_path), TightLayeredModel)


class Scaled(Rebuildable, nn.Module):
    def __init__(self, scale: Tensor, weight: nn.Parameter) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.weight = weight


def test_tensors_are_arguments(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.randn(3))
    model = nn.Sequential(Scaled(torch.arange(3.0, dtype=torch.float64), weight), Scaled(torch.zeros(3), weight))
    again = saved(model, tmp_path, Scaled)
    assert again[0].scale.dtype == torch.float64
    assert again[0].scale.equal(model[0].scale)
    assert isinstance(again[0].weight, nn.Parameter)
    assert again[0].weight is again[1].weight
    assert again[0].weight.equal(weight)


def test_a_layer_that_reads_its_mask_reads_the_one_of_the_file(tmp_path: Path) -> None:
    layer, flipped = AffineCoupling([True, False, True], (4,)), AffineCoupling([True, True, False], (4,))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    flipped.load_state_dict(layer.state_dict())
    x = torch.randn(5, 3)
    again = saved(flipped, tmp_path)
    assert isinstance(again, Transform)
    assert again(x)[0].equal(layer(x)[0])


def test_a_module_that_occurs_twice_is_one_part(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    again = saved(nn.Sequential(layer, nn.Tanh(), nn.Sequential(layer, layer)), tmp_path)
    assert again[0] is again[2][0] is again[2][1]
    assert len(content(tmp_path)["parts"]) == 4


def test_classes_are_known_by_room_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(Components) == "lvm.Components"
    for name in ("lvm.Components", "lvm.components.Components", "lvm.mixture.components.Components"):
        assert class_named(name, {}) is Components
    assert class_named("lvm.nowhere.Full", {}) is Full
    assert class_named("Scaled", {"Scaled": Scaled}) is Scaled
    monkeypatch.setattr(lvm, "Path", Path, raising=False)  # what a room only happens to hold is none of its classes
    for name in (
        "density.PPCA",
        "flows.nowhere.Full",
        "lvm.Path",
        "Scaled",
        "torch.nn.Module",
        "torch.nn.modules.Linear",
    ):
        with pytest.raises(UnusableFile, match="none of this program's"):
            class_named(name, {})


def test_a_class_that_no_room_exports_is_refused(tmp_path: Path) -> None:
    given = ConditionalGaussian(nn.Linear(2, 1), 1, 2, FixedScale()).given(torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"GivenGaussian"):
        save(given, tmp_path / "model.pt")


@pytest.mark.parametrize("model", [Gaussian(2), PPCA(3, 1)])
def test_saving_changes_nothing(model: nn.Module, tmp_path: Path) -> None:
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    saved(model.eval(), tmp_path)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert tensor.equal(before[name][1])
    assert not model.training
