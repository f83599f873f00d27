"""Images of grey levels: whole numbers as in their source, split without overlap and by the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from studies.data.raw import Raw
from studies.images.grey_images import READERS, SHAPES, ImageSet, grey_images
from studies.kit.errors import InputError


def counted(rows: int, features: int, published: tuple[int, int, int] | None) -> Raw:
    """Images that are told apart by their first two pixels."""
    pixels = np.zeros((rows, features), np.uint8)
    pixels[:, 0], pixels[:, 1] = np.divmod(np.arange(rows), 256)
    return Raw("counted", "image", pixels, published, levels=256)


def number(pixels: np.ndarray) -> list[int]:
    return (256 * pixels[:, 0].astype(int) + pixels[:, 1]).tolist()


def test_digits_are_all_there_once() -> None:
    data = grey_images("digits", 3, None)
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [1294, 144, 359]
    together = np.concatenate(parts)
    assert together.dtype == np.uint8
    whole = load_digits().data.astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, whole))
    assert (grey_images("digits", 3, None).test == data.test).all()
    assert grey_images("digits", 4, None).test.tolist() != data.test.tolist()
    assert grey_images("digits", 4, None).hash == data.hash
    few = grey_images("digits", 3, None, train=100, test=20)
    assert (few.train == data.train[:100]).all()
    assert (few.test == data.test[:20]).all()


@pytest.mark.parametrize(
    ("name", "published", "expected"),
    [("mnist", (600, 0, 100), (540, 60, 100)), ("mnist-binary", (500, 100, 100), (500, 100, 100))],
)
def test_a_published_split_is_kept(
    name: ImageSet, published: tuple[int, int, int], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, name, lambda _: counted(sum(published), 784, published))
    data = grey_images(name, 0, Path("/"))
    assert (len(data.train), len(data.validation), len(data.test)) == expected
    assert sorted(number(data.test)) == list(range(sum(published[:2]), sum(published)))
    fitted = [number(data.train), number(data.validation)]
    assert sorted(fitted[0] + fitted[1]) == list(range(sum(published[:2])))
    assert fitted[0] != sorted(fitted[0]), "files have an order of their own"
    few = grey_images(name, 0, Path("/"), train=200, test=30)
    assert (len(few.train) + len(few.validation) * (published[1] == 0), len(few.test)) == (200, 30)


def test_frey_faces_are_split_as_in_the_literature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "frey-faces", lambda _: counted(1965, 560, None))
    data = grey_images("frey-faces", 0, Path("/"))
    parts = [number(part) for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [1565, 200, 200]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(1965))
    assert data.features == 28 * 20 == np.prod(SHAPES["frey-faces"])


def test_images_that_are_not_shipped_need_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELBOGAP_DATA", raising=False)
    with pytest.raises(InputError, match="'mnist' is read from a directory"):
        grey_images("mnist", 0, None)
