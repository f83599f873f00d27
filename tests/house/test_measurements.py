"""The table of measured errors shows, under every name, the error that matters most."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.conftest import measurement_table
from tests.equivalence.theorems import PAGE, stated, theorems
from tests.places import ROOT


def test_the_worst_error_is_shown_relative_to_its_tolerance() -> None:
    lines = measurement_table(
        [
            ("10 last", 0.0, 0.0),
            ("2 gradients", 1e-13, 1e-12),
            ("2 gradients", 1e-7, 1e-5),  # larger, but further from its tolerance
            ("1 values", 3e-13, 1e-12),
            ("1 values", float("nan"), 1e-12),
            ("1 values", 2e-12, 1e-12),
        ]
    )
    assert [line.split() for line in lines] == [
        ["worst", "error", "tolerance", "measured"],
        ["1", "values", "nan", "1.0e-12", "3x", "EXCEEDED"],
        ["2", "gradients", "1.0e-13", "1.0e-12", "2x"],
        ["10", "last", "0.0e+00", "0.0e+00", "1x"],
    ]
    assert lines[2].index("1.0e-13") == lines[3].index("0.0e+00"), "columns are not aligned"
    assert measurement_table([]) == []


@pytest.mark.parametrize("error", [1.1e-12, float("nan"), float("inf")])
def test_recording_an_error_beyond_its_tolerance_fails(
    record_measurement: Callable[[str, float, float], None], request: pytest.FixtureRequest, error: float
) -> None:
    with pytest.raises(AssertionError, match="x: measured"):
        record_measurement("x", error, 1e-12)
    assert request.node.user_properties == [("measurement", pytest.approx(("x", error, 1e-12), nan_ok=True))]
    request.node.user_properties.clear()  # not a measurement of anything: keep it out of the summary


def test_every_theorem_of_the_table_is_stated_with_its_formula_and_a_proof_that_there_is() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    numbered = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    found = theorems()
    assert list(found) == numbered
    for theorem in found.values():
        assert (ROOT / theorem.proof).exists()
        assert "record_measurement" in (ROOT / theorem.proof).read_text(encoding="utf-8")
        assert len(theorem.words) > 30
        assert len(theorem.formula) > 15


def test_errors_stand_under_their_statements() -> None:
    lines = stated(["worst error", "9  E-step 1e-14", "9b M-step 1e-14", "10b Cholesky 1e-15"])
    assert [line[:10] for line in lines] == [
        "worst erro", "", "Theorem 9.", "    log p(", "    docs/t", "9  E-step ", "9b M-step ",
        "", "Theorem 10", "    N(μ, W", "    docs/t", "10b Choles",
    ]  # fmt: skip
    assert lines[4].endswith("docs/theorems.md#theorem-9")
