"""What the rows of `flow_layers` say: tables, checks and figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich.console import Group
from rich.text import Text

from significance import Decision, decisions, in_words, over_seeds
from studies.flow_layers.settings import REFERENCE, Settings
from studies.kit.figures import MARKERS, PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import averaged, empty, least_points

LABELS = {
    "none": "nothing", "permutation": "permutation", "lu": "LU", "qr": "QR", "lu+actnorm": "LU, ActNorm",
    "affine": "affine coupling", "spline": "spline coupling", "maf": "MAF", "iaf": "IAF",
}  # fmt: skip
TITLES = {"between": "Before each affine coupling", "kind": "After LU and ActNorm"}
ENOUGH_EPOCHS = 100


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of each part, the flows of these settings."""
    return rows[
        ((rows["part"] == "between") & rows["name"].isin(settings.between))
        | ((rows["part"] == "kind") & rows["name"].isin(settings.kinds))
    ]


def of_part(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """One row a flow, in the study's order, mean over seeds, with its gain over the first, NaN where it has none."""
    mine = rows[rows["part"] == part]
    alone, paired = (averaged(of, "name") for of in (mine[mine["versus"].isna()], mine[mine["versus"].notna()]))
    gains = paired.reindex(index=alone.index, columns=["gain", "gain_error"])
    return alone.assign(gain=gains["gain"], gain_error=gains["gain_error"]).loc[
        [name for name in LABELS if name in alone.index]
    ]


def gains(rows: pd.DataFrame) -> dict[tuple[str, str], Decision]:
    """What every flow gains over the first of its part, by part and name: paired, all decided together by Holm."""
    paired = rows[rows["versus"].notna()]
    return decisions(
        {
            (str(part), str(name)): over_seeds(of["gain"], of["gain_error"], least_points(of))
            for (part, name), of in paired.groupby(["part", "name"], sort=False)
        }
    )


def table(rows: pd.DataFrame) -> Group:
    """Both comparisons, with conditioning and speed."""
    given = "" if "given" not in rows or rows["given"].isna().all() else f" | {rows['given'].iloc[0]}"
    about = ("gained", "condition of W", "density, µs a point", "sample, µs a point")
    names = ("parameters", f"log p(x{given}), nats", *about)
    tables = []
    for part, title in TITLES.items():
        shown = empty(f"{title}; test points", [""], (*names, "fit, s"), wrap=True)
        for name, row in of_part(rows, part).iterrows():
            shown.add_row(
                LABELS[str(name)],
                f"{row['parameters']:.0f}",
                f"{row['log_p']:.2f} ± {row['log_p_error']:.2f}",
                "" if name in REFERENCE.values() else f"{row['gain']:+.2f} ± {row['gain_error']:.2f}",
                f"{row['condition']:.1f}" if pd.notna(row["condition"]) else "",
                *(f"{row[time]:.1f}" for time in ("density_us", "sample_us")),
                f"{row['fit_seconds']:.0f}",
            )
        tables.append(shown)
    return Group(*tables, Text(words(rows)))


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    found = []
    for part, sentence in (("between", "over nothing between couplings"), ("kind", "over affine couplings")):
        gained = of_part(rows, part).dropna(subset="gain")
        if len(gained):
            listed = ", ".join(
                f"{LABELS[str(name)]} {row['gain']:+.2f} ± {row['gain_error']:.2f}" for name, row in gained.iterrows()
            )
            found.append(f"Gained {sentence}, nats: {listed}.")
    decided = {LABELS[name]: each for (_, name), each in gains(rows).items()}
    return " ".join([*found, in_words(decided)])


def checks(rows: pd.DataFrame) -> list[Check]:
    """Budgets are equal, and splines gain what is claimed."""
    alone = rows[rows["versus"].isna()]
    sizes = alone.groupby("part")["parameters"].agg(["min", "max"])
    found = [Check("parameters within 5 % of each other", bool((sizes["max"] <= 1.05 * sizes["min"]).all()))]
    if bool((alone["epochs"] >= ENOUGH_EPOCHS).all()):
        first = {"between": "nothing between affine couplings", "kind": "affine couplings"}
        for (part, name), decision in gains(rows).items():
            found.append(Finding.of(f"{LABELS[name]}: more log p(x) than {first[part]}", decision))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """log p(x) of both comparisons, and what density and sample cost."""
    with panels(2, 2, width=13) as (drawn, axes):
        for number, (part, title) in enumerate(TITLES.items()):
            shown = of_part(rows, part)
            _likelihood(axes[number], shown, title)
            _speed(axes[2 + number], shown)
        caption(drawn, words(rows))
    return drawn


def _likelihood(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    for place, (_, row) in enumerate(rows.iterrows()):
        axes.errorbar(
            row["log_p"], place, xerr=row["log_p_error"], color=PALETTE[place], marker=MARKERS[place], capsize=3,
            markersize=8,
        )  # fmt: skip
        if pd.notna(row["gain"]):
            words = f"{row['gain']:+.2f} ± {row['gain_error']:.2f}"
            axes.text(row["log_p"], place + 0.17, words, ha="center", fontsize=10)
    axes.set_yticks(range(len(rows)), [LABELS[str(name)] for name in rows.index])
    label = "log p(x), nats per test point, ± standard error\n(numbers: gain over the lowest row, paired)"
    axes.set(xlabel=label, ylim=(-0.5, len(rows) - 0.3))
    axes.set_title(title, loc="left", fontweight="bold")


def _speed(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (name, row) in enumerate(rows.iterrows()):
        axes.plot(
            row["density_us"], row["sample_us"], color=PALETTE[place], marker=MARKERS[place], markersize=9,
            linestyle="", label=LABELS[str(name)],
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
