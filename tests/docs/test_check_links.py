"""The checker of links finds what is wrong, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.check_links import faults

GOOD = '<h1 id="here">a</h1> <a href="#here">b</a> <a href="deep/two.html#there">c</a> <a href="https://x.org">d</a>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one.html").write_text(GOOD)
    (tmp_path / "deep" / "two.html").write_text('<p id="there"><img src="../p%20q.png"><a href="../one.html#">up</a>')
    (tmp_path / "p q.png").write_bytes(b"")
    return tmp_path


def test_a_whole_site_has_no_faults(site: Path) -> None:
    assert faults(site) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="three.html">', "one.html: no file three.html"),
        ('<a href="deep/two.html#nowhere">', "one.html: no anchor deep/two.html#nowhere"),
        ('<a href="#nowhere">', "one.html: no anchor #nowhere"),
        ('<img src="missing.png">', "one.html: no file missing.png"),
        ('<script src="https://cdn.org/x.js"></script>', "one.html: loads https://cdn.org/x.js from a network"),
        ('<link rel="stylesheet" href="//cdn.org/x.css">', "one.html: loads //cdn.org/x.css from a network"),
    ],
)
def test_a_fault_is_found(site: Path, html: str, fault: str) -> None:
    (site / "one.html").write_text(GOOD + html)
    assert faults(site) == [fault]
