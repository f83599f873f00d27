"""The page: everything in one file, whatever results there are, and a browser that has nothing to complain of."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from studies.kit.figures import caption_in, title_in
from studies.kit.registry import doc, every_study
from studies.kit.study import Study
from studies.report import __main__ as report
from studies.report import committed
from studies.report.argument import ARGUMENT, in_order
from studies.report.committed import results
from studies.report.formulas import SUBSCRIPTS, SUPERSCRIPTS, inline, mathml
from studies.report.page import Shown, chapter
from studies.report.prose import prose, rendered
from tests.places import ROOT

SURVAE = next(study for study in every_study() if study.name == "survae")
MOST_BYTES = 2_000_000
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert report.main(["--results", str(path.parent / "absent"), "--output", str(path)]) == 0  # what is committed
    return path


class Page(html.parser.HTMLParser):
    """What a page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.alternatives: list[str] = []
        self.links: list[str] = []
        self.formulas = 0
        self.front: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values.get("src") or "")
            self.alternatives.append(values.get("alt") or "")
        assert tag not in ("script", "link", "iframe", "object"), f"<{tag}> could load something"
        self.formulas += tag == "math"
        if tag == "li":
            self.front.append("")
        if "href" in values:
            self.links.append(values["href"] or "")
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if "li" in self.open:
            self.front[-1] += data


def squeezed(text: str) -> str:
    """As a formula has it: without blanks and accents, and with plain letters for those that are raised or lowered."""
    plain = text.translate(str.maketrans(SUPERSCRIPTS | SUBSCRIPTS))
    return re.sub(r"[\s\u0302^_()]+", "", plain)


def test_the_page_has_every_study_in_one_file_that_loads_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert found.open == []
    studies = every_study()
    names = [study.name for study in studies]
    assert sorted(found.ids) == names
    assert found.links == [f"#{name}" for name in found.ids]
    assert not re.search(r"(?:src|href)=.?(?:https?:|//)|@import|url\((?!#)", text.replace("%23", "#"))
    for image in found.images:
        kind, _, content = image.partition(",")
        assert kind.startswith(("data:image/svg+xml", "data:image/png;base64"))
        assert not re.search(r"href='(?!#|%23|data:)|<(?:script|foreignObject)", content)
    assert len(found.images) == sum(result.figure is not None for study in studies for result in results(study))
    assert all(len(alternative) > 60 for alternative in found.alternatives)
    assert len(set(found.alternatives)) == len(found.images)  # each says what it alone shows
    assert len(text.encode()) < MOST_BYTES
    for study in studies:
        about = doc(study)
        assert about.question in found.words
        for section in ("Claim", "Answer"):
            first = about.sections.get(section, "").split("\n")[0]
            assert squeezed(first[1:]) in squeezed(found.words), study.name
    for word in ("settings hash", "data hash", "versions", "seeds", "confirmed"):
        assert word in found.words
    shown = re.sub(r"<style>.*?</style>|<code>.*?</code>|<dl>.*?</dl>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<![\w.)\]-])-\d", Page(shown).words), "a hyphen for a minus sign"
    assert not re.search(r"\de[+-]?\d{2}\b", Page(shown).words), "a power of ten as computers write it"


def test_committed_figures_have_all_that_they_refer_to_and_a_caption() -> None:
    for path in sorted(committed.REFERENCE.rglob("*.svg")):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(re.findall(r' id="([^"]+)"', text)), path
        assert len(caption_in(text)) > 40, f"{path}: its caption is not a sentence that answers: {caption_in(text)!r}"
        assert len(title_in(text)) > 60, path
        assert "/tmp" not in text
        assert path.stat().st_size < 250_000


def test_the_front_has_a_line_a_study_with_question_answer_and_verdict(path: Path) -> None:
    found = Page(path.read_text(encoding="utf-8"))
    assert found.ids[0] == "elbo_gap"
    assert len(found.front) == len(every_study())
    by_name = {study.name: study for study in every_study()}
    for name, line in zip(found.ids, found.front, strict=True):
        about = doc(by_name[name])
        assert about.question in line
        assert not results(by_name[name]) or 10 < len(about.short) < 340, (
            f"{name}: a sentence or two, not {about.short}"
        )
        assert squeezed(about.short) in squeezed(line)
        assert re.search(r"\d (?:confirmed|the opposite|open)|\d checks hold|not run yet", line), (
            f"{name} has no verdict"
        )
    assert found.formulas > 100
    assert sum("the opposite" in line for line in found.front) >= 3  # disagreement is to be seen as well


def test_parts_of_the_argument_name_studies_that_there_are() -> None:
    names = [name for part in ARGUMENT for name in part.names]
    assert len(names) == len(set(names))
    assert set(names) <= {study.name for study in every_study()}
    assert [study.name for _, found in in_order(every_study()) for study in found][: len(names)] == names


def test_findings_stand_apart_from_checks() -> None:
    study = Study("studies.amortization")
    first, *others = chapter(study, results(study)).results
    assert isinstance(first, Shown)
    assert not first.small
    assert all(other.small for other in others)
    assert dict(first.tally) == {"confirmed": 4, "the opposite": 2, "open": 2}
    assert first.anew
    assert first.held == len(first.checks) > 10
    assert not any("narrows" in check.claim for check in first.checks)


def test_formulas_are_typeset_and_all_else_is_escaped() -> None:
    assert mathml("½ Σ log Mᵢᵢ").count("<msub>") == 1
    assert "<mrow><mi>i</mi><mi>i</mi></mrow></msub>" in mathml("Mᵢᵢ")
    assert mathml("K^(−1/2)").endswith(
        "<msup><mi>K</mi><mrow><mo>−</mo><mn>1</mn><mo>/</mo><mn>2</mn></mrow></msup></math>"
    )
    assert inline("a < b & <i>") == "a &lt; b &amp; &lt;i&gt;"
    text = "log p(x) − ELBO is KL(q(z|x) ‖ p(z|x)), as log(2) is no formula; log p(x open"
    found = inline(text)
    assert found.count("<math>") == found.count("</math>") == 3
    assert squeezed(re.sub(r"<[^>]+>", "", found)) == squeezed(text)


def test_a_browser_finds_no_error_and_every_image(path: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    probe = """<script>addEventListener("load", () => {
        const images = [...document.images], all = document.documentElement;
        const fetched = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:"));
        document.title = JSON.stringify({images: images.length, missing: images.filter(i => !i.naturalWidth).length,
            flat: [...document.querySelectorAll("math")].filter(
                m => !m.closest("details") && !m.getBoundingClientRect().height).length,
            wide: all.scrollWidth - all.clientWidth, fetched: fetched.length}); });</script></body>"""
    copy = tmp_path / "report.html"
    copy.write_text(path.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    for width in (390, 1200):  # a phone and a desk
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--window-size={width},900",
        ]
        place = f"--user-data-dir={tmp_path / 'profile'}"
        command = [browser, *options, place, "--virtual-time-budget=5000", "--dump-dom", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert "CONSOLE" not in done.stderr, done.stderr
        title = re.search(r"<title>(.*?)</title>", done.stdout)
        assert title is not None
        state = json.loads(title[1])
        assert state == {
            "images": len(Page(path.read_text()).images),
            "missing": 0,
            "wide": 0,
            "fetched": 0,
            "flat": 0,
        }


def test_own_results_stand_beside_the_committed_ones(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "elbo_gap" / "mine-quick"
    folder.mkdir(parents=True)
    text = (
        (committed.REFERENCE / "elbo_gap.csv").read_text().replace("digits", "mine").replace(",image,", ",<b>row</b>,")
    )
    (folder / "rows.csv").write_text(text)
    page = tmp_path / "page.html"
    mine = ["--results", str(tmp_path / "results"), "--output", str(page), "--studies", "elbo_gap"]
    report.main(mine)
    found = Page(page.read_text())
    assert "Measured: digits" in found.words
    assert "Beside it: mine, quick run" in found.words
    assert "<b>row</b>" in found.words  # as text, not as markup
    (folder / "rows.csv").write_text("\n".join(text.splitlines()[:2]) + "\n")  # a run that has just begun
    assert report.main(mine) in (0, 1)
    (folder / "rows.csv").write_text("x,y\n1,2\n")
    assert report.main(mine) == 2
    assert report.main(["--studies", "elbo_gaps"]) == 2


def test_rows_of_other_settings_are_told_and_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / "reference"
    shutil.copytree(committed.REFERENCE, reference)
    monkeypatch.setattr(committed, "REFERENCE", reference)
    path = reference / "survae.csv"
    path.write_text(path.read_text().replace(SURVAE.settings().digest, "0123456789ab"))
    arguments = ["--results", str(tmp_path), "--output", str(tmp_path / "page.html"), "--studies", "survae"]
    assert report.main(arguments) == 1
    assert "survae: rows in survae.csv were made by other settings" in capsys.readouterr().err
    assert "made by other settings" in (tmp_path / "page.html").read_text()
    (folder := reference / "elbo_gap" / "again").mkdir(parents=True)  # further rows are found in folders
    shutil.copy(reference / "elbo_gap.csv", folder / "rows.csv")
    assert len(results(Study("studies.elbo_gap"))) == 2


def test_rows_of_several_settings_are_several_results_those_of_the_defaults_first(tmp_path: Path) -> None:
    study = Study("studies.kl_term")
    digest = study.settings().digest
    header, *lines = (committed.REFERENCE / "kl_term.csv").read_text().splitlines(keepends=True)
    (folder := tmp_path / "kl_term" / "digits").mkdir(parents=True)
    (folder / "rows.csv").write_text("".join([header, *(line.replace(digest, "0" * 12) for line in lines), *lines]))
    (folder / "figure.png").write_bytes(b"")
    own = results(study, tmp_path)[1:]
    assert [result.current for result in own] == [True, False]
    assert [result.rows["settings_hash"].unique().tolist() for result in own] == [[digest], ["0" * 12]]
    assert [len(result.rows) for result in own] == [len(lines)] * 2
    assert [result.figure is None for result in own] == [False, True]  # it is of one of them
    assert not any(result.stale for result in own)  # one's own rows may be of any settings


def test_what_a_terminal_shows_becomes_blocks() -> None:
    table = Table("a", "[bold]b[/bold]", title="t", caption="below")
    table.columns[1].justify = "right"
    table.add_row("[red]1[/red]", Text("2 < 3"))
    words, shown, box = rendered(Group(Text("some\n\n"), table, Panel("inside")))
    assert words.text == "some"
    assert (shown.header, shown.rows, shown.right) == (("a", "b"), (("1", "2 < 3"),), (False, True))
    assert (shown.text, shown.caption) == ("t", "below")
    assert box.kind == "verbatim"
    assert "inside" in box.text


def test_tables_of_docstrings_keep_their_cells() -> None:
    _, table, _ = (block for block in prose(doc(SURVAE).sections["Expected"] + "\n\nEnd."))
    assert table.kind == "table"
    assert table.header == ("toy", "entropy", "flow", "with surjections")
    assert table.rows[0][1] == "3.466"
    assert table.rows[-1] == ("sets", "", "", "permute: ≤ 5.243 (≤ 0.155 ± 0.002)")


def test_a_page_that_cannot_be_written_is_one_clear_error() -> None:
    code = "import sys; from studies.report.__main__ import main; main(sys.argv[1:])"
    command = [sys.executable, "-W", "error", "-c", code, "--studies", "survae", "--output", "/dev/null/none.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: ")
