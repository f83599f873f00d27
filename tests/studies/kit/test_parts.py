"""A study by its parts: the list of studies and every help are quick, and what is finished is shown without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies.__main__ import main
from studies.kit.registry import doc, every_study
from studies.kit.study import Study
from tests.places import ROOT

HEAVY = {"torch", "pandas", "seaborn", "matplotlib", "nflows", "scipy", "sklearn"}

START = """
import json, runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code in (0, None), end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*arguments: str, **environment: str) -> tuple[set[str], str]:
    """The modules that a command loads, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1])), done.stdout


@pytest.mark.parametrize(
    "arguments", [["studies"], ["studies", "--help"], *([study.package, "--help"] for study in every_study())]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules, out = loaded(*arguments)
    assert modules & HEAVY == set()
    assert "studies." in out


def test_no_settings_load_torch() -> None:
    code = (
        "import sys; from studies.kit.registry import every_study\n"
        "for study in every_study(): study.settings().digest, study.key\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_report_loads_torch() -> None:
    """But that of judge, which prints the library's own comparison."""
    code = (
        "import sys; from studies.kit.registry import every_study\n"
        "for study in every_study():\n"
        "    if study.name != 'judge': study.report\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_measures_is_imported_where_a_row_is_missing_and_what_shows_where_rows_are_shown(tmp_path: Path) -> None:
    fake, log = "tests.studies.kit.fake", str(tmp_path / "log")
    run = (fake, "--pause", "0", "--output", str(tmp_path))
    assert not {f"{fake}.measure", f"{fake}.report"} & loaded(fake, "--help", FAKE_LOG=log)[0]
    assert {f"{fake}.measure", f"{fake}.report"} <= loaded(*run, FAKE_LOG=log)[0]
    for option in ([], ["--replot"]):
        modules, out = loaded(*run, *option, FAKE_LOG=log)
        assert f"{fake}.measure" not in modules
        assert "torch" not in modules
        assert "30 rows" in out


def test_the_list_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "python -m studies.elbo_gap" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "usage: python -m studies" in capsys.readouterr().out
    assert main(["elbo_gap"]) == 2
    assert "Try python -m studies.elbo_gap" in capsys.readouterr().err


def test_a_study_is_a_package_that_measures() -> None:
    names = [study.name for study in every_study()]
    assert names == sorted(names)
    assert {"elbo_gap", "kl_term"} <= set(names)
    assert not {"kit", "data", "report", "reference"} & set(names)
    assert Study("studies.elbo_gap") in every_study()


def test_the_list_of_studies_has_question_and_run_time() -> None:
    for study in every_study():
        about = doc(study)
        assert about.question.endswith("?")
        assert "minute" in about.sections["Run time"] or "second" in about.sections["Run time"]
