"""Images of zeros and ones: cut where they should be, all of them, in an order of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from studies.data.binary_images import binary_images
from studies.data.load import Dataset
from studies.kit.errors import InputError
from studies.kit.settings import CommonSettings

DIGITS = CommonSettings()


def test_digits_are_cut_at_half_their_range() -> None:
    data = binary_images(DIGITS, 0)
    pixels = load_digits().data
    both = np.concatenate([data.train, data.test])
    assert both.shape == (1797, 64)
    np.testing.assert_array_equal(np.sort(both.sum(0)), np.sort((pixels > 8).sum(0)))  # 0 … 16: above half is 9 …
    np.testing.assert_array_equal(binary_images(DIGITS, 0).test, data.test)


@pytest.mark.parametrize("change", [{"data": "wine"}, {"logit": True}])
def test_what_has_no_bits_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has no pixels to make binary"):
        binary_images(replace(DIGITS, **change), 0)


def test_validation_images_are_trained_on_and_the_test_order_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.unpackbits(np.arange(100, dtype=np.uint8)[:, None], axis=1)  # all different
    data = Dataset("mnist-binary", "h", "image", rows[:30], rows[50:], 0.0, "", validation=rows[30:50], levels=2)
    monkeypatch.setattr("studies.data.binary_images.dataset", lambda settings, seed: data)
    found = binary_images(DIGITS, 0)
    np.testing.assert_array_equal(found.train, rows[:50])
    assert sorted(map(tuple, found.test)) == sorted(map(tuple, rows[50:]))
    assert (found.test != rows[50:]).any(), "the test images are in the order of their file"


def test_pixels_of_256_levels_are_cut_between_127_and_128(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.array([[0.9, 127.9, 128.0, 255.5]])  # with the noise of dequantisation
    data = Dataset("fashion-mnist", "h", "image", pixels, pixels, 0.0, "", levels=256)
    monkeypatch.setattr("studies.data.binary_images.dataset", lambda settings, seed: data)
    assert binary_images(DIGITS, 0).train.tolist() == [[0, 0, 1, 1]]
