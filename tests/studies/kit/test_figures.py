"""Figures of all studies: what a line with ranges shows."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from studies.kit.figures import PALETTE, add, caption, panels, ranges


def test_bars_go_from_the_least_to_the_most_through_the_median() -> None:
    rows = pd.DataFrame({"draws": [1, 1, 1, 4, 4, 4], "value": [3.0, 1.0, 2.0, 5.0, 5.0, 9.0]})
    with panels(1) as (_, (axes,)):
        ranges(axes, rows, "draws", "value", 2, "some", "--")
    line, *_ = axes.lines
    assert line.get_xydata().tolist() == [[1, 2], [4, 5]]
    assert (line.get_color(), line.get_linestyle()) == (PALETTE[2], "--")
    (bars,) = (found for found in axes.collections if isinstance(found, LineCollection))
    ends = [sorted(y for _, y in path.vertices) for path in bars.get_paths()]
    assert ends[0] == pytest.approx([1, 3])
    assert ends[1] == pytest.approx([5, 9])


def test_a_caption_can_be_added_to() -> None:
    with panels(1, width=3) as (figure, _):
        caption(figure, "An answer that takes more than one line of so narrow a figure.")
    add(figure, "Dequantised columns: 2, 3.")
    words = " ".join(figure.get_supxlabel().split())
    assert words == "An answer that takes more than one line of so narrow a figure. Dequantised columns: 2, 3."
