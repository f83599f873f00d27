"""The built site in a browser, on a wide screen and a narrow one: formulas, figures, widths, and no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from docs.check_links import faults
from tests.places import ROOT

SITE = ROOT / "docs" / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDE, NARROW = (1280, 900), (390, 844)

# What a page shows, once its formulas are set and its pictures decoded.
SHOWN = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    const images = [...document.images];
    images.forEach(image => { image.loading = "eager"; });
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    const formulas = [...document.querySelectorAll("div.math, span.math")];
    return {
        wanted: formulas.length,
        set: formulas.filter(formula => formula.querySelector("mjx-container svg")).length,
        refused: document.querySelectorAll("mjx-merror, [data-mml-node=merror]").length,
        missing: images.filter(image => !image.naturalWidth).map(image => image.src),
        unnamed: images.filter(image => !image.alt).map(image => image.src),
        beyond: document.documentElement.scrollWidth - window.innerWidth,
    };
}"""

pytestmark = pytest.mark.slow


class Screen:
    """A page of a browser, and what went wrong on it."""

    def __init__(self, page: Any) -> None:  # noqa: ANN401 - playwright need not be installed
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self._requested)

    def _requested(self, request: Any) -> None:  # noqa: ANN401
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"asks a network for {request.url}")

    def open(self, name: str) -> None:
        self.page.goto((SITE / name).as_uri() if "?" not in name else f"{SITE.as_uri()}/{name}")


@pytest.fixture(scope="module")
def built() -> None:
    if not (SITE / "index.html").exists():
        pytest.skip("needs the built site: `make docs`")


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which `make docs` installs")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=OPTIONS)
        yield opened
        opened.close()


def screen(browser: Any, size: tuple[int, int]) -> Screen:  # noqa: ANN401
    return Screen(browser.new_page(viewport={"width": size[0], "height": size[1]}))


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_is_whole(browser: Any, size: tuple[int, int]) -> None:  # noqa: ANN401
    """No error, no network, no page wider than its screen, every formula set, every picture there and named."""
    opened, found, formulas, pictures = screen(browser, size), [], 0, 0
    pages = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
    for name in pages:
        opened.wrong.clear()
        opened.open(name)
        shown = opened.page.evaluate(SHOWN)
        formulas += shown["wanted"]
        pictures += opened.page.evaluate("document.images.length")
        good = {"set": shown["wanted"], "refused": 0, "missing": [], "unnamed": []}
        found += [f"{name}: {key} {shown[key]}, not {value}" for key, value in good.items() if shown[key] != value]
        found += [f"{name}: {shown['beyond']} pixels too wide"] * (shown["beyond"] > 0)
        found += [f"{name}: {wrong}" for wrong in opened.wrong]
    opened.page.close()
    assert found == []
    assert len(pages) > 70
    assert formulas > 250
    assert pictures >= 2 * 18  # of the gallery, and of the studies' own pages


def test_printed_tables_scroll_and_sentences_wrap(browser: Any) -> None:  # noqa: ANN401
    opened, printed = screen(browser, NARROW), "div.cell_output pre"
    lost = "outputs => outputs.filter(output => output.scrollWidth > output.clientWidth + 1).length"
    tables = 0
    for path in sorted((SITE / "companion").glob("*.html")):
        opened.open(f"companion/{path.name}")
        sentences = f"{printed}:not(.printed-table pre)"
        assert opened.page.eval_on_selector_all(sentences, lost) == 0, f"{path.name}: a sentence does not wrap"
        style = "tables => tables.map(table => getComputedStyle(table).whiteSpace)"
        how = opened.page.eval_on_selector_all(".printed-table pre", style)
        assert set(how) <= {"pre"}, path.name
        tables += len(how)
    assert tables > 5


def test_every_link_leads_somewhere(built: None) -> None:
    assert faults(SITE) == []


def test_search_finds_a_class_and_a_page(browser: Any) -> None:  # noqa: ANN401
    opened = screen(browser, WIDE)
    for words, expected in (("GaussianMixture", "lvm.mixture"), ("missing values", "own_data")):
        opened.open(f"search.html?q={words.replace(' ', '+')}")
        opened.page.wait_for_selector("ul.search li a", timeout=20_000)
        targets = opened.page.eval_on_selector_all("ul.search li a", "links => links.map(link => link.href)")
        assert any(expected in target for target in targets), f"{words}: {targets[:5]}"
    assert opened.wrong == []


def test_a_reader_may_choose_the_dark_and_copy_an_example(browser: Any) -> None:  # noqa: ANN401
    opened = screen(browser, WIDE)
    opened.open("howto/read_a_claim.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    grounds = set()
    for _ in range(3):
        grounds.add(opened.page.evaluate(ground))
        opened.page.click(".content-icon-container .theme-toggle", force=True)
    assert len(grounds) == 2
    assert opened.page.locator("button.copybtn").count() >= 4
    assert opened.page.evaluate("document.title").endswith("elbogap 0.1.0")
    assert opened.wrong == []
