"""The figure of `flow_layers`, from its rows alone: torch is never loaded."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from studies.kit.figures import MARKERS, PALETTE, caption, panels


def layers_figure(df: pd.DataFrame, words: str) -> Figure:
    """log p(x) of both comparisons, and what density and sample cost."""
    from studies.flow_layers import LABELS, averaged

    titles = {"between": "Before each affine coupling", "kind": "After LU and ActNorm"}
    with panels(2, 2, width=13) as (figure, axes):
        for number, (part, title) in enumerate(titles.items()):
            rows = averaged(df, part)
            _likelihood(axes[number], rows, title, LABELS)
            _speed(axes[2 + number], rows, LABELS)
        caption(figure, words)
    return figure


def _likelihood(axes: Axes, rows: pd.DataFrame, title: str, labels: dict[str, str]) -> None:
    for place, (_, row) in enumerate(rows.iterrows()):
        axes.errorbar(
            row["log_p"], place, xerr=row["log_p_error"], color=PALETTE[place], marker=MARKERS[place], capsize=3,
            markersize=8,
        )  # fmt: skip
        if row["gain"] == row["gain"]:
            words = f"{row['gain']:+.2f} ± {row['gain_error']:.2f}"
            axes.text(row["log_p"], place + 0.17, words, ha="center", fontsize=10)
    axes.set_yticks(range(len(rows)), [labels[str(name)] for name in rows.index])
    label = "log p(x), nats per test point, ± standard error\n(numbers: gain over the lowest row, paired)"
    axes.set(xlabel=label, ylim=(-0.5, len(rows) - 0.3))
    axes.set_title(title, loc="left", fontweight="bold")


def _speed(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    for place, (name, row) in enumerate(rows.iterrows()):
        axes.plot(
            row["density_us"], row["sample_us"], color=PALETTE[place], marker=MARKERS[place], markersize=9,
            linestyle="", label=labels[str(name)],
        )  # fmt: skip
    low = 0.7 * rows[["density_us", "sample_us"]].min().min()
    high = 1.5 * rows[["density_us", "sample_us"]].max().max()
    axes.plot([low, high], [low, high], color="0.7", linestyle="--", linewidth=1, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set(xlabel="density, µs per point (dashed: equal)", ylabel="sample, µs per point")
    axes.set_title("Speed, one thread, batches of 512", loc="left", fontweight="bold")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.legend(fontsize=9.5, loc="upper right")
