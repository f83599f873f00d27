"""Damaged, foreign and forged files of models: one clear error, and nothing is executed."""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from density import Density, Gaussian, UnusableFile, load, save
from density.saving import files
from density.saving.files import FORMAT, VERSION, read, write
from density.saving.models import KIND
from lvm import PPCA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(PPCA(3, 1), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def unusable(path: Path, message: str | None = None) -> None:
    with pytest.raises(UnusableFile, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_cut_anywhere_is_unusable(path: Path) -> None:
    whole = path.read_bytes()
    lengths = {*range(0, 200), *range(200, len(whole), 7), *range(len(whole) - 100, len(whole))}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        unusable(path)


def test_a_file_with_a_flipped_bit_is_unusable_or_the_same(path: Path) -> None:
    """Zip archives have bytes that mean nothing, as times and padding: those may change, the model may not."""
    whole, model = path.read_bytes(), load(path)
    refused, tried = 0, 0
    # Every seventh byte, and in the directory at the end the bits that mark a part as a folder.
    flips = [(position, position % 8) for position in range(0, len(whole), 7)]
    entries = [position for position in range(len(whole)) if whole.startswith(b"PK\x01\x02", position)]
    assert len(entries) > 5
    flips += [(position + 38, 4) for position in entries]
    for position, bit in flips:
        altered = bytearray(whole)
        altered[position] ^= 1 << bit
        tried += 1
        path.write_bytes(altered)
        try:
            again = load(path)
        except UnusableFile:
            refused += 1
            continue
        for mine, other in zip(model.parameters(), again.parameters(), strict=True):
            assert mine.equal(other)
    assert refused > 0.4 * tried


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


def test_foreign_files_are_unusable_and_not_executed(path: Path, tmp_path: Path) -> None:
    path.write_text("mean,std\n0,1\n")
    unusable(path)
    path.write_bytes(b"")
    unusable(path)
    target = tmp_path / "executed"
    path.write_bytes(pickle.dumps(Malicious(target)))
    unusable(path)
    torch.save({"format": FORMAT, "version": VERSION, "kind": KIND, "content": Malicious(target)}, path)
    unusable(path)
    assert not target.exists()
    torch.save(nn.Linear(2, 2).state_dict(), path)
    unusable(path, f"was not written by {FORMAT}")
    torch.save([1, 2], path)
    unusable(path, f"was not written by {FORMAT}")
    torch.save(PPCA(3, 1), path)  # a whole pickled module
    unusable(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    unusable(path)


def test_files_of_later_versions_and_other_kinds_are_unusable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read(path, KIND)
    write(path, "checkpoint", content)
    unusable(path, "holds a checkpoint, not a model")
    torch.save({"format": FORMAT, "version": VERSION + 1, "kind": KIND, "content": content}, path)
    unusable(path, rf"version {VERSION + 1} of the format; .* reads up to {VERSION}\. Update")
    write(path, KIND, content)
    monkeypatch.setattr(files, "VERSION", 1)
    unusable(path, r"version 2 of the format; .* reads up to 1\. Update")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt")


def forged(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = copy.deepcopy(read(path, KIND))
    change(content)
    write(path, KIND, content)


@pytest.mark.parametrize("place", ["class", "type", "value"])
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.nn.Module",
        "torch.load",
        "subprocess.Popen",
        "trap.Trap",
        "density.saving.files.write",
        "density.saving.files.os.remove",
        "density.saving.files.Path",
        "density.saving.models.save",
        "density.saving.classes.pkgutil.resolve_name",
        "density.data.stream.Stream",
        "density.saving.recipe.nn.Module",
        "density.saving.recipe.OrderedDict",
        "density.nothing.Here",
        "flows.__builtins__",
        "lvm.",
        "studies.elbo_gap.Settings",
        "",
    ],
)
def test_names_lead_to_our_classes_only(
    name: str, place: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forger who knows the format gets classes of these packages, and no module of another is even imported."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def change(content: dict[str, Any]) -> None:
        part = content["parts"][0]
        if place == "class":
            part["class"] = name
        else:
            part["named"]["features"] = {"type": {"type": name}, "value": {"value": name, "fields": {}}}[place]

    forged(path, change)
    unusable(path, "which is none of this program's")


@pytest.mark.parametrize("name", ["density.fitting.training.Training", "density.Measure", "lvm.Full"])
def test_our_classes_that_are_no_parts_are_refused(name: str, path: Path) -> None:
    forged(path, lambda content: content["parts"][0].update({"class": name}))
    unusable(path, "is no part of a model")


def test_a_model_that_the_present_version_cannot_build_is_unusable(path: Path) -> None:
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda c: c["parts"][0]["named"].update(features=-1),
        lambda c: c["parts"][0]["named"].update(colour=1),
        lambda c: c["parts"][0]["named"].pop("features"),
        lambda c: c["parts"][0].update({"class": "lvm.Vanished"}),
        lambda c: c["parts"][0].update({"class": "density.Density"}),
        lambda c: c["state"].update({"decoder.slope": 0}),
        lambda c: c["state"].update({"decoder.slope": torch.zeros(3)}),
        lambda c: c["state"].update({"decoder.weight": c["state"]["decoder.mean"]}),
        lambda c: c["state"].pop("decoder.weight"),
        lambda c: c["state"].update({"other.weight": 1}),
        lambda c: c.pop("state"),
        lambda c: c["parts"].clear(),
        lambda c: c["parts"][0].update(path="decoder"),
        lambda c: c["tied"].update({"decoder.mean": "decoder.nothing"}),
        lambda c: c["tied"].update({"nothing.mean": "decoder.mean"}),
        lambda c: c["dtypes"].update({"prior": {"dtype": "load"}}),
        lambda c: c.update(root=7),
        lambda c: c.clear(),
    ]
    whole = path.read_bytes()
    for change in changes:
        path.write_bytes(whole)
        forged(path, change)
        unusable(path)


def test_a_failed_save_leaves_the_old_file(path: Path) -> None:
    whole = path.read_bytes()
    with pytest.raises(TypeError, match="cannot hold"):
        save(nn.Module(), path)
    assert path.read_bytes() == whole
    assert os.listdir(path.parent) == ["model.pt"]


def test_equal_models_make_equal_files(tmp_path: Path) -> None:
    """So that files can be compared by their checksums."""
    model = Gaussian(2)
    for name in ("a", "b"):
        save(model, tmp_path / "model.pt")
        os.rename(tmp_path / "model.pt", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert isinstance(load(tmp_path / "a"), Density)
