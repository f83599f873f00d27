"""What is left of data in two, four or eight latent dimensions: PPCA, VAE and flow as projections?

Claim: PPCA keeps the directions of largest variance, a VAE bends them and keeps more neighbourhoods and classes in two
    dimensions. A flow keeps everything, since it is a bijection, but in all D dimensions: its latent is whitened, no
    few of its directions stand out, and projected to them it loses what PPCA keeps.

Paper: Venna & Kaski 2001 for trustworthiness; Tipping & Bishop 1999; the lecture's slide on latent spaces.

Command: python -m studies.latent_space

Run time: 2 minutes on one core (--quick: 20 seconds)

Expected: on digits, seed 0, % of 359 test images ± standard error.

    =======================  ==========  =====================  ===============  ===========
    projection               dimensions  classes by neighbours  trustworthiness  continuity
    =======================  ==========  =====================  ===============  ===========
    all columns of the data  64          96.1 ± 1.0             100.0 ± 0.0      100.0 ± 0.0
    PPCA                     2           51.8 ± 2.6             79.4 ± 0.7       91.7 ± 0.3
    VAE                      2           71.0 ± 2.4             90.4 ± 0.5       93.7 ± 0.4
    flow                     2           25.9 ± 2.3             63.8 ± 0.8       72.2 ± 0.7
    PPCA                     8           91.1 ± 1.5             97.3 ± 0.2       98.4 ± 0.1
    VAE                      8           95.3 ± 1.1             98.1 ± 0.1       98.0 ± 0.1
    flow                     8           50.7 ± 2.6             76.6 ± 0.7       82.7 ± 0.6
    flow                     64          89.4 ± 1.6             87.8 ± 0.4       91.3 ± 0.4
    =======================  ==========  =====================  ===============  ===========

Answer: confirmed. In two dimensions the VAE keeps 71 % of classes to PPCA's 52 %; by eight they nearly meet. A flow
    loses no information, and yet even its whole latent keeps fewer neighbourhoods and classes than eight axes of PPCA:
    made independent and equally wide, all directions count alike, those of noise too. Likelihood asks for no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, get_args

from studies.kit import old as kit
from studies.kit.errors import InputError
from studies.kit.old import OF_THE_RUN, CommonSettings, quick

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

    from studies.data.load import Dataset
    from studies.kit.rows import Row
    from studies.latent_space_models import Found

ModelName = Literal["ppca", "vae", "flow"]
LABELS = {"data": "all columns of the data", "ppca": "PPCA", "vae": "VAE", "flow": "flow"}
SIGMAS = 4


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    models: tuple[ModelName, ...] = field(default=get_args(ModelName), metadata=OF_THE_RUN)
    """Which projections to make."""
    dimensions: tuple[int, ...] = field(default=(2, 4, 8), metadata=OF_THE_RUN)
    """Numbers of latent dimensions; 2 is drawn."""
    neighbours: int = 7
    """Nearest neighbours that count as a neighbourhood, and that vote for a class."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of hidden layers, encoder and decoder."""
    epochs: int = field(default=200, metadata=quick(15))
    """Passes over the training rows, at most."""
    patience: int = 30
    """Epochs without improvement on held-out training rows before a fit stops."""
    batch_size: int = 128
    """Rows in a gradient step."""
    learning_rate: float = field(default=1e-3, metadata=quick(4e-3))
    """Of Adam, falling to 0 along half a cosine."""
    flow_layers: int = 6
    """Steps of activation norm, LU layer and affine coupling."""
    flow_hidden: tuple[int, ...] = (64,)
    """Widths of hidden layers, couplings."""

    def check(self) -> None:
        super().check()
        if not self.models or len(set(self.models)) < len(self.models):
            raise InputError(f"--models expects different models; got {' '.join(self.models) or 'none'}")
        if not self.dimensions or len(set(self.dimensions)) < len(self.dimensions) or min(self.dimensions) < 1:
            raise InputError(f"--dimensions expects different numbers from 1 up; got {self.dimensions}")
        for name in ("neighbours", "epochs", "patience", "batch_size", "learning_rate", "flow_layers"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}")

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        known = rows["dimensions"].isin(self.dimensions) | (rows["dimensions"] == rows["features"])
        return super().selected(rows[rows["model"].isin(("data", *self.models)) & known])


def compute(settings: Settings) -> Iterator[kit.Task]:
    """A row for the data itself, for every model and number of dimensions, and for the flow with all of them."""
    for seed in settings.seeds:
        data = settings.load(seed)
        if max(settings.dimensions) >= data.features:
            raise InputError(f"'{data.name}' has {data.features} columns; choose fewer --dimensions")
        key: Row = {"data": data.name, "data_hash": data.hash, "seed": seed}
        found = cache(partial(_prepared, settings, data, seed))
        for model in ("data", *settings.models):
            whole = (data.features,) if model in ("data", "flow") else ()
            few = settings.dimensions if model != "data" else ()
            for dimensions in (*few, *whole):
                path = settings.folder("latent_space") / "points" / (
                    f"{model}-{dimensions}-{seed}-{data.hash[:8]}-{settings.digest}.npz"
                )  # fmt: skip
                work = partial(_judge, found, model, dimensions, path)
                label = f"{model}, {dimensions} dimensions, seed {seed}"
                yield kit.Task({**key, "model": model, "dimensions": dimensions}, work, label, output=path)


def _prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    from studies import latent_space_models

    return latent_space_models.prepared(settings, data, seed)


def _judge(found: Callable[[], Found], model: str, dimensions: int, path: Path) -> Row:
    from studies import latent_space_models

    return latent_space_models.judge(found(), model, dimensions, path)


def figure(df: pd.DataFrame) -> Figure:
    """Above, test points in two dimensions; below, classes and neighbourhoods kept by number of dimensions."""
    from studies.latent_space_figure import space_figure

    return space_figure(df, words(df))


def averaged(df: pd.DataFrame) -> pd.DataFrame:
    """One row a model and number of dimensions, mean over seeds; errors are those of the mean."""
    numbers = df.groupby(["model", "dimensions"]).mean(numeric_only=True)
    for name in numbers.columns[numbers.columns.str.endswith("_error")]:
        squares = df.groupby(["model", "dimensions"])[name].apply(lambda e: float((e**2).sum() ** 0.5))
        numbers[name] = squares / df["seed"].nunique()
    return numbers.reset_index()


def table(df: pd.DataFrame) -> Group:
    """Classes and neighbourhoods kept by every projection."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = averaged(df)
    shown = Table(title="What projections keep, test points, % ± standard error", title_justify="left")
    for name in ("", "dimensions", "classes by neighbours", "trustworthiness", "continuity"):
        shown.add_column(name, justify="right" if name else "left")
    for model in LABELS:
        for _, row in rows[rows["model"] == model].iterrows():
            cells = []
            for name in ("classes", "trustworthiness", "continuity"):
                known = row[name] == row[name]
                cells.append(f"{100 * row[name]:.1f} ± {100 * row[f'{name}_error']:.1f}" if known else "no labels")
            shown.add_row(LABELS[model], f"{row['dimensions']:g}", *cells)
    return Group(shown, Text(words(df)))


def words(df: pd.DataFrame) -> str:
    """The answer from the rows."""
    rows = averaged(df)
    least = rows[(rows["dimensions"] == rows["dimensions"].min()) & (rows["model"] != "data")]
    name = "classes" if rows["classes"].notna().any() else "trustworthiness"
    parts = [
        f"{LABELS[row['model']]} {100 * row[name]:.1f} ± {100 * row[f'{name}_error']:.1f} %"
        for _, row in least.iterrows()
    ]
    found = f"In {rows['dimensions'].min():g} dimensions, {name} kept: {', '.join(parts)}."
    whole = rows[(rows["model"] == "flow") & (rows["dimensions"] == rows["features"])]
    if len(whole):
        one = whole.iloc[0]
        found += f" The flow in all {one['features']:g}: {100 * one[name]:.1f} ± {100 * one[f'{name}_error']:.1f} %."
    return found


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """The VAE keeps more than PPCA in two dimensions, and few directions of a flow keep less."""
    found = []
    rows = averaged(df).set_index(["model", "dimensions"])
    fewest = df["dimensions"].min()
    enough = bool((df["epochs"].dropna() >= ENOUGH_EPOCHS).all())  # a small run is not trained to its optimum
    for name, words in (("classes", "classes"), ("trustworthiness", "neighbourhoods")):
        if rows[name].notna().any() and enough:
            for better, worse in (("vae", "ppca"), ("ppca", "flow")):
                if (better, fewest) in rows.index and (worse, fewest) in rows.index:
                    a, b = rows.loc[(better, fewest)], rows.loc[(worse, fewest)]
                    apart = a[name] - b[name] > SIGMAS * (a[f"{name}_error"] ** 2 + b[f"{name}_error"] ** 2) ** 0.5
                    sentence = f"in {fewest:g} dimensions {LABELS[better]} keeps more {words} than {LABELS[worse]}"
                    found.append(kit.Check(f"{sentence}, by 4 standard errors", bool(apart)))
    if "round_trip" in df and df["round_trip"].notna().any():
        worst = df["round_trip"].max()
        found.append(
            kit.Check(
                f"the flow can be inverted: x comes back within {ROUND_TRIP:g} of a feature's spread",
                bool(worst < ROUND_TRIP),
            )
        )
    return found


ENOUGH_EPOCHS = 100
ROUND_TRIP = 1e-2  # single precision through some ten layers, at the worst of all test points


STUDY = kit.Study("latent_space", __doc__, Settings, ("model", "dimensions"), compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
