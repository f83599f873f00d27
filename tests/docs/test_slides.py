"""The index of the lecture leads somewhere: every entry's chapter, names, test, study and exercise exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

from docs._ext.lecture import COMPANION, THEOREMS, Slide, chapter_title, index, slides, theorems
from studies.kit.registry import every_study
from tests.docs.chapter_cells import chapters
from tests.places import ROOT

TITLES = COMPANION / "titles.txt"  # of slides and of their blocks, each once
LECTURE = ROOT.parent / "shared" / "lecture-3.txt"
COVER = 2  # the headings of the first page
LABELS = {"Examples", "Gradient ∇θ", "Gradient ∇φ"}  # of parts of slides, without a claim of their own
SLIDES = slides()


def named(slide: Slide) -> str:
    return f"{slide.title}: {slide.block}"


@cache
def functions(path: str) -> set[str]:
    """What pytest would collect from a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def found(name: str) -> object:
    """The object of a public address: a module, then attributes, the first of which the module exports."""
    package, *attributes = name.rsplit(".", len(name.split(".")) - 1)
    value: object = import_module(package)
    for attribute in attributes:
        package = f"{package}.{attribute}"
        value = getattr(value, attribute) if hasattr(value, attribute) else import_module(package)
    return value


@pytest.mark.parametrize("slide", SLIDES, ids=named)
def test_the_chain_of_a_slide(slide: Slide) -> None:
    chapter = COMPANION / f"{slide.chapter}.md"
    text = chapter.read_text(encoding="utf-8")
    assert chapter_title(slide.chapter)
    assert f"**{slide.exercise}.**" in text, f"{chapter.name} has no exercise {slide.exercise}"
    for name in slide.names:
        assert getattr(found(name), "__doc__", None), f"{name} has no documentation"
    path, _, function = slide.test.partition("::")
    assert path.startswith("tests/")
    assert function in functions(path), f"no test {slide.test}"
    assert slide.study in {study.name for study in every_study()}
    assert bool(slide.theorem) != bool(slide.error), "the error stands either in the list of theorems or here"
    if slide.theorem:
        assert slide.theorem in theorems(THEOREMS.read_text(encoding="utf-8"))
    assert slide.claim.endswith(".")


def test_every_chapter_is_reached() -> None:
    first, *others = [path.stem for path in chapters()]
    assert set(others) == {slide.chapter for slide in SLIDES}
    assert first == "00_first_steps"


def test_the_index_has_every_slide_once() -> None:
    text = index()
    titles = list(dict.fromkeys(slide.title for slide in SLIDES))
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == titles
    assert re.findall(r"^### (.+)$", text, re.MULTILINE) == [slide.block for slide in SLIDES if slide.block]


def test_every_title_of_the_lecture_is_there() -> None:
    titles = TITLES.read_text(encoding="utf-8").splitlines()
    assert len(titles) == 50
    missing = set(titles) - {name for slide in SLIDES for name in (slide.title, slide.block)} - LABELS
    assert not missing


def test_the_list_of_titles_is_the_lectures() -> None:
    if not LECTURE.exists():
        pytest.skip(f"needs the lecture's text at {LECTURE}")
    headings = re.findall(r"^#+ (.+)$", LECTURE.read_text(encoding="utf-8"), re.MULTILINE)[COVER:]
    plain = (re.sub(r"\$\\nabla_\{\\(theta|phi)\}.*\$", r"∇\1", heading).strip("* ") for heading in headings)
    titles = [title.replace("∇theta", "∇θ").replace("∇phi", "∇φ") for title in plain]
    assert TITLES.read_text(encoding="utf-8").splitlines() == list(dict.fromkeys(titles))


class Page(HTMLParser):
    """What a page links to, by the words of the link, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for value in (values.get("id"),) if value}
        if tag == "a":
            self.links.append((values.get("href") or "", ""))
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            href, words = self.links[-1]
            self.links[-1] = (href, words + data)


@cache
def page(path: Path) -> Page:
    return Page(path)


@pytest.mark.slow
def test_the_chain_of_links_in_the_site() -> None:
    """For each slide in its place: names to the reference, test to the chapter, study to the gallery, and exercise."""
    built = ROOT / "docs" / "_build" / "html" / "companion" / "index.html"
    if not built.exists():
        pytest.skip("needs the site, which `make docs` builds")
    links = [link for link in page(built).links if not link[0].startswith(("http", "../live.html"))]
    at = 0
    for slide in SLIDES:
        expected = [name.rsplit(".")[-1] for name in slide.names]
        expected += [slide.test.partition("::")[2], *([f"theorem {slide.theorem}"] if slide.theorem else [])]
        expected += [f"studies.{slide.study}", chapter_title(slide.chapter), f"exercise {slide.exercise}"]
        for words in expected:
            # In this order, and none left out: a name that leads nowhere has no link.
            at = next(i for i in range(at, len(links)) if links[i][1].split(".")[-1] == words.split(".")[-1]) + 1
            file, _, anchor = links[at - 1][0].partition("#")
            target = (built.parent / file).resolve() if file else built
            assert target.exists(), f"{named(slide)}: {words} leads to {file}"
            assert not anchor or anchor in page(target).anchors, f"{named(slide)}: {words} leads to no {anchor}"
