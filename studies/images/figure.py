"""The figure of `images`: bits and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.images.standings import LABELS, sets, standings
from studies.kit.figures import PALETTE, a_line_each

GAP = 2  # pixels between pictures


def drawn(rows: pd.DataFrame, answer: str) -> Figure:
    """A line of panels for each set of images: bits of every model, the naive column, pictures."""
    return a_line_each(sets(rows), (_masses, _naive, _pictures), rows, answer, width=15, height=5.4)


def _masses(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    every = standings(rows, data)
    for height, each in enumerate(every):
        first = height == 0
        axes.plot([each.bits - max(each.width, 0), each.bits], [height, height], color=PALETTE[0], alpha=0.4, lw=5,
                  solid_capstyle="butt", label="as loose as on its own images" if first else None)  # fmt: skip
        axes.errorbar(each.bits, height, xerr=each.bits_error, fmt="<", color=PALETTE[0], markersize=8, capsize=3,
                      label="at most" if first else None)  # fmt: skip
    _one_line_a_model(axes, [each.label for each in every])
    axes.set_xlabel("bits per dimension of the mass, ± standard error", fontsize=11)
    axes.set_title(f"{data}: bits of a test image", loc="left", fontweight="bold", fontsize=12)
    axes.legend(loc="lower left", ncols=2, columnspacing=1, handletextpad=0.4)


def _naive(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    """In the order of the masses: what a table without kinds and measures says."""
    every = standings(rows, data)
    for kind, marker, colour in (("density of pixels in [0, 1]", "D", PALETTE[3]), ("ELBO, a mass", "s", PALETTE[2])):
        known = [(each.naive_bits, height) for height, each in enumerate(every) if each.adds_noise is (marker == "D")]
        if known:
            axes.plot(*zip(*known, strict=True), marker, color=colour, markersize=7, label=kind)
    _one_line_a_model(axes, [""] * len(every))
    axes.set_xlabel("what one column would say: “bits”", fontsize=11)
    axes.set_title("The naive column", loc="left", fontweight="bold", fontsize=12)
    axes.legend(loc="lower left", ncols=2, columnspacing=1, handletextpad=0.4)


def _one_line_a_model(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) + 0.5, -0.6)  # room for the legend
    axes.grid(axis="y", visible=False)


def _pictures(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    """Rows of pictures: test images, their reconstructions by models with latents, draws of every model."""
    axes.set_title("Images, reconstructions, draws", loc="left", fontweight="bold", fontsize=12)
    shown = rows[rows["versus"].isna() & (rows["data"] == data)].sort_values("seed").drop_duplicates("model")
    lines: dict[str, NDArray[Any]] = {}
    for row in shown.to_dict("records"):
        path, label = Path(str(row["points"])), LABELS[str(row["model"])]
        if not path.exists():
            continue
        with np.load(path) as arrays:
            lines.setdefault("test images", arrays["originals"])
            if arrays["reconstructed"].size:
                lines[f"{label}: reconstructed"] = arrays["reconstructed"]
            lines[label] = arrays["samples"]
    if not lines:
        axes.set_axis_off()
        return
    height, width = next(iter(lines.values())).shape[-2:]
    stack = np.concatenate([_side_by_side(images, height, width) for images in lines.values()])
    axes.imshow(stack, cmap="gray_r", vmin=0, vmax=1, interpolation="none", aspect="equal")
    axes.set_yticks([(height + GAP) * line + height / 2 for line in range(len(lines))], list(lines), fontsize=8)
    axes.set_xticks([])
    axes.grid(visible=False)


def _side_by_side(images: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Images ``[n, H, W]`` in a row, with a gap below and between."""
    padded = np.pad(images, ((0, 0), (0, GAP), (0, GAP)))
    return np.concatenate(list(padded), axis=1)
