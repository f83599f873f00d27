"""Formulas without a network: MathJax's SVG output, one file beside the pages.

MathJax sets what students know from papers, alignments and all, and says in the page what it could not set, so that a
browser can count. Its SVG output needs no font files, which browsers refuse to load for pages that are opened from a
disk; MathML in the page would need a font for mathematics on the reader's machine.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset_file

DISTRIBUTION, SCRIPT = "sphinx-mathjax-offline", "tex-svg.js"
MACROS = {
    "E": r"\mathbb{E}",
    "KL": [r"\operatorname{KL}\left(#1 \,\middle\|\, #2\right)", 2],
}


def script() -> Path:
    """Where the one file lies in the environment."""
    found = [path for path in files(DISTRIBUTION) or [] if path.name == SCRIPT]
    if len(found) != 1:
        raise FileNotFoundError(f"{DISTRIBUTION} should hold one {SCRIPT}, and holds {len(found)}; run `make docs`")
    return Path(str(found[0].locate()))


def copy(app: Sphinx, error: Exception | None) -> None:
    """Beside the pages, when they are written."""
    if error is None:
        copy_asset_file(script(), Path(app.outdir) / "_static")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's extension of mathematics, pointed at the file."""
    app.config.mathjax_path = SCRIPT
    app.config.mathjax3_config = {
        "tex": {"macros": MACROS},
        "svg": {"fontCache": "global"},
        "options": {"enableMenu": False},
    }
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
