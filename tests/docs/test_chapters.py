"""Chapters of the companion: each has what a chapter has, and its cells run, without the site."""

from __future__ import annotations

import re
import time
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from tests.docs.chapter_cells import cells, chapters, execute

CHAPTERS = chapters()
SECONDS = 60.0  # what a page may take when the site is built


def name(chapter: Path) -> str:
    return chapter.stem


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_a_chapter_is_complete(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    exercises = re.findall(r"^\*\*(\d+)\.\*\*", text, re.MULTILINE)
    assert exercises == ["1", "2", "3"][: len(exercises)]
    assert 2 <= len(exercises) <= 3
    hidden = [cell for cell in cells(chapter) if cell.hidden]
    assert len(hidden) == len(exercises), "every exercise has one hidden solution"
    assert any(not cell.hidden for cell in cells(chapter))
    if chapter.stem.startswith("00"):
        return
    for heading in ("Statement", "Five lines", "What proves it", "What was measured", "Exercises"):
        assert f"\n## {heading}\n" in text, f"{chapter.name} has no section {heading}"
    assert "$$" in text
    for figure in re.findall(r"\{figure\} (\S+)", text):
        assert list(chapter.parent.glob(figure)), figure  # name.*, of whatever format
    for path, function in re.findall(r"\{literalinclude\} (\S+)\n:pyobject: (\w+)", text):
        assert f"def {function}(" in (chapter.parent / path).read_text(encoding="utf-8")


def test_lines_of_errors_are_those_of_the_file() -> None:
    for chapter in CHAPTERS[:2]:
        lines = chapter.read_text(encoding="utf-8").splitlines()
        for cell in cells(chapter):
            code = cell.code.rstrip("\n").splitlines()
            assert code[-1] == lines[len(code) - 1]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_every_cell_runs(chapter: Path) -> None:
    mpl.use("agg")
    start = time.process_time()
    execute(chapter)
    pyplot.close("all")
    assert time.process_time() - start < SECONDS
