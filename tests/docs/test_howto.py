"""How-to pages: short, run by doctest, and there where an error sends its reader."""

from __future__ import annotations

import re

import pytest

from tests.places import ROOT

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
ROOMS = ("significance", "density", "flows", "lvm", "bridge", "studies")
LONGEST = 100


def test_there_is_one_for_each_of_the_usual_tasks() -> None:
    assert [page.stem for page in PAGES] == [
        "add_a_model",
        "choose_a_model",
        "conditional_models",
        "gpu",
        "judge_another_library",
        "long_fits",
        "own_data",
        "own_network",
        "read_a_claim",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_is_short_and_its_examples_run(page: object) -> None:
    text = page.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert len(text.splitlines()) <= LONGEST
    assert ">>>" in text


def test_errors_name_pages_that_there_are() -> None:
    named = {
        found
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for found in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert len([name for name in named if name.startswith("docs/howto/")]) >= 4
