"""What every study promises, checked against its committed rows; a new study takes part by being there."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from studies.kit.registry import doc, every_study
from studies.kit.study import Finding, Study
from studies.report.committed import Result, results
from studies.report.prose import Block, rendered
from tests.places import ROOT

STUDIES = every_study()
each = pytest.mark.parametrize("study", STUDIES, ids=[study.name for study in STUDIES])
SECTIONS = {"Claim", "Paper", "Command", "Run time", "Expected", "Answer"}
MINUTE_ON_TWO_CORES = 120  # seconds of CPU; wall clock would measure the machine's other work too
NUMBER = re.compile(r"(?<![\w.])[−-]?\d[\d,]*(?:\.\d+)?(?:e[−-]?\d+)?(?!\w)")


def test_there_are_studies() -> None:
    assert {"comparison", "elbo_gap", "survae"} <= {study.name for study in STUDIES}


@each
def test_the_docstring_has_every_section_in_words(study: Study) -> None:
    found = doc(study)
    assert found.question.endswith("?")
    assert set(found.sections) >= SECTIONS
    assert all(found.sections[title] for title in SECTIONS)
    assert f"python -m studies.{study.name}" in found.sections["Command"]
    assert "--quick" in found.sections["Run time"]
    assert study.settings().quickened() is not None


def committed(study: Study) -> Result:
    """The rows that the docstring speaks of."""
    current = [result for result in results(study) if result.current]
    assert current, (
        f"studies/reference has no rows of {study.name} with the settings that its code has: run it, commit them"
    )
    return current[0]


@each
def test_committed_rows_are_of_the_settings_that_the_code_has_and_pass_its_checks(study: Study) -> None:
    assert committed(study).figure is not None
    for result in results(study):
        assert not result.stale, (
            f"{result.path} holds rows of other settings; further ones belong in reference/{study.name}/NAME/rows.csv"
        )
        assert {"seed", "device", "dtype", "versions", "settings_hash", "data_hash", "seconds"} <= set(result.rows)
        for rows in (result.shown(), result.rows):
            checks = study.report.checks(rows)
            failed = [check.claim for check in checks if not check.passed and not isinstance(check, Finding)]
            assert failed == []


def numbers(text: str) -> Iterator[str]:
    """Every number in a text that is no count: with a decimal point or an exponent, without its sign."""
    for found in NUMBER.findall(text):
        number = found.replace("−", "-").replace(",", "").removeprefix("-")
        if "." in number or "e" in number:
            yield number


def words(block: Block) -> str:
    return " ".join((block.text, block.caption, *block.header, *(cell for row in block.rows for cell in row)))


def said(study: Study, rows: pd.DataFrame) -> Iterator[str]:
    """All that a study says of some rows."""
    yield from map(words, rendered(study.report.table(rows)))
    for check in study.report.checks(rows):
        yield f"{check.claim} {check.expected} {check.measured}"


def agrees(expected: str, measured: str) -> bool:
    """Is the measured number, rounded to the digits of the expected one, the expected one?"""
    if "e" in expected:
        digits = len(expected.split("e")[0].partition(".")[2])
        return float(f"{float(measured):.{digits}e}") == float(expected)
    return f"{abs(float(measured)):.{len(expected.partition('.')[2])}f}" == expected


@each
def test_every_expected_number_is_one_that_the_committed_rows_give(study: Study) -> None:
    """In the table or the checks of the default seeds, of each seed or of all; or, of four digits, in a cell."""
    result = committed(study)
    views = [result.shown(), result.rows, *(rows for _, rows in result.rows.groupby("seed"))]
    measured = {number for rows in views for text in said(study, rows) for number in numbers(text)}
    cells = {f"{abs(value)}" for value in result.rows.select_dtypes("number").stack()}
    missing = [
        number
        for number in dict.fromkeys(numbers(doc(study).sections["Expected"]))
        if not any(agrees(number, other) for other in measured)
        and not (len(number.replace(".", "")) >= 4 and any(agrees(number, other) for other in cells))
    ]
    assert missing == [], (
        f"the docstring of {study.name} expects {', '.join(missing)}, which its committed rows do not give"
    )


@pytest.mark.parametrize(
    ("expected", "measured", "same"),
    [
        ("1.50", "1.4961", True),
        ("1.50", "1.49", False),
        ("3e-15", "3.1086e-15", True),
        ("3e-15", "3.6e-15", False),
        ("108.35", "108.352", True),
    ],
)
def test_numbers_agree_to_the_digits_that_are_written(expected: str, measured: str, same: bool) -> None:
    assert agrees(expected, measured) is same


def test_numbers_are_found_in_running_text() -> None:
    assert list(numbers("≥ −108.35 ± 0.68 of 1,438 rows, σ^2 at 3e-15; v2.0, p0.5 and (0.241)")) == [
        "108.35",
        "0.68",
        "3e-15",
        "0.241",
    ]


@pytest.mark.slow
@each
def test_a_quick_run_takes_less_than_a_minute_on_two_cores_and_confirms_its_claims(
    study: Study, tmp_path: Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"studies.{study.name}", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    (rows,) = (tmp_path / study.name).glob("*/rows.csv")
    for file in ("figure.png", "figure.svg", "table.txt", "manifest.json"):
        assert (rows.parent / file).stat().st_size > 0
    assert after.ru_utime - before.ru_utime <= MINUTE_ON_TWO_CORES
    again = subprocess.run([*command, "--replot"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
