"""The five data sets of the MAF paper (Papamakarios et al. 2017), in their published layout (Zenodo 1161203).

The split and the normalisation are the paper's, so that log p(x) is in the units of its tables: nats a point of the
normalised data. No checksum of the files is known to us; shapes are checked, and the hash of the rows is in every
result. A pickle can execute what is in it: take ``ethylene_CO.pickle`` from its published place only.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from studies.data.directory import Place
from studies.data.raw import Array, Raw
from studies.kit.errors import InputError

SOURCE = "zenodo.org/record/1161203 (data.tar.gz), unpacked so that the folders power, gas, hepmass, ... are there"
FEATURES = {"power": 6, "gas": 8, "hepmass": 21, "miniboone": 43, "bsds300": 63}
CORRELATED = 0.98  # gas: of two features that correlate more than this, the earlier one is dropped
REPEATED = 5  # hepmass: features whose least value occurs more often are discrete, and dropped


def maf_suite(name: str, directory: Path | None) -> Raw:
    """One of ``power``, ``gas``, ``hepmass``, ``miniboone``, ``bsds300``: published split, published normalisation.

    Raises:
        InputError: the files are not there, or are not what was published.
    """
    place = Place(name, directory, SOURCE)
    train, validation, test = READERS[name](place)
    if train.shape[1] != FEATURES[name]:
        raise place.unusable(
            place.directory or Path(), f"{train.shape[1]} features are left of it, {FEATURES[name]} were published"
        )
    counts = len(train), len(validation), len(test)
    note = "published split and normalisation of the MAF suite"
    return Raw(name, "point", np.concatenate([train, validation, test]), counts, note=note)


Parts = tuple[Array, Array, Array]


def _power(place: Place) -> Parts:
    """Columns 1 and 3 dropped, the others dequantised with uniform noise as wide as the instrument's last digit."""
    rows = _npy(place, "power/data.npy")
    generator = np.random.RandomState(42)  # the published split and noise are this generator's
    generator.shuffle(rows)
    n = len(rows)
    kept = np.delete(rows, (1, 3), axis=1)
    voltage, global_power, meters = 0.01 * generator.rand(n, 1), 0.001 * generator.rand(n, 1), generator.rand(n, 3)
    return _normalised(*_tenths(kept + np.hstack([global_power, voltage, meters, np.zeros((n, 1))])))


def _gas(place: Place) -> Parts:
    """Gas and time columns dropped, then features that repeat others; normalised with all rows, as published."""
    import pandas as pd

    path = place.find("gas/ethylene_CO.pickle")
    try:
        table = pd.read_pickle(path).drop(columns=["Meth", "Eth", "Time"])
    except (OSError, EOFError, ValueError, KeyError, AttributeError, ImportError, pickle.UnpicklingError) as error:
        raise place.unusable(path, error) from error
    rows = table.to_numpy(np.float64)
    while True:
        repeats = (np.corrcoef(rows.T) > CORRELATED).sum(1) > 1
        if not repeats.any():
            break
        rows = np.delete(rows, int(repeats.argmax()), axis=1)
    return _tenths((rows - rows.mean(0)) / rows.std(0, ddof=1))


def _hepmass(place: Place) -> Parts:
    """Signal rows alone, without the label; the test file has a column too many."""
    train, test = (_csv(place, f"hepmass/1000_{part}.csv") for part in ("train", "test"))
    train, test = train[train[:, 0] == 1, 1:], test[test[:, 0] == 1, 1:-1]
    if train.shape[1] != test.shape[1]:
        raise place.unusable(
            place.find("hepmass/1000_test.csv"), f"{test.shape[1]} features, the training file has {train.shape[1]}"
        )
    mean, std = train.mean(0), train.std(0, ddof=1)
    discrete = (train == train.min(0)).sum(0) > REPEATED
    train, test = ((rows - mean)[:, ~discrete] / std[~discrete] for rows in (train, test))
    held_out = int(0.1 * len(train))
    return train[:-held_out], train[-held_out:], test


def _miniboone(place: Place) -> Parts:
    return _normalised(*_tenths(_npy(place, "miniboone/data.npy")))


def _bsds300(place: Place) -> Parts:
    path = place.find("BSDS300/BSDS300.hdf5", "bsds300/BSDS300.hdf5")
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"'{path}' is an HDF5 file, and reading it needs the package h5py: pip install h5py"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            train, validation, test = (np.asarray(file[part], np.float64) for part in ("train", "validation", "test"))
    except (OSError, KeyError, ValueError) as error:
        raise place.unusable(path, error) from error
    return train, validation, test


READERS: dict[str, Callable[[Place], Parts]] = {
    "power": _power,
    "gas": _gas,
    "hepmass": _hepmass,
    "miniboone": _miniboone,
    "bsds300": _bsds300,
}


def _tenths(rows: Array) -> Parts:
    """The last tenth for testing, the last tenth of the rest for validation."""
    held_out = int(0.1 * len(rows))
    rest, test = rows[:-held_out], rows[-held_out:]
    held_out = int(0.1 * len(rest))
    return rest[:-held_out], rest[-held_out:], test


def _normalised(train: Array, validation: Array, test: Array) -> Parts:
    """By mean and standard deviation of training and validation rows."""
    known = np.concatenate([train, validation])
    mean, std = known.mean(0), known.std(0)
    return (train - mean) / std, (validation - mean) / std, (test - mean) / std


def _npy(place: Place, name: str) -> Array:
    path = place.find(name)
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise place.unusable(path, error) from error
    if rows.ndim != 2 or len(rows) < 100:
        raise place.unusable(path, f"shape {list(rows.shape)}")
    return np.array(rows, np.float64)


def _csv(place: Place, name: str) -> Array:
    import pandas as pd

    path = place.find(name)
    try:
        return pd.read_csv(path, index_col=False).to_numpy(np.float64)
    except (OSError, ValueError) as error:
        raise place.unusable(path, error) from error
