"""Images from a directory: MNIST, statically binarised MNIST, Fashion-MNIST, Frey faces."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.data.directory import Place
from studies.data.raw import Raw

Bytes = NDArray[np.uint8]

SIZE = 28 * 28
PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
# SHA-256 of the files inside the archives, so that another compression of the same images passes.
MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
# MD5 of the archives, as published with the data set.
FASHION = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
# SHA-256 of the bits of each part, eight pixels a byte, row by row.
BINARISED = {
    "train": (50_000, "727146c35424b019f3e350e1e69faa05644a0abaf787e3f4e1a9632220a13906"),
    "valid": (10_000, "a256ac44ae26be720fad8616a05ed6ecfd1619930d9a208379bb2a4405df5b6d"),
    "test": (10_000, "9fcd8da6f0fdf09b2ba30fe63a0bb784042a0de82563172530229b983e294ff2"),
}
FREY = "7f612f2c92cf0332904b52a0b5409634c78e73eb94186d7751db19fbd280334d"
BINARISED_SOURCE = (
    "github.com/mingzhang-yin/ARM-gradient, or the page of Larochelle's binarized_mnist_{train,valid,test}.amat"
)


def mnist(directory: Path | None) -> Raw:
    """``mnist``: 60,000 + 10,000 images of 28 × 28 pixels, 256 levels, in four idx files (gzip or not)."""
    source = "the MNIST page or a mirror; --download fetches it"
    place = Place("mnist", directory, source)
    parts = []
    for part, digest in zip(PARTS, MNIST, strict=True):
        path = place.find(*(f"{folder}{part}-ubyte{end}" for folder in ("", "mnist/", "mnist-") for end in (".gz", "")))
        content = _decompressed(place, path)
        place.verify(path, content, digest)
        parts.append(content)
    return _labelled_images("mnist", parts)


def fashion_mnist(directory: Path | None) -> Raw:
    """``fashion-mnist``: 60,000 + 10,000 images of clothes, as MNIST, in ``fashion-mnist/``."""
    place = Place("fashion-mnist", directory, "github.com/zalandoresearch/fashion-mnist, data/fashion")
    parts = []
    for part, digest in zip(PARTS, FASHION, strict=True):
        path = place.find(f"fashion-mnist/{part}-ubyte.gz", f"fashion-mnist-{part}-ubyte.gz")
        place.verify(path, path.read_bytes(), digest, "bytes")
        parts.append(_decompressed(place, path))
    return _labelled_images("fashion-mnist", parts)


def binarised_mnist(directory: Path | None) -> Raw:
    """``mnist-binary``: 50,000 + 10,000 + 10,000 images of zeros and ones, sampled once (Salakhutdinov & Murray 2008).

    From ``mnist_static_binarized.npz`` (arrays train, valid, test, eight pixels a byte) or the three published text
    files ``binarized_mnist_{train,valid,test}.amat``. The first thousand test images are 8 to 10 nats harder than the
    mean: take subsets at random.
    """
    place = Place("mnist-binary", directory, BINARISED_SOURCE)
    path = place.find("mnist_static_binarized.npz", "binarized_mnist_train.amat")
    packed = []
    for part, (rows, digest) in BINARISED.items():
        if path.suffix == ".npz":
            bits = _array(place, path, part)
        else:
            path = place.find(f"binarized_mnist_{part}.amat")
            text = np.frombuffer(path.read_bytes(), np.uint8)
            digits = text[(text == ord("0")) | (text == ord("1"))] - ord("0")
            if digits.size != rows * SIZE:
                raise place.unusable(path, f"{digits.size} pixels, not {rows} × {SIZE}")
            bits = np.packbits(digits.reshape(rows, SIZE), axis=1)
        place.verify(path, np.ascontiguousarray(bits).tobytes(), digest, f"{part} images")
        packed.append(bits)
    images = np.unpackbits(np.concatenate(packed), axis=1)
    train, valid, test = (rows for rows, _ in BINARISED.values())
    return Raw("mnist-binary", "image", images, (train, valid, test), levels=2)


def frey_faces(directory: Path | None) -> Raw:
    """``frey-faces``: 1,965 images of one face, 28 × 20 pixels, 256 levels; split by seed."""
    place = Place("frey-faces", directory, "S. Roweis' data page (frey_rawface.mat)")
    path = place.find("frey_faces.npz")
    place.verify(path, path.read_bytes(), FREY, "bytes")
    return Raw("frey-faces", "image", _array(place, path, "faces").reshape(-1, 28 * 20), levels=256)


def _labelled_images(name: str, parts: list[bytes]) -> Raw:
    """From idx files whose checksum is right: 16 bytes of header before images, 8 before labels."""
    train, train_labels, test, test_labels = (np.frombuffer(part, np.uint8) for part in parts)
    images = np.concatenate([train[16:], test[16:]]).reshape(-1, SIZE)
    labels = np.concatenate([train_labels[8:], test_labels[8:]])
    counts = len(train_labels) - 8, 0, len(test_labels) - 8
    return Raw(name, "image", images, counts, levels=256, labels=labels)


def _decompressed(place: Place, path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise place.unusable(path, error) from error


def _array(place: Place, path: Path, name: str) -> Bytes:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name], np.uint8)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise place.unusable(path, error) from error
