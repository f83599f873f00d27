"""Table, figure and checks of `mnist`, from its rows alone: torch is never loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check

LABELS = {
    "vae": "VAE",
    "iwae-5": "IWAE, K = 5",
    "iwae-50": "IWAE, K = 50",
    "flow-posterior": "VAE, flow posterior",
    "flow-prior": "VAE, flow prior",
    "flow-both": "VAE, both flows",
}
PUBLISHED = {"vae": -88.71, "iwae-5": -87.63, "iwae-50": -87.10}  # Burda et al. 2016, by a secondary source
MNIST, TEST_IMAGES = "mnist-binary", 10_000
BAR, NEAR = -91.0, 0.5  # nats: of the CPU preset; of the full preset, to the published numbers
SIGMAS = 2.0


@dataclass(frozen=True)
class Number:
    """A mean with its standard error; ``str`` writes both."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"

    def __add__(self, other: Number) -> Number:
        return Number(self.mean + other.mean, math.hypot(self.error, other.error))


@dataclass(frozen=True)
class Shown:
    """What is known of one fitted model. Bounds and gap are over all its shares of the test images.

    Of a model that was judged on fewer images than the VAE, ``whole`` is the VAE's bound plus their paired difference
    on these: images differ by more than models do, so that it is nearer to the mean over all images than ``bound``.
    ``narrowing`` is by how much the gap is smaller than the VAE's, paired.
    """

    model: str
    seed: int
    images: int
    bound: Number
    whole: Number
    elbo: Number
    gap: Number
    first_gap: Number
    gain: Number | None
    narrowing: Number | None
    sandwich: Number | None
    annealed: Number | None
    active: float
    unreliable: float
    cpu_minutes: float

    @property
    def name(self) -> str:
        return LABELS[self.model] + ("" if self.seed == 0 else f", seed {self.seed}")


def shown(df: pd.DataFrame) -> list[Shown]:
    """One for each model and seed that has bounds, in the order of the labels."""
    found: list[Shown] = []
    for model in LABELS:
        for seed, rows in df[df["model"] == model].groupby("seed"):
            bounds = rows[rows["part"] == "bound"].sort_values("share")
            if bounds.empty:
                continue
            images = int(bounds["test_rows"].sum())
            bound = _over_shares(bounds, "value", "standard_error")
            versus = rows[rows["part"] == "difference"]
            gain = _only(versus, "value", "standard_error")
            wider = _only(versus, "gap", "gap_standard_error")
            plain = next((row for row in found if row.model == "vae" and row.seed == seed), None)
            start = df[(df["model"] == "start") & (df["seed"] == seed)]
            fits = pd.concat([start, rows[rows["part"].isin(("fit", "bound"))]])
            found.append(
                Shown(
                    model,
                    int(str(seed)),
                    images,
                    bound,
                    plain.bound + gain if plain is not None and gain is not None and images < plain.images else bound,
                    _over_shares(bounds, "elbo", "elbo_standard_error"),
                    _over_shares(bounds, "gap", "gap_standard_error"),
                    _over_shares(bounds.head(1), "gap", "gap_standard_error"),
                    gain,
                    None if wider is None else Number(-wider.mean, wider.error),
                    _only(rows[rows["part"] == "sandwich"], "value", "standard_error"),
                    _only(rows[rows["part"] == "sandwich"], "annealed", "annealed_standard_error"),
                    float(bounds["active"].iloc[0]) if "active" in bounds else math.nan,
                    float((bounds["unreliable"] * bounds["test_rows"]).sum() / bounds["test_rows"].sum()),
                    float(fits["cpu_seconds"].sum()) / 60,
                )
            )
    return found


def _over_shares(rows: pd.DataFrame, mean: str, error: str) -> Number:
    """Shares are disjoint, so that their errors are independent."""
    weights = rows["test_rows"] / rows["test_rows"].sum()
    return Number(float((weights * rows[mean]).sum()), math.sqrt(float(((weights * rows[error]) ** 2).sum())))


def _only(rows: pd.DataFrame, mean: str, error: str) -> Number | None:
    known = rows[rows[mean].notna()]
    return None if known.empty else Number(float(known[mean].iloc[0]), float(known[error].iloc[0]))


def bounds_table(df: pd.DataFrame) -> Group:
    """A line for each model in each of two tables; below them, what the numbers say."""
    rows, mnist = shown(df), _is_mnist(df)
    bounds = _table("Test images, nats per image, ± standard error over images")
    for header in ("images", "log p(x) ≥", "all images", "ELBO", "gap", *(["published"] if mnist else [])):
        bounds.add_column(header, justify="right", no_wrap=True)
    others = _table("How far the bound is to be trusted, and beside the VAE on the same images")
    for header in ("sandwich", "above VAE", "gap narrower", "active", "k̂ high", "CPU min"):
        others.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        whole = "" if row.whole is row.bound else f"{row.whole}"
        published = PUBLISHED.get(row.model)
        cells = [f"{row.images}", f"{row.bound}", whole, f"{row.elbo}", f"{row.gap}"]
        bounds.add_row(row.name, *cells, *([f"{published:.2f}" if published else ""] if mnist else []))
        others.add_row(
            row.name,
            *("" if number is None else str(number) for number in (row.sandwich, row.gain, row.narrowing)),
            "" if math.isnan(row.active) else f"{row.active:.0f}",
            f"{row.unreliable:.0%}",
            f"{row.cpu_minutes:.1f}",
        )
    return Group(bounds, others, Text(_words(df)))


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    return table


def _words(df: pd.DataFrame) -> str:
    draws = int(df["draws"].dropna().iloc[0])
    return (
        f"{_answer(df)} log p(x) ≥: importance-weighted bound, {draws:,} draws; all images: of models judged on a "
        "share, the VAE's bound plus their paired difference (above VAE). Gap: the bound less the ELBO, paired; "
        "narrower than the VAE's, paired too. Sandwich: on images simulated from the model, annealing's upper bound "
        "less the weighted one. k̂ high: share of images whose weights have a heavy tail: there the bound is loose. "
        "CPU minutes: start, fit and bounds."
    )


def _answer(df: pd.DataFrame) -> str:
    rows = shown(df)
    most = max(row.images for row in rows)
    best = max((row for row in rows if row.images == most), key=lambda row: row.bound.mean)
    plain = {row.seed: row for row in rows if row.model == "vae"}
    answer = f"{best.name} reaches {best.bound} nats over {best.images:,} test images"
    if best.model in PUBLISHED and _is_mnist(df):
        answer += f"; published, after 3,280 epochs: {PUBLISHED[best.model]:.2f}"
    answer += "."
    for row in [row for row in rows if row.model == "flow-both" and row.seed in plain][:1]:
        other = plain[row.seed].first_gap
        answer += f" With both flows the ELBO's gap is {row.first_gap} nats, the plain VAE's {other}, same images."
    return answer + " All models go on from one VAE. ± standard error."


def _is_mnist(df: pd.DataFrame) -> bool:
    return bool((df["data"] == MNIST).all())


def bounds_figure(df: pd.DataFrame) -> Figure:
    """Bounds beside the published ones; the ELBO's gap; the sandwich."""
    rows = shown(df)
    with panels(3, width=13) as (figure, (left, middle, right)):
        _bounds(left, rows, _is_mnist(df))
        heights = range(len(rows))
        middle.barh(heights, [r.first_gap.mean for r in rows], color=PALETTE[1], height=0.55)
        middle.errorbar(
            [r.first_gap.mean for r in rows], heights, xerr=[r.first_gap.error for r in rows], fmt="none", color="0.2",
            capsize=3,
        )  # fmt: skip
        middle.set(xlabel="log p(x) bound − ELBO, nats")
        middle.set_title("Gap of the ELBO, same images", loc="left", fontweight="bold", fontsize=12)
        for number, (label, marker) in enumerate({"importance-weighted": "o", "annealed": "s"}.items()):
            pairs = [(h, r.annealed if number else r.sandwich) for h, r in enumerate(rows)]
            known = [(h + 0.16 * (2 * number - 1), n) for h, n in pairs if n is not None]
            right.errorbar(
                [n.mean for _, n in known], [h for h, _ in known], xerr=[n.error for _, n in known], fmt=marker,
                color=PALETTE[2 + number], capsize=3, label=label,
            )  # fmt: skip
        right.axvline(0, color="0.4", linewidth=1)
        right.set(xlabel="upper − lower bound, nats")
        right.set_title("Sandwich, simulated images", loc="left", fontweight="bold", fontsize=12)
        right.legend(loc="lower right", ncols=2, columnspacing=1)
        for axes in (left, middle, right):
            axes.set_ylim(len(rows) + 0.1, -0.6)  # room for a legend below
            axes.set_yticks(heights, [row.name for row in rows] if axes is left else [""] * len(rows))
            axes.grid(axis="y", visible=False)
        caption(figure, _answer(df))
    return figure


def _bounds(axes: Axes, rows: list[Shown], mnist: bool) -> None:
    heights = range(len(rows))
    axes.errorbar(
        [r.whole.mean for r in rows], heights, xerr=[r.whole.error for r in rows], fmt=">", color=PALETTE[0],
        markersize=8, capsize=3, label="lower bound, here",
    )  # fmt: skip
    published = [(PUBLISHED[row.model], h) for h, row in enumerate(rows) if row.model in PUBLISHED and mnist]
    if published:
        axes.plot(*zip(*published, strict=True), "D", color=PALETTE[3], markersize=7, label="published")
        axes.legend(loc="lower left", ncols=2, columnspacing=1)
    axes.set(xlabel="mean log p(x) of test images, nats per image")
    axes.set_title("How large is log p(x), at least?", loc="left", fontweight="bold", fontsize=12)


def bars(df: pd.DataFrame) -> list[Check]:
    """The claims, decided on MNIST; of a small run, only that the bounds are in order."""
    found = []
    for row in shown(df):
        ordered = row.gap.mean > -SIGMAS * row.gap.error
        found.append(Check(f"{row.name}: the weighted bound is not below the ELBO ({row.gap} nats)", ordered))
        for name, width in (("weighted", row.sandwich), ("annealed", row.annealed)):
            if width is not None:  # three errors: many models, two widths each
                in_order = width.mean > -3 * width.error
                found.append(Check(f"{row.name}: upper bound not below the {name} one ({width} nats)", in_order))
    return found + (_claims(df) if _is_mnist(df) else [])


def _claims(df: pd.DataFrame) -> list[Check]:
    found, rows = [], shown(df)
    full = not bool((df["device"] == "cpu").any())
    for row in rows:
        if full and row.model in PUBLISHED:
            near = abs(row.bound.mean - PUBLISHED[row.model]) <= NEAR
            claim = f"{row.name}: within {NEAR} nats of the published {PUBLISHED[row.model]} ({row.bound})"
            found.append(Check(claim, near and row.images == TEST_IMAGES))
        if not full and row.model == "iwae-5":
            claim = (
                f"{row.name}: at least {BAR} nats over {TEST_IMAGES:,} test images ({row.bound} over {row.images:,})"
            )
            found.append(Check(claim, row.bound.mean >= BAR and row.images == TEST_IMAGES))
        if row.model.startswith("iwae") and row.gain is not None:
            better = row.gain.mean > SIGMAS * row.gain.error
            found.append(Check(f"{row.name}: bound above the VAE's by 2 errors ({row.gain} nats)", better))
        if row.model in ("flow-posterior", "flow-both") and row.narrowing is not None:
            narrower = row.narrowing.mean > SIGMAS * row.narrowing.error
            claim = f"{row.name}: gap below the VAE's by 2 errors ({row.narrowing} nats, paired)"
            found.append(Check(claim, narrower))
    return found
