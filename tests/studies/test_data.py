"""Data for the studies: the right rows and units, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from studies.data import load
from studies.errors import InputError
from studies.seeds import derived_seed


def csv(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    return str(path)


def table(rows: int, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns))


def test_digits_are_dequantised_in_pixel_units() -> None:
    data = load("digits", seed=0)
    every = np.concatenate([data.train, data.test])
    assert every.shape == (1797, 64)
    assert len(data.test) == 359
    assert data.log_scale == 0
    assert np.floor(every).min() == 0
    assert np.floor(every).max() == 16
    from sklearn.datasets import load_digits

    raw = load_digits().data
    assert np.array_equal(np.sort(np.floor(every), axis=0), np.sort(raw, axis=0))  # the same digits under the noise


def test_the_split_belongs_to_the_seed_and_the_hash_to_the_data() -> None:
    a, again, b = load("wine", seed=0), load("wine", seed=0), load("wine", seed=1)
    assert np.array_equal(a.train, again.train)
    assert not np.array_equal(a.train, b.train)
    assert a.hash == b.hash != load("breast-cancer", seed=0).hash


def test_log_densities_are_in_the_units_of_the_file(tmp_path: Path) -> None:
    x = table(100) * [1e-2, 1.0, 1e2] + 5
    np.save(tmp_path / "mine.npy", x)
    data = load(str(tmp_path / "mine.npy"), seed=0)
    order = np.random.default_rng(derived_seed(0, "split")).permutation(100)
    train, test = x[order[20:]], x[order[:20]]
    in_x = multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test)
    assert data.train.mean(0) == pytest.approx(0, abs=1e-12)  # nothing is learnt from test rows
    assert data.train.std(0) == pytest.approx(1, abs=1e-12)
    in_y = multivariate_normal(data.train.mean(0), np.cov(data.train.T)).logpdf(data.test) + data.log_scale
    assert in_y == pytest.approx(in_x, abs=1e-7)  # condition 1e8 of the covariance, 1e-16, and a margin


@pytest.mark.parametrize("header", ["", "a,b,c\n", "a,2,c\n"])
def test_a_csv_with_or_without_names(tmp_path: Path, header: str) -> None:
    x = table(40)
    data = load(csv(tmp_path, header + "\n".join(",".join(map(repr, row.tolist())) for row in x) + "\n"), seed=0)
    assert len(data.train) + len(data.test) == 40
    assert data.features == 3
    np.save(tmp_path / "same.npy", x)
    assert load(str(tmp_path / "same.npy"), seed=0).hash == data.hash


def test_constant_columns_are_dropped_and_named(tmp_path: Path) -> None:
    x = table(40)
    x[:, 1] = 7
    np.savez(tmp_path / "mine.npz", x=x, labels=np.zeros(40))
    data = load(str(tmp_path / "mine.npz"), seed=0)
    assert data.features == 2
    assert "dropped: 2" in data.note


def test_integers_can_be_dequantised(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 5, (40, 3)))
    assert "dequantised" in load(str(tmp_path / "mine.npy"), seed=0, dequantise=True).note
    np.save(tmp_path / "mine.npy", table(40))
    with pytest.raises(InputError, match="not a table of integers"):
        load(str(tmp_path / "mine.npy"), seed=0, dequantise=True)


def test_toy_data_has_the_entropy_that_it_states() -> None:
    data = load("toy", seed=0)
    x = np.concatenate([data.train, data.test])
    gaussian = multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    # In-sample fit of 44 parameters gains 44/2 nats over 2000 points; the mean of log p has s.e. sqrt(8/2)/sqrt(2000).
    assert data.best is not None
    assert gaussian.logpdf(x).mean() + data.log_scale == pytest.approx(data.best, abs=0.011 + 4 * 0.045)


LINES = "\n".join(["1,2.5", "2,1.5", "3,7"] * 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES + "\n4,red\n", r"line 31, column 2: 'red' is not a number \(1 such"),
        ("a,b\n" + LINES + "\n4,red\n", r"line 32, column 2 \(b\): 'red'"),
        (LINES + "\n4,\n", "row 31, column 2"),
        (LINES + "\n4,nan\n", "row 31, column 2"),
        (LINES + "\n4,inf\n", "row 31, column 2"),
        ("1,2\n3,4\n", "has 2 rows; at least 20"),
        ("", "cannot read"),
        (LINES + "\n1,2,3\n", "cannot read"),
        ("1\n2\n" * 20, "1 columns that vary"),
    ],
)
def test_an_unusable_csv_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(csv(tmp_path, text), seed=0)


def test_other_unusable_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data called 'digitz'"):
        load("digitz", seed=0)
    with pytest.raises(InputError, match="no file"):
        load(str(tmp_path / "absent.csv"), seed=0)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "cube.npy", np.zeros((30, 2, 2)))
    np.savez(tmp_path / "two.npz", a=table(30), b=table(30))
    for name, message in [
        ("cut.npz", "cannot read"),
        ("cut.npy", "cannot read"),
        ("words.npy", "array of numbers"),
        ("cube.npy", "shape"),
        ("two.npz", "call the data 'x'"),
    ]:
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / name), seed=0)
