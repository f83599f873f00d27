"""A table of one's own on the command line: who sits out, what the report says of the file, what small runs decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.kit.errors import warn
from studies.kit.registry import every_study
from studies.kit.run import main
from studies.kit.study import Check, Finding, Study
from studies.linear_vae.report import checks
from studies.report.committed import results
from studies.report.page import chapter, page
from tests.studies.kit.fake import report as fake
from tests.studies.running import Refused, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Four columns and a word, some values missing, after a comment."""
    warn.cache_clear()
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 2)) @ random.normal(size=(2, 4)) + 0.3 * random.normal(size=(80, 4))
    x[random.random(x.shape) < 0.1] = np.nan
    table = pd.DataFrame(x, columns=list("abcd")).assign(kind=["cat", "dog"] * 40)
    (tmp_path / "mine.csv").write_text("# by hand\n" + table.to_csv(index=False))
    return tmp_path / "mine.csv"


def test_incomplete_rows_go_to_the_models_that_take_them(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--models", "gaussian", "ppca", "mixture", "vae-2", "--components", "2"]
    arguments += ["--label", "kind", "--data", str(path)]
    status, rows = run("studies.elbo_gap", arguments, path.parent / "out")
    assert status == 0
    assert list(zip(rows["model"], rows["versus"].fillna(""), strict=True)) == [
        ("ppca", ""),
        ("mixture", ""),
        ("mixture", "ppca"),
    ]
    assert rows["value"].notna().all()
    assert "elbo" not in rows
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: gaussian, vae-2: values of this data are missing" in said
    assert "1 line of comments" in said
    assert "label kind with 2 classes" in said
    assert "the other models are left out" in rows["note"].dropna().iloc[0]
    (written,) = (path.parent / "out").rglob("table.txt")
    assert "left out: gaussian, vae-2" in written.read_text()
    study = Study("studies.elbo_gap")
    own = [result for result in results(study, path.parent / "out") if not result.committed]
    html = page([chapter(study, own)])
    assert "label kind with 2 classes" in html
    assert "values missing in" in html


def test_models_that_take_no_missing_values_are_refused_together(path: Path, refused: Refused) -> None:
    line = refused("studies.elbo_gap", ["--models", "maf", "gaussian", "--label", "kind", "--data", str(path)])
    assert line.startswith("error: maf, gaussian: values of this data are missing, which PPCA and the mixture alone")
    line = refused("studies.latent_space", ["--label", "kind", "--data", str(path)])
    assert "line 3, column " in line
    assert "no model of this study takes missing values; PPCA and the mixture of studies.elbo_gap do" in line


def test_narrow_tables_have_fewer_dimensions_and_words_are_classes(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--epochs", "1", "--flow-layers", "2", "--label", "kind", "--drop-incomplete"]
    arguments += ["--models", "ppca", "flow"]
    status, rows = run(
        "studies.latent_space", [*arguments, "--drop", "c", "4", "--data", str(path)], path.parent / "out"
    )
    assert status == 0
    found = capsys.readouterr()
    assert "note: dimensions 1, since 'mine' has 2 columns" in found.err
    assert {*zip(rows["model"], rows["dimensions"], strict=True)} == {
        ("data", 2), ("ppca", 1), ("flow", 1), ("flow", 2)
    }  # fmt: skip
    assert rows["classes"].notna().all()
    assert "dropped columns 3 (c), 4 (d)" in rows["source"].iloc[0]
    with np.load(rows["points"].iloc[1]) as points:
        assert set(points["labels"]) == {"cat", "dog"}
    (table,) = (path.parent / "out").rglob("table.txt")
    assert "Data: " in table.read_text()


@pytest.mark.parametrize("option", [["--label", "a"], ["--drop", "1"], ["--test", "x.csv"], ["--drop-incomplete"]])
def test_options_of_ones_own_file_are_for_nothing_else(refused: Refused, option: list[str]) -> None:
    assert refused("studies.survae", option) == (
        f"error: {option[0]} changes nothing in survae with --data toys: leave it out"
    )
    assert "are for a file of your own; 'wine' is none" in refused("studies.flow_layers", [*option, "--data", "wine"])


def test_two_columns_are_refused_where_two_latents_need_three(path: Path, refused: Refused) -> None:
    path.write_text("a,b\n" + "\n".join(f"{i / 7},{i * i % 7 / 3}" for i in range(40)))
    for study in ("decomposition", "linear_vae"):
        assert "'mine' has 2 columns; " in refused(f"studies.{study}", ["--data", str(path)])


def test_what_a_small_run_cannot_tell_is_undecided() -> None:
    (committed,) = results(Study("studies.linear_vae"))
    far = committed.rows.assign(elbo_shortfall=committed.rows["elbo_shortfall"] + 0.07)
    path = (far["part"] == "path") & (far["step"] <= 600)
    few = far[path | (far["part"] != "path")].assign(elbo_shortfall=far["elbo_shortfall"].where(path, 0.0))
    (undecided,) = [check for check in checks(few) if check.passed is not True and not isinstance(check, Finding)]
    assert undecided.passed is None
    assert undecided.claim.endswith("506 steps, of which 3,000 are enough")
    assert sum(check.failed for check in checks(far)) == 2  # the optimum and the path's end


def test_undecided_is_neither_a_failure_nor_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = "tests.studies.kit.fake"
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    arguments = ["--pause", "0", "--output", str(tmp_path)]
    for passed, status in ((True, 0), (False, 1)):
        monkeypatch.setattr(fake, "checks", lambda rows, known=passed: [Check("so", None), Check("it is", known)])
        assert main(study, arguments) == status
        assert f"undecided: so\n{'passed' if passed else 'FAILED'}: it is" in capsys.readouterr().out
    html = page([chapter(Study(study), results(Study(study), tmp_path))])
    assert '<td class="whole undecided">undecided</td>' in html
    assert '<td class="whole failed">failed</td>' in html
    monkeypatch.setattr(fake, "checks", lambda rows: [Check("so", None), Finding("it may be", False, measured="-1.5")])
    assert main(study, arguments) == 0
    assert "undecided: so\nthe opposite: it may be: -1.5" in capsys.readouterr().out
    html = page([chapter(Study(study), results(Study(study), tmp_path))])
    assert '<td class="whole the-opposite">the opposite</td>' in html


def test_help_of_every_study_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(every_study()[0].package, ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option in ("--label", "--drop", "--test", "--drop-incomplete"):
        assert option in said
