"""Images of grey levels for `images`: integers as they are in the source, shapes, and the splits of the literature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.data.directory import data_directory
from studies.data.download import download_mnist
from studies.data.embedded import embedded
from studies.data.images import binarised_mnist, frey_faces, mnist
from studies.data.raw import Raw
from studies.kit.seeds import derived_seed

ImageSet = Literal["digits", "mnist", "mnist-binary", "frey-faces"]
Shape = tuple[int, int, int]

SHAPES: dict[ImageSet, Shape] = {
    "digits": (1, 8, 8), "mnist": (1, 28, 28), "mnist-binary": (1, 28, 28), "frey-faces": (1, 28, 20),
}  # fmt: skip
READERS: dict[ImageSet, Callable[[Path | None], Raw]] = {
    "digits": lambda _: embedded("digits"),
    "mnist": mnist,
    "mnist-binary": binarised_mnist,
    "frey-faces": frey_faces,
}
# How many images are held out and tested on where the source does not say; of Frey faces as in Tomczak & Welling 2018.
OURS: dict[ImageSet, tuple[int, int]] = {"digits": (144, 359), "frey-faces": (200, 200)}
HELD_OUT = 0.1  # share of the training images of MNIST that is held out, at most 5,000
MOST_HELD_OUT = 5000


@dataclass(frozen=True, eq=False)
class GreyImages:
    """Images of levels 0 … L − 1, flat, row by row.

    Attributes:
        name, hash: of the data set, before it was split.
        shape: (C, H, W).
        levels: L.
        train, validation, test: ``[n, C·H·W]`` uint8, in random order.
    """

    name: ImageSet
    hash: str
    shape: Shape
    levels: int
    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    test: NDArray[np.uint8]

    @property
    def features(self) -> int:
        """D = C·H·W."""
        return self.train.shape[1]


def grey_images(
    name: ImageSet, seed: int, directory: Path | None, *, train: int = 0, test: int = 0, download: bool = False
) -> GreyImages:
    """A data set, split as in its source, or else by the seed; at most so many images to fit and to test on.

    Args:
        seed: of the split, of the order of images, and of which ones are taken.
        directory: where those are that are not shipped.
        train, test: how many, drawn at random; 0: all.
        download: fetch ``mnist`` if it is not in the directory.

    Raises:
        InputError: the data cannot be had.

    >>> digits = grey_images("digits", 0, None)
    >>> digits.shape, digits.levels, len(digits.train), len(digits.validation), len(digits.test)
    ((1, 8, 8), 17, 1294, 144, 359)
    """
    place = None if name == "digits" else data_directory(directory)
    raw = READERS[name](download_mnist(place) if download and name == "mnist" else place)
    assert raw.levels is not None
    rows = raw.rows.astype(np.uint8)
    digest = hashlib.sha256(repr(rows.shape).encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()
    random = np.random.default_rng(derived_seed(seed, "images", name))
    fitted, held_out, tested = _parts(name, raw, random)
    fitted, tested = fitted[: train or None], tested[: test or None]
    if not len(held_out):
        count = min(MOST_HELD_OUT, int(HELD_OUT * len(fitted)))
        fitted, held_out = fitted[count:], fitted[:count]
    return GreyImages(name, digest, SHAPES[name], raw.levels, rows[fitted], rows[held_out], rows[tested])


def _parts(name: ImageSet, raw: Raw, random: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Which rows to fit, to hold out and to test on, each in random order."""
    if raw.published is None:
        held_out, tested = OURS[name]
        order = random.permutation(len(raw.rows))
        return order[held_out + tested :], order[tested : held_out + tested], order[:tested]
    ends = np.cumsum(raw.published)
    return tuple(random.permutation(part) for part in np.split(np.arange(len(raw.rows)), ends[:-1]))
