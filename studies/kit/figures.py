"""One look for the figures of studies: panels, a caption below them that gives the answer, and files of them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.kit.rows import write_whole

PALETTE: list[tuple[float, float, float]] = sns.color_palette("colorblind")
MARKERS = "osD^vPX*"
HEIGHT = 4.8  # of a panel, inches; the caption comes on top
CAPTION = 0.6
LETTERS_PER_INCH = 13.8  # of a caption in 9 points


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


def caption(figure: Figure, words: str) -> None:
    """What the figure shows and answers, below the panels."""
    letters = round(LETTERS_PER_INCH * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(words, letters)), fontsize=9, x=0.01, ha="left", color="0.3")


def add(figure: Figure, words: str) -> None:
    """Say something more in the caption of a figure."""
    caption(figure, f"{' '.join(figure.get_supxlabel().split())} {words}".strip())


def draw(name: str, figure: Figure, *paths: Path) -> None:
    """Write a study's figure to files, in the format that each name says. Equal figures make equal files."""
    mpl.use("Agg")
    with mpl.rc_context({"svg.hashsalt": name}):
        for path in paths:
            buffer = io.BytesIO()
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(buffer, format=path.suffix[1:], dpi=160, bbox_inches="tight", metadata=metadata)
            write_whole(path, buffer.getvalue())
