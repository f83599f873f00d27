"""Rows of a benchmark as a picture: how many times as long as ours each contestant takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.timing import Row

MARKERS = "osD^vPX*"


def plot(rows: Sequence[Row], path: Path) -> None:
    """A line for each job, on a CPU a panel for each number of threads; right of 1 ours is faster."""
    rows = [row for row in rows if row.rounds]
    threads = sorted({row.threads for row in rows})
    jobs = list(dict.fromkeys((row.job, row.dtype) for row in rows))
    names = [name for name in dict.fromkeys(row.contestant for row in rows) if name != "ours"]
    colours = sns.color_palette("colorblind", len(names))
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(9 + 5 * len(threads), 3 + 0.38 * len(jobs)), layout="constrained")
        panels = figure.subplots(1, len(threads), sharey=True, sharex=True, squeeze=False)[0]
    for axes, count in zip(panels, threads, strict=True):
        for number, name in enumerate(names):
            shown = [row for row in rows if row.contestant == name and row.threads == count]
            heights = [jobs.index((row.job, row.dtype)) + 0.08 * (number - len(names) / 2) for row in shown]
            axes.plot([row.ratio for row in shown], heights, MARKERS[number % len(MARKERS)], color=colours[number],
                      label=name, markersize=6)  # fmt: skip
        axes.axvline(1, color="0.3", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        title = f"{count} thread{'s' if count > 1 else ''}" if rows[0].device == "cpu" else rows[0].device
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("time of a call / ours")
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(jobs)), [f"{job} ({dtype})" for job, dtype in jobs], fontsize=8)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(len(names), 7)), frameon=False)
    machine = "; ".join(dict.fromkeys(row.machine for row in rows))
    figure.suptitle(f"{machine}\ntorch {rows[0].torch_version}; medians over interleaved rounds", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
