"""Data from a directory: verified, split as published, or one clear error that says where to get it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.data import images, maf_suite
from studies.data.directory import VARIABLE
from studies.data.download import download_mnist
from studies.data.load import FROM_DIRECTORY, load
from studies.kit.errors import InputError

PLACE = os.environ.get(VARIABLE)
needs_data = pytest.mark.skipif(PLACE is None, reason=f"real data is read from {VARIABLE}, which is not set")


@pytest.fixture(autouse=True)
def no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def idx(*arrays: np.ndarray) -> list[bytes]:
    """Images and labels in the published layout."""
    headers = {3: b"\x00\x00\x08\x03", 1: b"\x00\x00\x08\x01"}
    return [
        headers[array.ndim] + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        for array in arrays
    ]


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """The published layout with other pixels, and their checksums in place of the published ones."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (70, 28, 28), np.uint8)
    labels = generator.integers(0, 10, 70, np.uint8)
    parts = idx(pixels[:50], labels[:50], pixels[50:], labels[50:])
    for name, part in zip(images.PARTS, parts, strict=True):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(part))
    monkeypatch.setattr(images, "MNIST", tuple(hashlib.sha256(part).hexdigest() for part in parts))
    return tmp_path, pixels


def test_idx_files_become_pixels_labels_and_the_published_split(
    small_mnist: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, pixels = small_mnist
    data = load("mnist", seed=0, directory=directory)
    assert data.train.shape == (50, 784)
    assert np.array_equal(np.floor(data.train), pixels[:50].reshape(50, 784))
    assert np.array_equal(np.floor(data.test), pixels[50:].reshape(20, 784))
    assert data.levels == 256
    assert data.measure == "Lebesgue"
    assert data.train_labels is not None
    assert len(data.train_labels) == 50
    assert data.log_scale == 0
    assert data.bits_per_dimension(-784 * np.log(2) * 8) == pytest.approx(8)
    monkeypatch.setenv(VARIABLE, str(directory))
    assert load("mnist", seed=0).hash == data.hash
    (directory / "mnist").mkdir()
    for name in images.PARTS:  # unpacked, and in a folder of its own
        content = gzip.decompress((directory / f"{name}-ubyte.gz").read_bytes())
        (directory / "mnist" / f"{name}-ubyte").write_bytes(content)
        (directory / f"{name}-ubyte.gz").unlink()
    assert load("mnist", seed=0).hash == data.hash


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_a_damaged_file_is_one_clear_error(small_mnist: tuple[Path, np.ndarray], damage: str) -> None:
    directory, _ = small_mnist
    path = directory / f"{images.PARTS[2]}-ubyte.gz"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-200])
    elif damage == "altered":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-1] + b"x"))
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"(?s)t10k-images.*Get it from") as caught:
        load("mnist", seed=0, directory=directory)
    assert len(str(caught.value).splitlines()) == 1
    assert ("cut, altered or another file" in str(caught.value)) == (damage != "missing")


def test_binarised_images_are_read_packed_and_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    parts = {
        name: generator.integers(0, 2, (rows, 784), np.uint8)
        for name, rows in zip(images.BINARISED, (40, 9, 11), strict=True)
    }
    packed = {name: np.packbits(part, axis=1) for name, part in parts.items()}
    digests = {name: (len(part), hashlib.sha256(packed[name].tobytes()).hexdigest()) for name, part in parts.items()}
    monkeypatch.setattr(images, "BINARISED", digests)
    np.savez_compressed(tmp_path / "mnist_static_binarized.npz", **packed)
    data = load("mnist-binary", seed=3, directory=tmp_path)
    assert data.measure == "counting"
    assert data.validation is not None
    for ours, part in ((data.train, "train"), (data.validation, "valid"), (data.test, "test")):
        assert np.array_equal(ours, parts[part])
    (tmp_path / "mnist_static_binarized.npz").unlink()
    for name, part in parts.items():
        lines = "\n".join(" ".join(map(str, row)) for row in part.tolist())
        (tmp_path / f"binarized_mnist_{name}.amat").write_text(lines + "\n")
    assert load("mnist-binary", seed=0, directory=tmp_path).hash == data.hash
    assert load("mnist-binary", seed=0, directory=tmp_path, dequantise=("all",)).measure == "Lebesgue"
    (tmp_path / "binarized_mnist_test.amat").write_text(lines[:-2])
    with pytest.raises(InputError, match="8623 pixels, not 11 × 784"):
        load("mnist-binary", seed=0, directory=tmp_path)


@pytest.mark.parametrize("name", FROM_DIRECTORY)
def test_what_is_not_there_says_what_to_get_and_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"'{name}' is read from a directory of data.*--data-directory.*Get it from"):
        load(name, seed=0)
    with pytest.raises(InputError, match=f"'{name}' needs .* in .*Get it from"):
        load(name, seed=0, directory=tmp_path)
    with pytest.raises(InputError, match="no directory"):
        load(name, seed=0, directory=tmp_path / "absent")


def power(folder: Path, generator: np.random.Generator) -> None:
    np.save(folder / "data.npy", generator.standard_normal((300, 8)))


def gas(folder: Path, generator: np.random.Generator) -> None:
    table = pd.DataFrame(generator.standard_normal((300, 8)), columns=[f"s{i}" for i in range(8)])
    for copy in range(3):  # sensors that repeat another
        table[f"c{copy}"] = table["s0"] + 0.01 * generator.standard_normal(300)
    for name in ("Time", "Meth", "Eth"):
        table[name] = np.arange(300.0)
    table.to_pickle(folder / "ethylene_CO.pickle")


def hepmass(folder: Path, generator: np.random.Generator) -> None:
    for part, rows, more in (("train", 400, 0), ("test", 100, 1)):
        table = generator.standard_normal((rows, 22 + 2 + more))
        table[:, 0] = np.arange(rows) % 2
        table[:, 5] = generator.integers(0, 3, rows)
        table[:, 9] = generator.integers(0, 2, rows)
        names = [f"f{i}" for i in range(table.shape[1])]
        pd.DataFrame(table, columns=names).to_csv(folder / f"1000_{part}.csv", index=False)


def miniboone(folder: Path, generator: np.random.Generator) -> None:
    np.save(folder / "data.npy", 5 + 3 * generator.standard_normal((300, 43)))


@pytest.mark.parametrize("write", [power, gas, hepmass, miniboone], ids=lambda write: write.__name__)
def test_the_maf_suite_is_read_in_its_published_layout(write: object, tmp_path: Path) -> None:
    name = write.__name__  # type: ignore[attr-defined]
    (tmp_path / name).mkdir()
    write(tmp_path / name, np.random.default_rng(0))  # type: ignore[operator]
    data = load(name, seed=0, directory=tmp_path)
    assert data.features == maf_suite.FEATURES[name]
    assert data.validation is not None
    counts = (200, 180, 20, 50) if name == "hepmass" else (300, 243, 27, 30)
    assert (len(data.train), len(data.validation), len(data.test)) == counts[1:]
    assert load(name, seed=1, directory=tmp_path).hash == data.hash
    assert np.array_equal(load(name, seed=1, directory=tmp_path).test, data.test)
    # In the units of the published tables, training and validation rows together have mean 0 and deviation 1.
    known = np.concatenate([data.train, data.validation]) * data.preprocessing.scale + data.preprocessing.shift
    if name == "gas":  # normalised with the test rows too
        known = np.concatenate([known, data.test * data.preprocessing.scale + data.preprocessing.shift])
    assert known.mean(0) == pytest.approx(0, abs=1e-12)
    # The published code divides by n − 1 in gas and hepmass (pandas) and by n elsewhere.
    assert known.std(0, ddof=1 if name in ("gas", "hepmass") else 0) == pytest.approx(1, abs=1e-12)


def test_power_is_shuffled_and_dequantised_as_published(tmp_path: Path) -> None:
    """Against the published steps, one by one: seed, order of the draws, widths of the noise."""
    (tmp_path / "power").mkdir()
    rows = np.random.default_rng(1).standard_normal((200, 8))
    np.save(tmp_path / "power" / "data.npy", rows)
    state = np.random.RandomState(42)
    order = state.permutation(200)  # shuffle of rows draws the same numbers
    voltage, power_noise, meters = 0.01 * state.rand(200, 1), 0.001 * state.rand(200, 1), state.rand(200, 3)
    expected = rows[order][:, [0, 2, 4, 5, 6, 7]]
    expected[:, 0] += power_noise[:, 0]
    expected[:, 1] += voltage[:, 0]
    expected[:, 2:5] += meters
    known = expected[:180]
    data = load("power", seed=0, directory=tmp_path)
    test = data.test * data.preprocessing.scale + data.preprocessing.shift
    assert test == pytest.approx((expected[180:] - known.mean(0)) / known.std(0), abs=1e-12)


def test_bsds300_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "BSDS300").mkdir()
    path = tmp_path / "BSDS300" / "BSDS300.hdf5"
    if importlib.util.find_spec("h5py") is None:
        path.write_bytes(b"")
        with pytest.raises(InputError, match="pip install h5py"):
            load("bsds300", seed=0, directory=tmp_path)
        return
    import h5py

    parts = {name: np.random.default_rng(0).standard_normal((40, 63)) for name in ("train", "validation", "test")}
    with h5py.File(path, "w") as file:
        for name, part in parts.items():
            file[name] = part
    data = load("bsds300", seed=0, directory=tmp_path)
    back = data.test * data.preprocessing.scale + data.preprocessing.shift
    assert back == pytest.approx(parts["test"], abs=1e-12)


@pytest.mark.parametrize("name", ["power", "gas", "miniboone", "hepmass"])
def test_a_broken_file_of_the_maf_suite_is_one_clear_error(name: str, tmp_path: Path) -> None:
    files = {"gas": "ethylene_CO.pickle", "hepmass": "1000_train.csv"}
    (tmp_path / name).mkdir()
    path = tmp_path / name / files.get(name, "data.npy")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is cut, altered or another file"):
        load(name, seed=0, directory=tmp_path)
    if name == "gas":
        path.write_bytes(pickle.dumps(pd.DataFrame({"Time": [1.0]})))
        with pytest.raises(InputError, match="is cut, altered or another file"):
            load(name, seed=0, directory=tmp_path)


def test_a_download_that_fails_says_why_and_what_to_do(tmp_path: Path) -> None:
    nowhere = ("http://127.0.0.1:9/", "http://127.0.0.1:9/again/")
    with pytest.raises(InputError, match=r"could not be fetched.*Put the four MNIST files into a directory"):
        download_mnist(tmp_path, nowhere)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="--download fetches mnist alone"):
        load("oil-flow", seed=0, directory=tmp_path, download=True)


def test_a_download_arrives_once_and_is_verified(
    small_mnist: tuple[Path, np.ndarray], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import http.server
    import threading

    served, _ = small_mnist
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirrors = (f"http://127.0.0.1:{server.server_address[1]}/",)
    try:
        place = tmp_path_factory.mktemp("cache")
        with pytest.raises(InputError, match=r"could not be fetched.*(MD5|hash)"):  # these are not MNIST's pixels
            download_mnist(place, mirrors)
        digests = {
            f"{name}-ubyte.gz": hashlib.md5((served / f"{name}-ubyte.gz").read_bytes()).hexdigest()
            for name in images.PARTS
        }
        monkeypatch.setattr("studies.data.download.MD5", digests)
        asked.clear()
        assert download_mnist(place, mirrors) == place
        assert len(asked) == 4
        download_mnist(place, mirrors)
        assert len(asked) == 4
        monkeypatch.setattr("studies.data.download.MIRRORS", ())
        assert len(load("mnist", seed=0, directory=place).train) == 50
    finally:
        server.shutdown()
        server.server_close()


@needs_data
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist-binary", (50_000, 784)),
        ("mnist", (60_000, 784)),
        ("oil-flow", (1000, 12)),
        ("galaxies", (80_000, 7)),
        ("frey-faces", (1572, 560)),
    ],
)
def test_the_real_files_are_what_they_should_be(name: str, shape: tuple[int, int]) -> None:
    assert PLACE is not None
    data = load(name, seed=0, directory=Path(PLACE))
    assert data.train.shape == shape
    if name == "mnist-binary":
        # The share of white pixels of the static set; its first test images are an own, harder lot.
        assert data.train.mean() == pytest.approx(0.131, abs=2e-3)
