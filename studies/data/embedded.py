"""Data that scikit-learn ships."""

from __future__ import annotations

import numpy as np

from studies.data.raw import Header, Raw

UNITS = {"digits": "image", "breast-cancer": "patient", "wine": "wine"}


def embedded(name: str) -> Raw:
    """``digits`` (1797 images of 8 × 8 pixels, 17 levels), ``breast-cancer`` (569 × 30), ``wine`` (178 × 13).

    >>> embedded("wine").rows.shape
    (178, 13)
    """
    from sklearn import datasets

    loaders = {"digits": datasets.load_digits, "breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}
    found = loaders[name]()
    levels = 17 if name == "digits" else None
    header = None if levels else Header.of(found.data.shape[1], tuple(map(str, found.feature_names)))
    return Raw(name, UNITS[name], found.data.astype(np.float64), levels=levels, labels=found.target, header=header)
