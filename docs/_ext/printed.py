"""What cells print: sentences may wrap on a narrow page, tables may not, whose columns are aligned by blanks."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def is_table(text: str) -> bool:
    """Whether two lines or more have words that stand two blanks apart."""
    return len(re.findall(r"^.*\S {2,}\S.*$", text, re.MULTILINE)) > 1


def mark(app: Sphinx, doctree: nodes.document) -> None:
    """Give printed tables the class that the style sheet asks for."""
    for block in doctree.findall(nodes.literal_block):
        if "output" in block["classes"] and is_table(block.astext()):
            block["classes"].append("printed-table")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True}
