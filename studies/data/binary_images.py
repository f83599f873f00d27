"""Binary images for `mnist` and `amortization`: zeros and ones as published, or pixels above half their range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.data.load import dataset
from studies.kit.errors import InputError
from studies.kit.seeds import derived_seed
from studies.kit.settings import CommonSettings


@dataclass(frozen=True, eq=False)
class BinaryImages:
    """Images of zeros and ones.

    Attributes:
        name, hash: of the data set, before it was made binary.
        train: ``[n, D]`` uint8, published validation rows among them: nothing is chosen by them.
        test: ``[m, D]`` uint8, in random order: files have an order of their own, and the first thousand test images of
            binarised MNIST are 8 to 10 nats harder than the mean.
    """

    name: str
    hash: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]


def binary_images(settings: CommonSettings, seed: int) -> BinaryImages:
    """``mnist-binary`` as it is; ``digits``, ``mnist`` or ``fashion-mnist`` with the pixels above half set to 1.

    Raises:
        InputError: the data cannot be had, is in logits, or has no pixels.
    """
    data = dataset(settings, seed)
    if data.levels is None or settings.logit:
        raise InputError(f"'{data.name}' has no pixels to make binary; choose digits or mnist-binary, without --logit")
    train = data.train if data.validation is None else np.concatenate([data.train, data.validation])
    order = np.random.default_rng(derived_seed(seed, "order of test images")).permutation(len(data.test))
    return BinaryImages(data.name, data.hash, _bits(train, data.levels), _bits(data.test[order], data.levels))


def _bits(pixels: NDArray[Any], levels: int) -> NDArray[np.uint8]:
    """Floors undo the noise that dequantised pixels carry."""
    return (np.floor(pixels) > (levels - 1) / 2).astype(np.uint8)
