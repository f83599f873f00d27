"""Flows of one budget: equal parameters, equal starts, and a study that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from studies import flow_layers
from studies.flow_layers import Settings
from studies.flow_layers_models import _built, _width, parameter_count, prepared


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_width_is_the_nearest_to_the_budget() -> None:
    assert _width(lambda width: width**2, 99) == 10
    assert _width(lambda width: width**2, 88) == 9
    assert _width(lambda width: 3 * width, 1) == 1


def test_every_flow_starts_as_a_bijection_of_the_budget() -> None:
    settings = Settings(data="wine", layers=3, hidden=24)
    found = prepared(settings, settings.load(0), 0)
    budget = parameter_count(_built(found, "kind", "affine", settings.hidden))
    x = found.test[:5].double()
    for part, names in (("between", settings.between), ("kind", settings.kinds)):
        for name in names:
            width = _width(lambda hidden, p=part, n=name: parameter_count(_built(found, p, n, hidden)), budget)  # type: ignore[misc]
            flow = _built(found, part, name, width).double()
            assert parameter_count(flow) == pytest.approx(budget, rel=0.05)
            z, log_det = flow.transform(x)
            back, minus = flow.transform.inverse(z)
            torch.testing.assert_close(back, x, rtol=0, atol=1e-9)  # a few layers near the identity, double precision
            torch.testing.assert_close(log_det, -minus, rtol=0, atol=1e-9)


def test_the_study_runs_and_replots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--data", "wine", "--epochs", "1", "--layers", "2", "--hidden", "8"]
    arguments += ["--between", "none", "lu", "--kinds", "affine", "maf", "--output", str(tmp_path)]
    flow_layers.main(arguments)
    printed = capsys.readouterr().out
    assert "passed: parameters within 5 %" in printed
    assert list(tmp_path.rglob("figure.png"))
    flow_layers.main([*arguments, "--replot"])
    assert "MAF" in capsys.readouterr().out
