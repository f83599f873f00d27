"""Puts the index of the lecture where a page says ``<!-- slides -->``."""

from __future__ import annotations

from sphinx.application import Sphinx

from docs._ext.lecture import DATA, THEOREMS, index

PLACE = "<!-- slides -->"


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the slides where the page says so."""
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, index())
        for file in (DATA, THEOREMS):
            app.env.note_dependency(str(file))


def setup(app: Sphinx) -> dict[str, bool]:
    """On reading."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
