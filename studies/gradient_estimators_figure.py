"""The figure of `gradient_estimators`, from rows alone. Signal to noise; variance; training by each estimator."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.gradient_estimators import DRAWS, EXPECTED_SLOPES, PLAIN, TRAINED, offsets, series, slope_of
from studies.kit.figures import MARKERS, PALETTE, caption, panels


def gradient_estimators_figure(df: pd.DataFrame) -> Figure:
    """Signal to noise against K; variance against the distance from the posterior; the gap along training."""
    with panels(3, width=16) as (drawn, (left, middle, right)):
        _ratios(left, df)
        _variances(middle, df)
        _trainings(right, df)
        near, far = offsets(df)
        powers = {key: slope_of(df, near, *key).mean() for key in EXPECTED_SLOPES}
        lost = df[(df["part"] == "training") & (df["estimator"] == "wrong")]
        words = (
            f"Importance weighting costs the encoder its signal, K^({powers['importance weighted', 'phi']:.2f}), and "
            f"gives it to the decoder, K^({powers['importance weighted', 'theta']:.2f}); doubly reparametrised, the "
            f"encoder's grows too, K^({powers['doubly reparametrised', 'phi']:.2f}), near the posterior (solid, offset "
            f"{near}) but not far from it (dashed, {far}). The wrong gradient has the least noise and the wrong "
            f"limit: the prior, {lost['last_gap'].mean():.1f} nats below log p(x). Linear VAE; "
            f"{int(df['repeats'].max()):,} gradients each; medians and ranges over {df['seed'].nunique()} seeds."
        )
        caption(drawn, words)
    return drawn


def _line(
    axes: Axes, rows: pd.DataFrame, columns: tuple[str, str], index: int, label: str | None, dashed: bool = False
) -> None:
    found = rows.groupby(columns[0])[columns[1]].agg(["median", "min", "max"])
    errors = [found["median"] - found["min"], found["max"] - found["median"]]
    axes.errorbar(
        found.index, found["median"], errors, color=PALETTE[index], marker=MARKERS[index], markersize=5, capsize=2,
        linestyle="--" if dashed else "-", label=label,
    )  # fmt: skip


def _ratios(axes: Axes, df: pd.DataFrame) -> None:
    lines = (
        ("importance weighted", "theta", "decoder, weighted bound"),
        ("doubly reparametrised", "phi", "encoder, doubly reparametrised"),
        ("importance weighted", "phi", "encoder, importance weighted"),
    )
    for index, (name, part, label) in enumerate(lines):
        for offset in offsets(df):
            rows = df[(df["estimator"] == name) & (df["offset"] == offset) & (df["part"] == "quality")]
            far = offset == max(offsets(df))
            _line(axes, rows, ("draws", f"{part}_snr"), index, None if far else label, far)
    axes.set(xscale="log", yscale="log", xlabel="draws K", ylabel="signal-to-noise ratio of the gradient")
    axes.set_ylim(top=3e3)
    axes.set_title("Signal to noise", loc="left", fontweight="bold")
    axes.legend(loc="upper left")


def _variances(axes: Axes, df: pd.DataFrame) -> None:
    rows = df[(df["part"] == "quality") & (df["offset"] > 0)]
    for index, name in enumerate(PLAIN[:-1]):
        _line(axes, rows[rows["estimator"] == name], ("offset", "phi_variance"), index, name)
    axes.set(xscale="log", yscale="log", xlabel="offset of the encoder from the posterior")
    axes.set_ylabel(f"variance of its gradient, K = {DRAWS}")
    axes.set_ylim(top=3e6)
    axes.set_title("ELBO, unbiased estimators", loc="left", fontweight="bold")
    axes.legend(loc="upper left")


def _trainings(axes: Axes, df: pd.DataFrame) -> None:
    rows = df[df["part"] == "training"]
    colors = {"leave-one-out": 1, "reparametrised": 2, "sticking the landing": 4, "wrong": 7}
    for name in TRAINED:
        of = rows[rows["estimator"] == name]
        steps = series(of["steps"].iloc[0])
        gaps = np.stack([series(cell) for cell in of["gaps"]]).clip(1e-9)
        color, marker = PALETTE[colors[name]], MARKERS[colors[name]]
        axes.fill_between(1 + steps, gaps.min(0), gaps.max(0), color=color, alpha=0.2, linewidth=0)
        label = "wrong: ∇φ moved inside E_q" if name == "wrong" else name
        axes.plot(1 + steps, np.median(gaps, 0), color=color, marker=marker, markersize=5, label=label)
    axes.set(xscale="log", yscale="log", xlabel="1 + steps of Adam", ylabel="log p(x) − ELBO, nats")
    axes.set_ylim(1e-7, 100)
    axes.set_title("Training the encoder", loc="left", fontweight="bold")
    axes.legend(loc="lower left")
