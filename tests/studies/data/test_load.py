"""Data for the studies: the right rows and units, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from studies.data.load import load
from studies.kit.errors import InputError
from studies.kit.seeds import derived_seed


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
    plain, noisy = (load(str(tmp_path / "mine.npy"), seed=0, dequantise=columns) for columns in ((), ("all",)))
    assert noisy.note == "dequantised with uniform noise: a lower bound on the log-mass of the integers"
    assert noisy.hash == plain.hash
    raw = noisy.train * noisy.preprocessing.scale + noisy.preprocessing.shift
    before = plain.train * plain.preprocessing.scale + plain.preprocessing.shift
    assert np.array_equal(np.floor(raw), np.round(before))
    np.save(tmp_path / "mine.npy", table(40))
    with pytest.raises(InputError, match=r"column 1 of 'mine' has no levels to dequantise: 40 different values in 40"):
        load(str(tmp_path / "mine.npy"), seed=0, dequantise=("all",))


def mixed() -> np.ndarray:
    """Heights, numbers of children, lengths in steps of 0.05, a constant."""
    random = np.random.default_rng(1)
    return np.column_stack(
        [random.normal(size=60), 2 * random.integers(0, 4, 60), 0.05 * random.integers(0, 9, 60), np.full(60, 3.0)]
    )


@pytest.mark.parametrize("columns", [("2", "3"), ("children", "length"), ("length", "2")])
def test_columns_are_dequantised_by_name_or_number(tmp_path: Path, columns: tuple[str, ...]) -> None:
    x = mixed()
    text = "height,children, length ,floor\n" + "\n".join(",".join(map(repr, row.tolist())) for row in x)
    data, plain = (load(csv(tmp_path, text), seed=0, dequantise=chosen) for chosen in (columns, ()))
    assert data.columns == plain.columns == ("1 (height)", "2 (children)", "3 (length)")
    assert "columns 2 (children), 3 (length) dequantised with uniform noise as wide as a level" in data.note
    assert "constant columns dropped: 4 (floor)" in data.note
    rows, before = (
        of.preprocessing.shift + of.preprocessing.scale * np.concatenate([of.train, of.test]) for of in (data, plain)
    )
    noise = rows - before
    assert np.abs(noise[:, 0]).max() < 1e-12
    for column, width in ((1, 2.0), (2, 0.05)):
        assert -1e-12 < noise[:, column].min() < 0.2 * width
        assert 0.8 * width < noise[:, column].max() < width
    again = load(csv(tmp_path, text), seed=0, dequantise=columns)
    assert np.array_equal(again.train, data.train)
    assert not np.array_equal(load(csv(tmp_path, text), seed=1, dequantise=columns).train, data.train)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("6",), r"'mine' has no column '6'; it has 1 \(a\), 2 \(b\), 3 \(b\), 4 \(1\)\. Say which"),
        (("0",), "no column '0'"),
        (("b",), "'mine' has 2 columns 'b'"),
        (("2", "1"), r"column 4 \(1\) of 'mine' has no levels"),  # a name comes before a number
        (("2", "a"), r"column 1 \(a\) of 'mine' has no levels to dequantise: 60 different values in 60 rows"),
    ],
)
def test_columns_that_cannot_be_dequantised(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    text = "a,b,b,1\n" + "\n".join(",".join(map(repr, row.tolist())) for row in mixed())
    text = text.replace(",3.0\n", ",3.5\n").removesuffix("3.0") + "3.5"
    with pytest.raises(InputError, match=message):
        load(csv(tmp_path, text), seed=0, dequantise=columns)


def test_a_constant_integer_may_get_noise_and_pixels_have_no_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", mixed())
    assert load(str(tmp_path / "mine.npy"), seed=0, dequantise=("4",)).features == 4
    assert load("digits", seed=0, dequantise=("all",)).hash == load("digits", seed=0).hash
    with pytest.raises(InputError, match="'digits' are pixels, which are dequantised together: --dequantise all"):
        load("digits", seed=0, dequantise=("3",))
    assert load("wine", seed=0, dequantise=("proline",)).columns[12] == "13 (proline)"


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
        ("a,b\n" + LINES + "\n4,red\n", r"line 32, column 2 \(b\): 'red' is not a number \(1 such"),
        ("a,b\n" + LINES + "\n4,\n5,\n", r"line 32, column 2 \(b\): the value is missing \(2 such"),
        (LINES + "\n\n4,nan\n", "line 32, column 2: the value is missing"),
        ("4, N/A \n" + LINES, "line 1, column 2: the value is missing"),  # what is missing is no name
        (LINES + "\n4,inf\n", "line 31, column 2: 'inf' is not finite"),
        ("1,2\n3,4\n", "has 2 rows; at least 20"),
        ("", "is empty; a table of numbers was expected"),
        (LINES + "\n1,2,3\n", "line 31: 3 values, where line 1 has 2"),
        (LINES + "\n1\n", "line 31: 1 values, where line 1 has 2"),
        (LINES.replace(",", ";"), "separated by semicolons; .* separated by commas.*decimal points"),
        (LINES.replace(",", "\t"), "separated by tabs; .*rename it to .tsv"),
        ("1\n2\n" * 20, "1 column that varies"),
    ],
)
def test_an_unusable_csv_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(csv(tmp_path, text), seed=0)
    assert len(str(caught.value).splitlines()) == 1


def test_tabs_separate_a_tsv_and_a_mark_of_byte_order_is_no_name(tmp_path: Path) -> None:
    x = table(40)
    np.save(tmp_path / "same.npy", x)
    path = tmp_path / "mine.tsv"
    path.write_text("\n".join("\t".join(map(repr, row.tolist())) for row in x), encoding="utf-8-sig")
    assert load(str(path), seed=0).hash == load(str(tmp_path / "same.npy"), seed=0).hash
    path.write_text("\n".join(",".join(map(repr, row.tolist())) for row in x))
    with pytest.raises(InputError, match=r"separated by commas; a .tsv file must be separated by tabs"):
        load(str(path), seed=0)


def test_a_column_that_is_hardly_data_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mine.npy", np.column_stack([np.arange(40), table(40)]))
    assert load(str(tmp_path / "mine.npy"), seed=0).features == 4
    err = capsys.readouterr().err
    assert "column 1 counts the rows" in err
    assert len(err.splitlines()) == 1
    np.save(tmp_path / "good.npy", table(40))
    load(str(tmp_path / "good.npy"), seed=0)
    assert capsys.readouterr().err == ""


def test_other_unusable_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data called 'digitz'. Name one of digits"):
        load("digitz", seed=0)
    with pytest.raises(InputError, match="no file"):
        load(str(tmp_path / "absent.csv"), seed=0)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "cube.npy", np.zeros((30, 2, 2)))
    np.savez(tmp_path / "two.npz", a=table(30), b=table(30))
    hole = table(30)
    hole[4, 1] = np.nan
    np.save(tmp_path / "hole.npy", hole)
    for name, message in [
        ("cut.npz", "cannot read"),
        ("cut.npy", "cannot read"),
        ("words.npy", "array of numbers"),
        ("cube.npy", "shape"),
        ("two.npz", "call the data 'x'"),
        ("hole.npy", "row 5, column 2: the value is missing"),
    ]:
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / name), seed=0)


def test_the_logit_changes_the_density_by_its_derivative() -> None:
    plain, squeezed = load("digits", seed=0), load("digits", seed=0, logit=True)
    assert squeezed.log_scales is not None
    assert squeezed.log_scale == pytest.approx(squeezed.log_scales.mean())
    step = 1e-6
    for row in range(3):
        up, down = (squeezed.preprocessing(plain.test[row : row + 1] + sign * step)[0] for sign in (1, -1))
        numeric = np.log((up - down) / (2 * step)).sum()
        assert squeezed.log_scales[row] == pytest.approx(numeric, abs=1e-3)  # second derivatives up to 1e4, step² 1e-12
    with pytest.raises(InputError, match="--logit is for pixels"):
        load("wine", seed=0, logit=True)


def test_equal_rows_on_both_sides_are_counted_and_by_option_kept_together(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(150, 2))
    rows = np.concatenate([rows, rows[:50]])
    np.save(tmp_path / "mine.npy", rows)
    apart, together = (load(str(tmp_path / "mine.npy"), seed=0, group_duplicates=chosen) for chosen in (False, True))
    known = {tuple(row) for row in apart.train}
    assert apart.shared == sum(tuple(row) in known for row in apart.test) > 5
    assert f"{apart.shared} of 40 test rows are in the training part too" in apart.note
    assert together.shared == 0
    assert "training part too" not in together.note
    assert len(together.train) + len(together.test) == 200
    assert 38 <= len(together.test) <= 40


def test_without_equal_rows_the_option_changes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(60, 2)))
    plain, grouped = (load(str(tmp_path / "mine.npy"), seed=0, group_duplicates=chosen) for chosen in (False, True))
    np.testing.assert_array_equal(plain.test, grouped.test)


def test_a_step_may_be_given(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = np.column_stack([random.normal(size=100), random.integers(0, 9, 100) / 20])
    np.savetxt(tmp_path / "mine.csv", rows, delimiter=",", header="a,b=c", comments="")
    for chosen in ("2=0.05", "b=c=0.05", "b=c"):
        data = load(str(tmp_path / "mine.csv"), seed=0, dequantise=(chosen,))
        noisy = np.concatenate([data.train, data.test])[:, 1]
        assert data.preprocessing.scale is not None
        assert data.preprocessing.shift is not None
        in_steps = (noisy * data.preprocessing.scale[1] + data.preprocessing.shift[1]) / 0.05
        assert len(np.unique(in_steps)) == 100
        assert -1e-9 < in_steps.min() < in_steps.max() < 9
    with pytest.raises(InputError, match="the step must be a positive number; got 'much'"):
        load(str(tmp_path / "mine.csv"), seed=0, dequantise=("2=much",))
