"""One look for the figures of studies: panels, a caption below them that gives the answer, and files of them."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from studies.kit.rows import write_whole
from studies.kit.tables import typeset

PALETTE: list[tuple[float, float, float]] = sns.color_palette("colorblind")
MARKERS = "osD^vPX*"
HEIGHT = 4.8  # of a panel, inches; the caption comes on top
CAPTION = 0.6
LETTERS_PER_INCH = 13.8  # of a caption in 9 points
FONTS = "DejaVu Sans,Verdana,sans-serif"  # of texts in an SVG: the fonts that stand in are as wide, or narrower


@contextmanager
def panels(
    columns: int, rows: int = 1, width: float = 12, height: float = HEIGHT
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels side by side, row after row, in the style of all studies while it is being drawn.

    >>> with panels(2) as (figure, (left, right)):
    ...     _ = left.set_xlabel("draws")
    """
    style = {**dict(sns.axes_style("whitegrid")), **dict(sns.plotting_context("notebook")), "legend.fontsize": 9.5}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, rows * height + CAPTION), layout="constrained")
        axes: Any = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.flat)
        for panel in axes.flat:
            sns.despine(ax=panel)


def a_line_each(
    names: Sequence[str],
    drawers: Sequence[Callable[[Axes, pd.DataFrame, str], None]],
    rows: pd.DataFrame,
    words: str,
    *,
    width: float,
    height: float,
) -> Figure:
    """A line of panels for each name, such as of data, drawn by functions of axes, rows and name; and the caption."""
    with panels(len(drawers), len(names), width=width, height=height) as (figure, axes):
        places = iter(axes)
        for name in names:
            for draw_panel in drawers:
                draw_panel(next(places), rows, name)
        caption(figure, words)
    return figure


def ranges(
    axes: Axes, rows: pd.DataFrame, x: str, y: str, index: int, label: str | None, line: str = "-", capsize: int = 3
) -> None:
    """The median of a column for each value of another one, and bars from its least to its most, such as over seeds.

    Colour and marker are those of the index.
    """
    found = rows.groupby(x)[y].agg(["median", "min", "max"])
    errors = [found["median"] - found["min"], found["max"] - found["median"]]
    axes.errorbar(
        found.index, found["median"], errors, color=PALETTE[index], marker=MARKERS[index], markersize=5,
        capsize=capsize, linestyle=line, label=label,
    )  # fmt: skip


def legend_below(axes: Axes, columns: int, **options: Any) -> None:  # noqa: ANN401 - what a legend takes
    """A legend under the axes, so that it hides no line and needs no room among the data."""
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "frameon": False}
    axes.legend(ncols=columns, columnspacing=1.2, handletextpad=0.5, **{**place, **options})


def caption(figure: Figure, words: str) -> None:
    """What the figure shows and answers, below the panels."""
    letters = round(LETTERS_PER_INCH * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(words, letters)), fontsize=9, x=0.01, ha="left", color="0.3")


def add(figure: Figure, words: str) -> None:
    """Say something more in the caption of a figure."""
    caption(figure, f"{' '.join(figure.get_supxlabel().split())} {words}".strip())


def draw(name: str, figure: Figure, *paths: Path, about: str = "") -> None:
    """Write a study's figure to files, in the format that each name says. Equal figures make equal files.

    A PNG shows the caption. An SVG has it as a text of its own (:func:`caption_in`), and as its title what it shows;
    its letters are of the fonts that its reader has.

    Args:
        about: what the figure shows, for those who cannot see it.
    """
    mpl.use("Agg")
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(typeset(text.get_text()))
    for path in paths:
        write_whole(path, _svg(name, figure, about) if path.suffix == ".svg" else _saved(figure, path.suffix[1:], {}))


def _saved(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    dpi = 110 if form == "svg" else 160  # of an SVG, for the pictures in it alone
    figure.savefig(buffer, format=form, dpi=dpi, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _svg(name: str, figure: Figure, about: str) -> str:
    """Without its caption, which goes into the description; numbers of one decimal, in points."""
    words = figure.get_supxlabel()
    figure.supxlabel("")
    about_it = {"Date": None, "Title": about or name, "Description": " ".join(words.split())}
    try:
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            text = _saved(figure, "svg", about_it).decode()
    finally:
        figure.supxlabel(words)
    head, body = text.split("</metadata>")
    return f"{head}</metadata>{re.sub(r'<[^<>]+>', _slim, body)}"


def _slim(tag: re.Match[str]) -> str:
    """A tag whose numbers have one decimal, and no more of names, fonts and angles than it needs."""
    if "base64" in tag[0]:
        return re.sub(r'(?<=[ "])-?\d+\.\d{2,}(?=[ "])', _one_decimal, tag[0])
    short = re.sub(r' id="[\w.]+_\d+"| transform="rotate\(-0[^"]*"', "", tag[0])
    short = re.sub(r"(font(?:-family)?: (?:[\d.]+px )?)[^;\"]*'[^;\"]*", rf"\g<1>{FONTS}", short)
    return re.sub(r"\s+", " ", re.sub(r"-?\d+\.\d{2,}", _one_decimal, short))


def _one_decimal(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 1) + 0.0:.1f}".removesuffix(".0")


def caption_in(svg: str) -> str:
    """The caption of a figure that :func:`draw` wrote, with its entities as they are; empty if it has none.

    >>> caption_in("<dc:description>An answer.</dc:description>")
    'An answer.'
    """
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def title_in(svg: str) -> str:
    """What the figure shows, as :func:`draw` was told; empty if it was not.

    >>> title_in("<title>Left: bounds.</title>")
    'Left: bounds.'
    """
    found = re.search(r"<title>(.*?)</title>", svg, re.DOTALL)
    return " ".join(found[1].split()) if found else ""
