"""Links of the guides to files of the repository: to the page that shows them here, or else their path."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

LINK = re.compile(r"\[([^]]*)\]\((\.\./[^)#]+)(#[^)]*)?\)")
PAGES = {"../README.md": "index.md", "../ARCHITECTURE.md": "architecture.md", "../CHANGELOG.md": "changelog.md"}


def rewrite(app: Sphinx, docname: str, source: list[str]) -> None:
    """In the pages right under ``docs``, which are also read beside the code; and no blank line ends an example."""
    source[0] = re.sub(r"\n\n```(?=\n)", "\n```", source[0])
    if "/" in docname:
        return

    def here(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        if target in PAGES:
            return f"[{text}]({PAGES[target]})"
        if not (Path(app.srcdir) / target).exists():
            logging.getLogger(__name__).warning("no file %s", target, location=docname)
        return f"{text} (`{target.removeprefix('../')}` in the repository)"

    source[0] = LINK.sub(here, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """On reading."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
