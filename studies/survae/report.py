"""What the rows of `survae`, and the grids beside them, say: table, checks and figure."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from significance import Decision, Kind, Verdict, decisions, in_words, joint, over_seeds
from studies.data.survae_patterns import toys
from studies.kit.figures import caption
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, least_points, with_error
from studies.literature import Known
from studies.survae.settings import Settings

RECALLED = {
    "checkerboard": {"flow": 3.65, "abs-flow": 3.49},
    "corners": {"flow": 3.19, "abs-flow": 3.03},
    "eight-gaussians": {"flow": 3.01, "abs-flow": 2.86},
    "circles": {"flow": 3.44, "abs-flow": 2.99},
}
LABELS = {
    "flow": "flow",
    "abs-flow": "absolute values, flow",
    "sort-flow": "sort, flow",
    "permute-flow": "random permutation, flow",
}
WITHIN = 0.25
FINE = 100  # cells of a picture along a side, at the most
ENOUGH_ROWS = 100_000


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the toys of these settings."""
    return rows[rows["toy"].isin(settings.toys)]


def parts(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of models, and those of pairs of models."""
    alone = rows["versus"].isna()
    return rows[alone], rows[~alone]


def table(rows: pd.DataFrame) -> Group:
    """Nats of every model beside the entropy and what the paper is recalled to say."""
    models, pairs = parts(rows)
    numbers = ("entropy", "−log p(x)", "above the truth", "published", "parameters", "seconds")
    title = "−log p(x) of test points, nats a point; the entropy is its least mean"
    shown = empty(title, ("toy", "model"), numbers)
    shown.add_column("kind", no_wrap=True)
    shown.add_column("published, read", no_wrap=True)
    for _, row in models.iterrows():
        recalled = RECALLED.get(row["toy"], {}).get(row["model"])
        bound = "≤ " if row["kind"] == "lower bound" else ""  # of log p(x): an upper bound on this
        shown.add_row(
            row["toy"],
            LABELS[row["model"]] + (f", seed {row['seed']}" if rows["seed"].nunique() > 1 else ""),
            f"{row['entropy']:.3f}",
            f"{bound}{row['nats']:.3f} ± {row['standard_error']:.3f}",
            f"{bound}{row['excess']:.4f} ± {row['excess_error']:.4f}",
            "" if recalled is None else f"{recalled:.2f}",
            f"{int(row['parameters'])}",
            f"{row['seconds']:.0f}",
            row["kind"],
            "" if recalled is None else Known.RECALLED.value,
        )
    lines = [
        f"{row['toy']}: {LABELS[row['model']]} is {'better' if row['excess'] <= 0 else 'worse'} than the flow alone by "
        f"{abs(row['excess']):.3f} ± {row['excess_error']:.3f} nats (paired)"
        for _, row in pairs.iterrows()
    ]
    decided = {f"{toy}, {LABELS[model]}": each for (toy, model), each in gains(rows).items()}
    return Group(shown, Text("\n".join([*lines, in_words(decided)])))


def gains(rows: pd.DataFrame) -> dict[tuple[str, str], Decision]:
    """What surjections gain on the flow, by toy and model: paired, all decided together by Holm."""
    models, pairs = parts(rows)
    return decisions(
        {
            (toy, model): over_seeds(-of["excess"], of["excess_error"], least_points(of), kind=kind)
            for (toy, model), kind in kinds(models).items()
            if len(of := pairs[(pairs["toy"] == toy) & (pairs["model"] == model)])
        }
    )


def excesses(rows: pd.DataFrame) -> dict[tuple[str, str], Decision]:
    """How far each model is above the entropy, a sign and no comparison; of all models together by Holm."""
    models, _ = parts(rows)
    return decisions(
        {
            (toy, model): over_seeds(of["excess"], of["excess_error"], least_points(of), kind=kind.flipped())
            for (toy, model), kind in kinds(models).items()
            if len(of := models[(models["toy"] == toy) & (models["model"] == model)])
        }
    )


def kinds(models: pd.DataFrame) -> dict[tuple[str, str], Kind]:
    """How log p(x) is known, by toy and model, in the order of the rows."""
    groups = models.groupby(["toy", "model"], sort=False)
    return {(str(toy), str(model)): joint(map(Kind, of["kind"])) for (toy, model), of in groups}


def checks(rows: pd.DataFrame) -> list[Check]:
    """None below the entropy; of a whole run, tight surjections within 0.25 nats of it and better than the flow."""
    found = []
    whole = bool((rows["train_rows"].dropna() >= ENOUGH_ROWS).all())
    for (toy, model), decision in excesses(rows).items():
        who, excess = f"{toy}, {LABELS[model]}", decision.fitted.mean
        claim = f"{who}: not below the entropy, by Holm at 5 % ({excess:+.4f} nats)"
        found.append(Check(claim, decision.of_all is not Verdict.SECOND))
        if whole and model in ("abs-flow", "sort-flow"):
            found.append(Check(f"{who}: within {WITHIN} nats of the entropy ({excess:.3f})", excess <= WITHIN))
    for (toy, model), decision in gains(rows).items():
        if whole:
            size = f"{with_error(decision.fitted.mean, decision.fitted.error)} nats"
            found.append(Finding.of(f"{toy}, {LABELS[model]}: better than the flow", decision, size))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """A column for each toy in the plane: densities of the truth, of the flow, of the flow after absolute values."""
    models, _ = parts(rows)
    models = models[models["seed"] == models["seed"].iloc[0]]
    plane = [toy for toy in RECALLED if toy in set(models["toy"])]
    with mpl.rc_context(dict(sns.plotting_context("notebook"))):  # type: ignore[arg-type]
        drawn = Figure(figsize=(3.2 * max(1, len(plane)), 9.6), layout="constrained")
        panels: Any = drawn.subplots(3, max(1, len(plane)), squeeze=False)
        for column, toy in zip(panels.T, plane, strict=False):
            _densities(column, toy, models[models["toy"] == toy].set_index("model").to_dict("index"))
        for axes in panels[:, 0]:
            axes.set_ylabel("second feature", fontsize=9)
        for axes in panels[-1]:
            axes.set_xlabel("first feature", fontsize=9)
        if plane:
            caption(drawn, _answer(models[models["toy"].isin(plane)]))
        else:
            for axes in panels.flat:
                axes.set_axis_off()
    return drawn


def _densities(column: list[Axes], toy: str, rows: dict[Any, dict[Any, Any]]) -> None:
    grids = {}
    for model in ("flow", "abs-flow"):
        with np.load(rows[model]["points"]) as file:
            grids[f"{LABELS[model]}, {rows[model]['nats']:.3f}"] = file["grid"]
    axis = np.linspace(-4.2, 4.2, len(next(iter(grids.values()))))
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2) + 1e-4
    truth = np.exp(toys()[toy].log_density(nodes)).reshape(len(axis), len(axis))
    titles = {f"{toy}: truth, {rows['flow']['entropy']:.3f} nats": truth, **grids}
    for axes, (title, grid) in zip(column, titles.items(), strict=True):
        step = 1 + len(axis) // FINE
        edges = (axis[0], axis[-1], axis[0], axis[-1])
        axes.imshow(
            grid.T[::step, ::step],
            vmin=0,
            vmax=truth.max(),
            cmap="magma",
            origin="lower",
            extent=edges,
            interpolation="none",
        )
        axes.set_facecolor("black")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_aspect("equal")
        axes.set_xticks([-4, 0, 4])
        axes.set_yticks([-4, 0, 4])
        axes.tick_params(labelsize=8, length=2)


def _answer(models: pd.DataFrame) -> str:
    """What the panels show, and how far the models are from the truth."""
    above = {
        name: f"{rows['excess'].min():.3f} to {rows['excess'].max():.3f} (± at most {rows['excess_error'].max():.3f})"
        for name, rows in models.groupby("model")
    }
    return (
        "Densities, black 0 to yellow the truth's largest in each column. Numbers: entropy of the truth; −log p(x) of "
        f"test points, nats a point. Above the entropy: flow {above['flow']}; absolute values before it "
        f"{above['abs-flow']}."
    )
