"""The figure of `decomposition`, from its rows and pictures alone: torch is never loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.kit.figures import PALETTE, caption, panels

BLUE, ORANGE, GREEN, RED = PALETTE[:4]
QS = {"encoder": ORANGE, "best independent": GREEN, "best Gaussian": RED}


def decomposition_figure(df: pd.DataFrame, words: str) -> Figure:
    """Above: both paths, and three trainings. Below: posteriors on the latent plane with their Gaussians."""
    from studies.decomposition import averaged

    with panels(3, 2, width=13) as (figure, axes):
        for each, part in zip(axes[:2], ("PPCA", "VAE"), strict=True):
            _path(each, averaged(df, part), part)
        _learning(axes[2], averaged(df, "learning"))
        _posteriors(axes[3:], Path(df.loc[df["part"] == "gaussians", "points"].iloc[0]))
        caption(figure, words)
    return figure


def _path(axes: Axes, rows: pd.DataFrame, part: str) -> None:
    axes.plot(rows["t"], rows["log_p"], color=BLUE, linewidth=2, label="log p(x)")
    axes.plot(rows["t"], rows["elbo"], color=ORANGE, linewidth=2, marker="o", markersize=4, label="ELBO")
    axes.fill_between(rows["t"], rows["elbo"], rows["log_p"], color=ORANGE, alpha=0.2, label="KL(q ‖ posterior)")
    axes.set(xlabel="t of q ∝ prior^(1 − t) · posterior^t", ylabel="nats per point")
    axes.set_title(f"{part}: from prior to posterior", loc="left", fontweight="bold")
    axes.legend(loc="lower right")


def _learning(axes: Axes, rows: pd.DataFrame) -> None:
    for height, (_, row) in enumerate(rows.iterrows()):
        axes.plot(
            [row["elbo"], row["log_p"]], [height, height], color="0.8", linewidth=6, solid_capstyle="butt", zorder=0
        )
        axes.errorbar(row["log_p"], height, xerr=row["log_p_error"], fmt="o", color=BLUE, capsize=3, markersize=7)
        axes.errorbar(row["elbo"], height, xerr=row["elbo_error"], fmt="s", color=ORANGE, capsize=3, markersize=7)
        if height:
            change = f"{row['gain']:+.2f} ± {row['gain_error']:.2f}"
            axes.text(row["log_p"], height + 0.2, f"log p(x) {change}", ha="center", fontsize=10)
    axes.set_yticks(range(len(rows)), rows["label"])
    axes.set(xlabel="nats per test point, ± standard error", ylim=(-0.6, len(rows) - 0.3))
    axes.set_title("The decoder trained by …", loc="left", fontweight="bold")
    handles = [
        Line2D([], [], marker="o", color=BLUE, linestyle="", label="log p(x)"),
        Line2D([], [], marker="s", color=ORANGE, linestyle="", label="ELBO"),
    ]
    axes.legend(handles=handles, loc="lower left")


def _posteriors(panels: list[Axes], path: Path) -> None:
    legend = panels[2]
    legend.set_axis_off()
    handles: list[Any] = [Line2D([], [], color="0.35", linewidth=6, label="true posterior")]
    handles += [Line2D([], [], color=colour, linewidth=2, label=f"q: {name}") for name, colour in QS.items()]
    legend.legend(handles=handles, loc="upper left", title="ellipses: 1 and 2 standard deviations", alignment="left")
    if not path.exists():
        for axes in panels[:2]:
            axes.set_axis_off()
        return
    with np.load(path) as file:
        for number, axes in enumerate(panels[:2]):
            if f"density{number}" not in file:
                axes.set_axis_off()
                continue
            x, y, density = file[f"x{number}"], file[f"y{number}"], file[f"density{number}"]
            axes.pcolormesh(x, y, density.T, cmap="Greys", rasterized=True, vmax=1.2 * density.max())
            for name, colour in QS.items():
                turn = np.linspace(0, 2 * np.pi, 200)
                circle = np.stack([np.cos(turn), np.sin(turn)])
                for radius in (1, 2):
                    line = file[f"{name} mean{number}"][:, None] + radius * file[f"{name} factor{number}"] @ circle
                    axes.plot(*line, color=colour, linewidth=1.8 / radius)
            axes.set(xlabel="first latent", ylabel="second latent", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
            axes.grid(visible=False)
            axes.set_aspect("equal")
            short = float(file[f"short{number}"])
            axes.set_title(f"The encoder pays {short:.2f} nats here", loc="left", fontweight="bold")
