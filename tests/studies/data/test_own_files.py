"""One's own files: one table in every form, and what of it is fitted, told apart by, and tested on."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from studies.data.load import Dataset, load
from studies.data.own.file import SUFFIXES, Selection, read
from studies.kit.errors import InputError, warn

NAMES = ["len", "width", "mass"]


def numbers(rows: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 3)) * [0.1, 1.0, 100.0] + [0, 5, 0]


def written(path: Path, table: pd.DataFrame, header: bool = True) -> str:
    table.to_csv(path, index=False, header=header)
    return str(path)


def in_units(data: Dataset, y: np.ndarray) -> np.ndarray:
    assert data.preprocessing.scale is not None
    assert data.preprocessing.shift is not None
    return np.asarray(y * data.preprocessing.scale + data.preprocessing.shift)


def test_one_table_is_the_same_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame(numbers(), columns=NAMES)
    text = table.to_csv(index=False)
    lines = text.splitlines()
    forms = {
        "mine.csv": text.encode(),
        "MINE.CSV": text.encode(),
        "plain.csv": "\n".join(lines[1:]).encode(),
        "remarks.csv": "\n".join(["# a remark, with a comma", *lines[:9], " # another", "", *lines[9:], "#"]).encode(),
        "mine.csv.gz": gzip.compress(text.encode()),
        "mine.tsv.gz": gzip.compress(text.replace(",", "\t").encode()),
        "blanks.txt": "\n".join("  " + line.replace(",", "  ") + " " for line in lines).encode(),
        "commas.txt": text.encode(),
        "mine.tsv": text.replace(",", "\t").encode(),
        "mine.txt.gz": gzip.compress(text.replace(",", ";").encode()),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "mine.npy", numbers())
    np.savez(tmp_path / "mine.npz", table=numbers(), further=np.zeros(40), more=np.zeros(3))
    (tmp_path / "mine.parquet").touch()
    monkeypatch.setattr(pd, "read_parquet", lambda path: table)
    every = [*forms, "mine.npy", "mine.npz", "mine.parquet"]
    assert {"".join(Path(name.lower()).suffixes) for name in every} == set(SUFFIXES)
    found = {name: load(str(tmp_path / name), 0) for name in every}
    assert len({data.hash for data in found.values()}) == 1
    assert found["mine.csv.gz"].name == "mine"
    assert "3 lines of comments" in found["remarks.csv"].source
    assert found["mine.parquet"].columns == found["blanks.txt"].columns == ("1 (len)", "2 (width)", "3 (mass)")


def test_a_parquet_that_nothing_reads_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path) -> pd.DataFrame:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", absent)
    (tmp_path / "mine.parquet").touch()
    with pytest.raises(InputError, match=r"needs pyarrow, which is not installed: pip install pyarrow; or save"):
        load(str(tmp_path / "mine.parquet"), 0)


def test_a_parquet_has_integers_truth_values_words_and_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {
        "n": pd.array([1, None, 3], dtype="Int64"),
        "yes": [True, False, True],
        "kind": pd.Categorical(["a", "b", None]),
        "day": pd.to_datetime(["2026-01-01"] * 3),
        "written": ["1.5", None, "2"],
    }
    monkeypatch.setattr(pd, "read_parquet", lambda path: pd.DataFrame(columns))
    (tmp_path / "mine.parquet").touch()
    sheet = read(tmp_path / "mine.parquet")
    assert sorted(sheet.words) == [2, 3]
    np.testing.assert_array_equal(sheet.numbers[:, [0, 1, 4]], [[1, 1, 1.5], [np.nan, 0, np.nan], [3, 1, 2]])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n3,4", ("a", "b")),
        ("a,2\n1,2\n3,4", ("a", "2")),
        ("1,2\n3,4", ()),
        ("1,cat\n2,dog", ()),  # a word in a column of words is a class
        ("x,kind\n2,dog", ("x", "kind")),
        (",a\n1,2", ("", "a")),
        ("1,red\n2,3\n4,5", ("1", "red")),
        ("0,1,2\n.5,2,3", ("0", "1", "2")),  # as pandas counts columns
        ("1,2,3\n3,2,3", ()),
    ],
)
def test_the_first_line_holds_names_if_it_must(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / "mine.csv").write_text(text)
    assert read(tmp_path / "mine.csv").header.names == names


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three columns of numbers after an index, and words; one row has no word."""
    warn.cache_clear()
    kinds = np.array(["cow", "cat", " dog"])[np.arange(40) % 3]
    kinds[7] = "NA"
    table = pd.DataFrame(numbers(), columns=NAMES).assign(kind=kinds)
    table.insert(0, "id", np.arange(40))
    written(tmp_path / "animals.csv", table)
    return tmp_path / "animals.csv"


@pytest.mark.parametrize("label", ["kind", "5"])
def test_a_label_of_words_is_no_data_and_columns_keep_their_numbers(animals: Path, label: str) -> None:
    data = load(str(animals), 0, selection=Selection(label, drop=("1",)))
    assert data.columns == ("2 (len)", "3 (width)", "4 (mass)")
    assert data.classes == ("cat", "cow", "dog")
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert len(data.train_labels) + len(data.test_labels) == 39
    rows = in_units(data, data.train)
    known = {tuple(row): kind for row, kind in zip(numbers().round(9), np.arange(40) % 3, strict=True)}
    kinds = [("cow", "cat", "dog")[known[tuple(row)]] for row in rows.round(9)]
    assert kinds == [data.classes[kind] for kind in data.train_labels]
    for said in ("dropped columns 1 (id)", "1 rows without a label dropped", f"label {label} with 3 classes"):
        assert said in data.source


def test_labels_may_lie_beside_the_table_in_an_npz(tmp_path: Path) -> None:
    kinds = np.arange(40) % 2 + 3
    np.savez(tmp_path / "mine.npz", x=numbers(), y=kinds, word=np.array(["b", "a"])[kinds - 3])
    by_number, by_word = (load(str(tmp_path / "mine.npz"), 0, selection=Selection(name)) for name in ("y", "word"))
    assert (by_number.classes, by_word.classes) == (("3", "4"), ("a", "b"))
    assert by_number.train_labels is not None
    np.testing.assert_array_equal(by_number.train_labels, 1 - by_word.train_labels)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(), r"line 2, column 5 \(kind\): 'cow' is not a number .*--drop kind leaves.*--label kind takes it"),
        (Selection("age"), r"has no column 'age'; it has 1 \(id\), 2 \(len\)"),
        (Selection("kind", drop=("age",)), "has no column 'age'"),
        (Selection("kind", drop=("kind",)), "--label kind is among --drop"),
        (Selection("id", drop=("kind",)), "--label id has 40 different values in 40 rows. A label is a class"),
        (Selection("kind", drop=("len", "3", "4")), "'.*animals.csv' has 1 column that varies"),
    ],
)
def test_what_cannot_be_chosen_is_one_clear_error(animals: Path, selection: Selection, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(str(animals), 0, selection=selection)


def test_only_a_file_of_ones_own_has_columns_to_choose(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="are for a file of your own; 'wine' is none"):
        load("wine", 0, selection=Selection(drop=("proline",)))
    load(str(animals), 0, selection=Selection("kind"))
    assert "column 1 (id) counts the rows: an index, not data? If so, --drop id" in capsys.readouterr().err
    steps = load(str(animals), 0, selection=Selection("kind", drop=("2",)), dequantise=("1",))
    assert "columns 1 (id) dequantised" in steps.note


def test_a_file_to_test_on_has_the_same_columns_by_name(tmp_path: Path) -> None:
    table = pd.DataFrame(numbers(), columns=NAMES).assign(kind=["cow", "cat"] * 20, price=1.0)
    ours = written(tmp_path / "ours.csv", table[:30])
    other = table[30:].drop(columns="price").replace("cat", "bat")
    theirs = Path(written(tmp_path / "theirs.csv", other[["mass", "kind", "width", "len"]]))
    selection = Selection("kind", drop=("price",), test=theirs)
    data = load(ours, 0, selection=selection)
    np.testing.assert_allclose(in_units(data, data.train), numbers()[:30], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(in_units(data, data.test), numbers()[30:], rtol=1e-12, atol=1e-15)
    assert data.classes == ("bat", "cat", "cow")
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [2, 0] * 5
    assert f"tested on {theirs}, 10 rows" in data.source
    moved = Path(written(tmp_path / "more.csv", other[:5])), written(tmp_path / "less.csv", table[:30])
    assert load(moved[1], 0, selection=Selection("kind", ("price",), moved[0])).hash != data.hash
    for columns, message in [
        (["mass", "kind", "width"], r"must have the columns of '.*ours.csv', each of one name; it has no len"),
        (["mass", "kind", "width", "len", "mass"], "each of one name; it has names that are there twice"),
    ]:
        bad = Path(written(tmp_path / "bad.csv", other[columns]))
        with pytest.raises(InputError, match=message):
            load(ours, 0, selection=Selection("kind", ("price",), bad))
    few = Path(written(tmp_path / "few.csv", other[:3]))
    with pytest.raises(InputError, match="30 rows to fit and 3 to test on"):
        load(ours, 0, selection=Selection("kind", ("price",), few))
    headless = Path(written(tmp_path / "headless.csv", other[["len", "width"]], header=False))
    with pytest.raises(InputError, match=r"has 2 columns of data, where '.*' has 3"):
        load(ours, 0, selection=Selection(None, ("price", "kind"), headless))


def test_missing_values_are_refused_left_out_or_kept(tmp_path: Path) -> None:
    x = numbers(60)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    x[:, 0] = numbers(60)[:, 0]
    x[3] = numbers(60)[3]
    holes = int(np.isnan(x).any(1).sum())
    path = written(tmp_path / "mine.csv", pd.DataFrame(x, columns=NAMES))
    first = np.isnan(x).any(1).argmax() + 2  # after the names
    message = rf"line {first}, column .*: the value is missing .*leaves out the {holes} of 60 .*--drop width mass the"
    with pytest.raises(InputError, match=message):
        load(path, 0)
    complete = load(path, 0, selection=Selection(drop_incomplete=True))
    assert len(complete.train) + len(complete.test) == 60 - holes
    assert f"{holes} rows with a missing value dropped" in complete.source
    data = load(path, 0, incomplete=True)
    assert data.incomplete
    assert not complete.incomplete
    assert f"{int(np.isnan(x).sum())} values missing in {holes} rows" in data.source
    # log p(x) of the values that a row has, in its units: a Gaussian in y and the same in x.
    covariance = np.cov(np.random.default_rng(2).normal(size=(3, 9)))
    assert data.preprocessing.scale is not None
    assert data.log_scales is not None
    scale, shift = data.preprocessing.scale, data.preprocessing.shift
    in_x = np.diag(scale) @ covariance @ np.diag(scale)
    for y, row, log_scale in zip(data.test, in_units(data, data.test), data.log_scales, strict=True):
        has = ~np.isnan(y)
        expected = multivariate_normal(shift[has], in_x[np.ix_(has, has)]).logpdf(row[has])
        found = multivariate_normal(np.zeros(has.sum()), covariance[np.ix_(has, has)]).logpdf(y[has]) + log_scale
        assert found == pytest.approx(expected, abs=1e-9)  # condition 1e6 of the scales, 1e-16, and a margin
    np.testing.assert_allclose(np.nanmean(data.train, 0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(data.train, 0), 1, atol=1e-12)


def test_columns_of_incomplete_data_vary_by_what_they_have(tmp_path: Path) -> None:
    x = numbers(60)
    rows = np.column_stack([x, np.full(60, 4.0), np.full(60, np.nan), np.round(x[:, 1])])
    rows[3, 3:] = np.nan
    path = written(tmp_path / "mine.csv", pd.DataFrame(rows, columns=[*NAMES, "one", "none", "steps"]))
    data = load(path, 0, incomplete=True, dequantise=("steps",))
    assert data.columns == ("1 (len)", "2 (width)", "3 (mass)", "6 (steps)")
    assert "constant columns dropped: 4 (one), 5 (none)" in data.note
    assert int(np.isnan(np.concatenate([data.train, data.test])).sum()) == 1
    twice = written(tmp_path / "twice.csv", pd.DataFrame(np.concatenate([rows[:, [0, 1, 5]]] * 2), columns=list("abc")))
    assert load(twice, 0, incomplete=True, group_duplicates=True).shared == 0
