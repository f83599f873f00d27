"""What every test may ask for: a device, a seeded generator, and a place to report the error that it measured."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.equivalence.theorems import stated

pytest.register_assert_rewrite(
    "tests.laws.transforms",
    "tests.laws.densities",
    "tests.laws.bounds",
    "tests.laws.modules",
    "tests.laws.networks",
    "tests.laws.units",
    "tests.laws.claims",
)

MEASUREMENT = "measurement"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="torch device for tests that take one, e.g. cuda (default: cpu)")
    parser.addoption("--theorems", action="store_true", help="say what each theorem states, beside its measured errors")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    try:
        torch.empty(0, device=config.getoption("--device"))
    except (RuntimeError, AssertionError) as error:
        raise pytest.UsageError(f"--device {config.getoption('--device')}: {error}") from error


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of ``--device``."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def generator(device: torch.device) -> torch.Generator:
    """A generator on the device, seeded alike for every test, so that no test depends on those before it."""
    return torch.Generator(device).manual_seed(20260301)


@pytest.fixture(autouse=True)
def seeded_initialisation() -> Iterator[None]:
    """torch initialises networks from the global generator: seed it, so that no test depends on those before it."""
    dtype = torch.get_default_dtype()
    torch.manual_seed(20260301)
    yield
    left = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    assert left is dtype, f"the test, or what it called, left {left} as the default dtype"


@pytest.fixture
def record_measurement(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """``record_measurement(name, error, tolerance)``: put an error into the terminal summary, then assert it."""

    def record(name: str, error: float, tolerance: float) -> None:
        error, tolerance = float(error), float(tolerance)
        # user_properties travel with the report, also from an xdist worker.
        request.node.user_properties.append((MEASUREMENT, (name, error, tolerance)))
        assert error <= tolerance, f"{name}: measured {error:.3g}, tolerance {tolerance:.3g}"

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [
        report
        for category in ("passed", "failed")
        for report in terminalreporter.getreports(category)
        if report.when == "call"
    ]
    lines = measurement_table(
        [value for report in reports for key, value in report.user_properties if key == MEASUREMENT]
    )
    if lines:
        terminalreporter.write_sep("=", "measured errors")
        for line in stated(lines) if config.getoption("--theorems") else lines:
            terminalreporter.write_line(line)


def measurement_table(measurements: list[tuple[str, float, float]]) -> list[str]:
    """One aligned line a name: the error that comes closest to its tolerance, or exceeds it most."""
    worst: dict[str, tuple[float, float]] = {}
    count: dict[str, int] = {}
    for name, error, tolerance in measurements:
        count[name] = count.get(name, 0) + 1
        if name not in worst or _severity(error, tolerance) > _severity(*worst[name]):
            worst[name] = (error, tolerance)
    if not worst:
        return []
    width = max(map(len, worst))
    lines = [f"{'':<{width}}  {'worst error':>11}  {'tolerance':>9}  {'measured':>8}"]
    for name in sorted(worst, key=_natural):
        error, tolerance = worst[name]
        verdict = "" if error <= tolerance else "  EXCEEDED"
        lines.append(f"{name:<{width}}  {error:>11.1e}  {tolerance:>9.1e}  {count[name]:>7}x{verdict}")
    return lines


def _severity(error: float, tolerance: float) -> float:
    if math.isnan(error):
        return math.inf
    if tolerance > 0:
        return error / tolerance
    return math.inf if error > 0 else 0.0


def _natural(name: str) -> tuple[float, str]:
    """Theorem 10 after theorem 9."""
    number = name.split(maxsplit=1)[0].rstrip(".:abcdefgh") if name.strip() else ""
    return (float(number) if number.isdecimal() else math.inf, name)
