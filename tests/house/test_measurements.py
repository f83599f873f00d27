"""The table of measured errors shows, under every name, the error that matters most."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import measurement_table


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
