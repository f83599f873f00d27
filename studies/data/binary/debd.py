"""Binary tables on which density estimation is compared, with the splits that were published."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from studies.data.directory import Place, data_directory

DebdName = Literal["nltcs", "plants", "jester", "accidents", "mushrooms", "dna"]
DEBD = get_args(DebdName)
FILE = "debd_binary.npz"
DIGEST = "0fcebc00c5afa7f22b9c1b6256890fc9d36fcd7177f427c921bdc30239976478"
SOURCE = "github.com/UCLA-StarAI/Density-Estimation-Datasets, rows packed into bits"


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of zeros and ones to fit, to choose by and to test on, ``[n, D]``."""

    train: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    test: NDArray[np.uint8]


def debd(name: str, directory: Path | None) -> Split:
    """A table by name, with its published split (Lowd & Davis 2010; Van Haaren & Davis 2012; Larochelle & Murray 2011).

    Args:
        directory: of data; None for that of the environment.

    Raises:
        InputError: there is no such file in the directory, or it is another one.
    """
    place = Place(name, data_directory(directory), SOURCE)
    path = place.find(FILE)
    content = path.read_bytes()
    place.verify(path, content, DIGEST, "bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        features = int(archive[f"{name}_features"])
        packed = (archive[f"{name}_{part}"] for part in ("train", "valid", "test"))
        return Split(*(np.ascontiguousarray(np.unpackbits(part, axis=1)[:, :features]) for part in packed))
