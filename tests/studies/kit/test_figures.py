"""Figures of all studies: what a line with ranges shows."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from studies.kit.figures import PALETTE, add, caption, caption_in, draw, legend_below, panels, ranges, title_in


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


def test_an_svg_has_its_caption_as_a_text_and_all_that_it_refers_to(tmp_path: Path) -> None:
    with panels(1, width=4) as (figure, (axes,)):
        axes.errorbar([1, 2], [-1.0, -2.5], [0.1, 0.2], marker=">", capsize=3, label="a bound")
        axes.text(1, -2, "-0.5 ± 0.1 to 3e-15")
        legend_below(axes, 1)
        caption(figure, "An answer < 1 of -2.5 nats, that takes more than one line of so narrow a figure.")
    draw("name", figure, tmp_path / "figure.svg", tmp_path / "figure.png", about="name on data. Bounds.")
    text = (tmp_path / "figure.svg").read_text()
    assert html.unescape(caption_in(text)).startswith("An answer < 1 of −2.5 nats, that takes more than one line")
    assert title_in(text) == "name on data. Bounds."
    assert "−0.5 ± 0.1 to 3·10⁻¹⁵" in text.partition("</metadata>")[2]
    assert "An answer" not in text.partition("</metadata>")[2]
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert referred  # markers and clips
    assert referred <= set(re.findall(r' id="([^"]+)"', text))
    assert not re.search(r"<[^>]+\d\.\d{2,}", text.partition("</metadata>")[2])
    assert " ".join(figure.get_supxlabel().split()).startswith("An answer")  # which a PNG shows
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
