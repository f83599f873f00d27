"""Tables of several kinds of columns: read by kind, and through mixture and VAE with sensible claims."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import BernoulliLikelihood, Columns, Gaussian, LogDensity, NegativeBinomial, Poisson, TiedColumns, Training
from lvm import EM, VAE, FiniteMixture
from studies.data.load import Dataset
from studies.data.mixed.census import NAMES, census
from studies.data.mixed.likelihoods import likelihoods
from studies.data.mixed.table import mixed_table
from studies.data.own.file import Selection
from studies.judge.making import made
from studies.judge.own_models import Named
from studies.kit.errors import InputError
from tests.studies.running import run

MIXED = Selection(mixed=True)
MODELS = """
from lvm import FiniteMixture

to_fit = {
    "two": lambda features, columns: FiniteMixture(features, 2, columns),
    "three": lambda features, columns: FiniteMixture(features, 3, columns),
}
"""


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_columns_are_read_by_kind(tmp_path: Path) -> None:
    lines = [f"{0.1 * i},{i % 7},{['a', 'b ', '', 'NA'][i % 4]},{3 + 2 * (i % 2)},{i - 20},5" for i in range(40)]
    path = written(tmp_path / "mine.csv", "x,n,word,pair,below,same", *lines)
    data = mixed_table(path, 0, MIXED)
    assert [kind.kind for kind in data.kinds] == ["number", "count", "category", "category", "number"]
    assert data.kinds[2].levels == ("(missing)", "a", "b")
    assert data.kinds[3].levels == ("3", "5")
    rows = np.concatenate([data.train, data.test])
    rows = rows[np.argsort(rows[:, 0])]
    assert rows[:, 1].tolist() == [float(i % 7) for i in range(40)]
    assert rows[:, 2].tolist() == [float([1, 2, 0, 0][i % 4]) for i in range(40)]
    assert rows[:, 3].tolist() == [float(i % 2) for i in range(40)]
    assert "columns: 2 of numbers, 1 of counts, 2 of categories; constant columns dropped: 6 (same)" in data.note
    assert (len(data.train), len(data.test)) == (32, 8)
    as_number = mixed_table(path, 0, Selection(mixed=True, numbers=("n",), drop=("word",), label="pair"))
    assert [kind.kind for kind in as_number.kinds] == ["number", "number", "number"]
    assert as_number.classes == ("3", "5")
    assert as_number.hash != data.hash


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(mixed=True, numbers=("word",)), "--numbers names column 2 .word., which holds words"),
        (Selection(mixed=True, test=Path("mine.csv")), "--mixed takes one file, of which a fifth"),
        (MIXED, r"column 2 \(word\): 40 different words in 40 rows are no categories. --drop word"),
        (Selection(mixed=True, drop=("word",)), r"column 3 \(hole\): the value is missing"),
    ],
)
def test_what_cannot_be_read(selection: Selection, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{0.1 * i},w{i},{'' if i == 3 else i}" for i in range(40)]
    path = written(tmp_path / "mine.csv", "x,word,hole", *lines)
    with pytest.raises(InputError, match=words):
        mixed_table(path, 0, selection)
    complete = mixed_table(path, 0, Selection(mixed=True, drop=("word",), drop_incomplete=True))
    assert len(complete.train) + len(complete.test) == 39
    with pytest.raises(InputError, match="--mixed is for a file of your own; 'digits' is none"):
        mixed_table("digits", 0, MIXED)


def read(folder: Path, n: int) -> tuple[Dataset, Tensor, Tensor]:
    data = mixed_table(str(census(folder / "census.csv", n)), 0, MIXED)
    return data, torch.as_tensor(data.train), torch.as_tensor(data.test)


def sensible(inside: LogDensity, outside: LogDensity, columns: Columns) -> None:
    """Finite at every row, of the table's measure, and of rows held out much as of those of the fit."""
    assert outside.measure == inside.measure == columns.measure
    assert outside.value.isfinite().all()
    assert outside.value.max() < 0
    error = math.hypot(inside.standard_error, outside.standard_error)
    assert abs(inside.mean - outside.mean) < max(3.0, 5 * error)


def test_a_table_of_sixteen_columns_goes_through_mixture_and_vae(tmp_path: Path, generator: Generator) -> None:
    data, train, test = read(tmp_path, 600)
    assert [kind.label for kind in data.kinds] == [f"{place} ({name})" for place, name in enumerate(NAMES, 1)]
    columns = likelihoods(data.kinds)
    categories = [place for place, kind in enumerate(data.kinds) if kind.levels]
    assert any(set(test[:, place].tolist()) - set(train[:, place].tolist()) for place in categories), "none is unseen"
    closed = Columns([Poisson() if each == NegativeBinomial() else each for each in columns.likelihoods])
    mixture = FiniteMixture(16, 3, closed)
    mixture.fit(train, em=EM(progress=False), generator=generator)
    sensible(mixture.log_density(train), mixture.log_density(test), columns)
    vae = VAE.of(16, 2, columns, hidden=(16,))
    with pytest.warns(TiedColumns, match=r"column 14 \(90% are 0\) has an atom\. Cure: leave out 14"):
        history = vae.fit(train, Training(steps=50, learning_rate=0.03, progress=False), generator=generator)
    assert history.objective[-1] > history.objective[0] + 5
    claims = [vae.log_density(x, draws=20, generator=generator) for x in (train[:120], test)]
    sensible(*claims, columns)
    assert "lower bound" in repr(claims[0])
    vae.check_input(vae.sample(50, generator=generator))


@pytest.mark.slow
def test_longer_fits_do_not_climb(tmp_path: Path, generator: Generator) -> None:
    """Ten times the steps: what is gained on rows of the fit is gained on others, but for a nat of overfitting."""
    data, train, test = read(tmp_path, 2000)
    columns = likelihoods(data.kinds)
    training = Training(steps=2000, learning_rate=0.01, progress=False)
    for model in (FiniteMixture(16, 6, columns), VAE.of(16, 4, columns, hidden=(32,))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TiedColumns)
            model.fit(train, training=training, generator=generator)
        inside, outside = (model.log_density(x, draws=200, generator=generator) for x in (train[:400], test))
        sensible(inside, outside, columns)
        assert -45 < outside.mean < -38
        assert outside.value.min() > -100


def test_judge_takes_such_a_table(tmp_path: Path) -> None:
    table = str(census(tmp_path / "census.csv", 200))
    models = written(tmp_path / "models.py", MODELS)
    status, rows = run(
        "studies.judge", [models, "--quick", "--data", table, "--mixed", "--drop", "rent", "--steps", "5"], tmp_path
    )
    assert status == 0
    alone = rows[rows["versus"].isna()]
    assert set(alone["measure"]) == {"counting (columns 0, 2-14) × Lebesgue (column 1)"}
    assert alone["value"].between(-300, 0).all()
    assert (rows.loc[rows["versus"].notna(), "comparable"] == 1).all()


def test_judge_refuses_a_model_of_another_measure() -> None:
    columns = Columns([BernoulliLikelihood(), NegativeBinomial()])
    with pytest.raises(
        ValueError, match=r"'Gaussian' has densities with respect to Lebesgue, where .* counting\. Give its"
    ):
        made(Named("Gaussian", (Gaussian(2),), to_fit=False), torch.zeros(5, 2), 0, None, columns)
