"""Figures as a page holds them: inside it, with caption and alternative text as texts."""

from __future__ import annotations

import base64
import html
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from studies.kit.figures import caption_in, title_in


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        address: the whole of it, as a ``data:`` address without double quotes.
        alternative: what it shows, for those who cannot see it.
        caption: what it says; empty of a PNG, which shows it.
        width, height: in the unit of its coordinates, for the room that it takes before it is drawn.
    """

    address: str
    alternative: str
    caption: str
    width: int
    height: int


def picture(path: Path, shows: str) -> Picture:
    """The figure in a file that ``studies.kit.figures.draw`` wrote.

    Args:
        shows: what it shows, where its file does not say that.
    """
    if path.suffix == ".png":
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24]) if len(content) > 24 else (0, 0)
        return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", shows, "", width, height)
    text = path.read_text(encoding="utf-8")
    caption, shown = (html.unescape(found(text)) for found in (caption_in, title_in))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width, height = (round(float(side)) for side in size.groups()) if size else (0, 0)
    bare = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<title>.*?</title>", "", text, flags=re.DOTALL)
    close = re.sub(r"\s+", " ", re.sub(r">\s+<", "><", bare)).strip()
    tags = re.sub(
        r"<[^<>]+>", lambda tag: tag[0].replace('"', "'"), close
    )  # no quotes that end an attribute of the page
    drawn = tags.replace("%", "%25").replace("#", "%23").replace('"', "%22")
    return Picture(f"data:image/svg+xml;charset=utf-8,{drawn}", shown or shows, caption, width, height)
