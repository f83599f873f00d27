"""What the rows of `mnist` say: tables, checks and figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from significance import Kind, Statement, Verdict, of_all, verdicts
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import PASSED, Check, Finding
from studies.kit.tables import Number, empty
from studies.literature import Known
from studies.mnist.settings import Settings

LABELS = {
    "vae": "VAE",
    "iwae-5": "IWAE, K = 5",
    "iwae-50": "IWAE, K = 50",
    "flow-posterior": "VAE, flow posterior",
    "flow-prior": "VAE, flow prior",
    "flow-both": "VAE, both flows",
}
PUBLISHED = {"vae": -88.71, "iwae-5": -87.63, "iwae-50": -87.10}  # Burda et al. 2016, read in a reprint
MNIST, TEST_IMAGES = "mnist-binary", 10_000
BAR, NEAR = -91.0, 0.5  # nats: of the CPU preset; of the full preset, to the published numbers


@dataclass(frozen=True)
class Standing:
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
        """With the seed, but for 0."""
        return LABELS[self.model] + ("" if self.seed == 0 else f", seed {self.seed}")


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the models of these settings, and their start."""
    return rows[rows["model"].isin(("start", *settings.models))]


def standings(rows: pd.DataFrame) -> list[Standing]:
    """One for each model and seed that has bounds, in the order of the labels."""
    found: list[Standing] = []
    for model in LABELS:
        for number, own in rows[rows["model"] == model].groupby("seed"):
            bounds, sandwich, versus = (own[own["part"] == part] for part in ("bound", "sandwich", "difference"))
            if bounds.empty:
                continue
            bounds, seed = bounds.sort_values("share"), int(str(number))
            bound, gain, wider = _over_shares(bounds, "value"), _only(versus, "value"), _only(versus, "gap")
            plain = next((other for other in found if other.model == "vae" and other.seed == seed), None)
            images = int(bounds["test_rows"].sum())
            whole = plain.bound + gain if plain is not None and gain is not None and images < plain.images else bound
            start = rows[(rows["model"] == "start") & (rows["seed"] == seed)]
            fits = pd.concat([start, own[own["part"].isin(("fit", "bound"))]])
            found.append(
                Standing(
                    model=model,
                    seed=seed,
                    images=images,
                    bound=bound,
                    whole=whole,
                    elbo=_over_shares(bounds, "elbo"),
                    gap=_over_shares(bounds, "gap"),
                    first_gap=_over_shares(bounds.head(1), "gap"),
                    gain=gain,
                    narrowing=None if wider is None else Number(-wider.mean, wider.error),
                    sandwich=_only(sandwich, "value"),
                    annealed=_only(sandwich, "annealed"),
                    active=float(bounds["active"].iloc[0]) if "active" in bounds else math.nan,
                    unreliable=float((bounds["unreliable"] * bounds["test_rows"]).sum() / images),
                    cpu_minutes=float(fits["cpu_seconds"].sum()) / 60,
                )
            )
    return found


def _error(column: str) -> str:
    return "standard_error" if column == "value" else f"{column}_standard_error"


def _over_shares(rows: pd.DataFrame, column: str) -> Number:
    """Shares are disjoint, so that their errors are independent."""
    weights = rows["test_rows"] / rows["test_rows"].sum()
    error = math.sqrt(float(((weights * rows[_error(column)]) ** 2).sum()))
    return Number(float((weights * rows[column]).sum()), error)


def _only(rows: pd.DataFrame, column: str) -> Number | None:
    known = rows[rows[column].notna()]
    return None if known.empty else Number(float(known[column].iloc[0]), float(known[_error(column)].iloc[0]))


def table(rows: pd.DataFrame) -> Group:
    """Every model's bound, ELBO, gap and sandwich, beside what was published."""
    mnist = is_mnist(rows)
    headers = ("images", "log p(x) ≥", "all images", "ELBO", "gap", *(["published", "read"] if mnist else []))
    checked = ("sandwich", "above VAE", "gap narrower", "active", "k̂ high", "CPU min")
    bounds = empty("Test images, nats per image, ± standard error over images", ["model"], headers)
    title = "How far the bound is to be trusted, and beside the VAE on the same images"
    others = empty(title, ["model"], checked)
    for row in standings(rows):
        whole = "" if row.whole is row.bound else f"{row.whole}"
        known = [f"{PUBLISHED[row.model]:.2f}", Known.REPRINT.value] if row.model in PUBLISHED else ["", ""]
        published = known if mnist else []
        bounds.add_row(row.name, f"{row.images}", f"{row.bound}", whole, f"{row.elbo}", f"{row.gap}", *published)
        others.add_row(
            row.name,
            *("" if number is None else str(number) for number in (row.sandwich, row.gain, row.narrowing)),
            "" if math.isnan(row.active) else f"{row.active:.0f}",
            f"{row.unreliable:.0%}",
            f"{row.cpu_minutes:.1f}",
        )
    words = (
        f"{answer(rows)} log p(x) ≥: importance-weighted bound, {int(rows['draws'].dropna().iloc[0]):,} draws; all "
        "images: of models judged on a share, the VAE's bound plus their paired difference (above VAE). Gap: the bound "
        "less the ELBO, paired; narrower than the VAE's, paired too. Sandwich: on images simulated from the model, "
        "annealing's upper bound less the weighted one. k̂ high: share of images whose weights have a heavy tail: there "
        "the bound is loose. CPU minutes: start, fit and bounds."
    )
    return Group(bounds, others, Text(words))


def answer(rows: pd.DataFrame) -> str:
    """The best model of those judged on most images, and what both flows do to the gap."""
    models = standings(rows)
    most = max(row.images for row in models)
    best = max((row for row in models if row.images == most), key=lambda row: row.bound.mean)
    plain = {row.seed: row for row in models if row.model == "vae"}
    found = f"{best.name} reaches {best.bound} nats over {best.images:,} test images"
    if best.model in PUBLISHED and is_mnist(rows):
        found += f"; published, after 3,280 epochs: {PUBLISHED[best.model]:.2f}"
    found += "."
    for row in [row for row in models if row.model == "flow-both" and row.seed in plain][:1]:
        other = plain[row.seed].first_gap
        found += f" With both flows the ELBO's gap is {row.first_gap} nats, the plain VAE's {other}, same images."
    return found + " All models go on from one VAE. ± standard error."


def is_mnist(rows: pd.DataFrame) -> bool:
    """Whether the rows are of what was published about, not of digits."""
    return bool((rows["data"] == MNIST).all())


def checks(rows: pd.DataFrame) -> list[Check]:
    """That bounds are in order, which are signs, of all models by Holm; and the claims, decided on MNIST."""
    widths = {}
    for row in standings(rows):
        widths[f"{row.name}: the weighted bound is not below the ELBO"] = row.gap
        for name, width in (("weighted", row.sandwich), ("annealed", row.annealed)):
            if width is not None:
                widths[f"{row.name}: upper bound not below the {name} one"] = width
    signs = verdicts([Statement(Kind.EXACT, width.mean, width.error, math.inf) for width in widths.values()])
    found = [
        Check(f"{claim}, by Holm at 5 % ({width} nats)", sign is not Verdict.SECOND)
        for (claim, width), sign in zip(widths.items(), signs, strict=True)
    ]
    return found + (_claims(rows) if is_mnist(rows) else [])


def _claims(rows: pd.DataFrame) -> list[Check]:
    found: list[Check] = []
    full = not bool((rows["device"] == "cpu").any())
    for row in standings(rows):
        whole = row.images == TEST_IMAGES
        if full and row.model in PUBLISHED:
            near = abs(row.bound.mean - PUBLISHED[row.model]) <= NEAR
            claim = f"{row.name}: within {NEAR} nats of the published {PUBLISHED[row.model]} ({row.bound})"
            found.append(Check(claim, near and whole))
        if not full and row.model == "iwae-5":
            over = f"over {TEST_IMAGES:,} test images ({row.bound} over {row.images:,})"
            found.append(Check(f"{row.name}: at least {BAR} nats {over}", row.bound.mean >= BAR and whole))
    return found + ([] if full else _beside_published(rows)) + _differences(rows)


def _beside_published(rows: pd.DataFrame) -> list[Finding]:
    """Whether bounds reach the published ones, of a budget that is many times ours; of all by Holm."""
    beside = [row for row in standings(rows) if row.model in PUBLISHED]
    family = [
        Statement(Kind.EXACT, row.whole.mean - PUBLISHED[row.model], row.whole.error, row.images - 1) for row in beside
    ]
    return [
        Finding(
            f"{row.name}: its bound is above the published one, after 3,280 epochs",
            PASSED[sign],
            f"{PUBLISHED[row.model]:.2f}, read {Known.REPRINT.value}",
            str(row.whole),
        )
        for row, sign in zip(beside, verdicts(family), strict=True)
    ]


def _differences(rows: pd.DataFrame) -> list[Finding]:
    """What each model does to the plain VAE's numbers on the same images: over seeds, all together by Holm.

    These are differences of bounds, and of gaps; either bound may be the looser one.
    """
    claims: dict[str, Statement] = {}
    for model, label in LABELS.items():
        of = rows[(rows["model"] == model) & (rows["part"] == "difference")]
        if of.empty:
            continue
        points = int(of["test_rows"].min())
        if model.startswith("iwae"):
            claims[f"{label}: bound above the VAE's"] = of_all(of["value"], of["standard_error"], points)
        if model in ("flow-posterior", "flow-both"):
            claims[f"{label}: gap below the VAE's"] = of_all(-of["gap"], of["gap_standard_error"], points)
    decided = verdicts(list(claims.values()))
    return [
        Finding(f"{claim}, paired", PASSED[verdict], measured=str(Number(of.mean, of.error)))
        for (claim, of), verdict in zip(claims.items(), decided, strict=True)
    ]


def figure(rows: pd.DataFrame) -> Figure:
    """Bounds beside the published ones; the ELBO's gap; the sandwich."""
    models = standings(rows)
    with panels(3, width=13) as (drawn, (left, middle, right)):
        _bounds(left, models, is_mnist(rows))
        _gaps(middle, models)
        _sandwiches(right, models)
        for axes in (left, middle, right):
            axes.set_ylim(len(models) + 0.1, -0.6)  # room for a legend below
            axes.set_yticks(range(len(models)), [row.name if axes is left else "" for row in models])
            axes.grid(axis="y", visible=False)
        caption(drawn, answer(rows))
    return drawn


def _bounds(axes: Axes, models: list[Standing], mnist: bool) -> None:
    axes.errorbar(
        [row.whole.mean for row in models], range(len(models)), xerr=[row.whole.error for row in models], fmt=">",
        color=PALETTE[0], markersize=8, capsize=3, label="lower bound, here",
    )  # fmt: skip
    published = [(PUBLISHED[row.model], h) for h, row in enumerate(models) if row.model in PUBLISHED and mnist]
    if published:
        axes.plot(*zip(*published, strict=True), "D", color=PALETTE[3], markersize=7, label="published")
        axes.legend(loc="lower left", ncols=2, columnspacing=1)
    axes.set(xlabel="mean log p(x) of test images, nats per image")
    axes.set_title("How large is log p(x), at least?", loc="left", fontweight="bold", fontsize=12)


def _gaps(axes: Axes, models: list[Standing]) -> None:
    heights, gaps = range(len(models)), [row.first_gap for row in models]
    axes.barh(heights, [gap.mean for gap in gaps], color=PALETTE[1], height=0.55)
    axes.errorbar(
        [gap.mean for gap in gaps], heights, xerr=[gap.error for gap in gaps], fmt="none", color="0.2", capsize=3
    )
    axes.set(xlabel="log p(x) bound − ELBO, nats")
    axes.set_title("Gap of the ELBO, same images", loc="left", fontweight="bold", fontsize=12)


def _sandwiches(axes: Axes, models: list[Standing]) -> None:
    kinds = (
        ("importance-weighted", "o", PALETTE[2], -0.16, [row.sandwich for row in models]),
        ("annealed", "s", PALETTE[3], 0.16, [row.annealed for row in models]),
    )
    for label, marker, colour, apart, widths in kinds:
        known = [(height + apart, width) for height, width in enumerate(widths) if width is not None]
        axes.errorbar(
            [width.mean for _, width in known], [height for height, _ in known],
            xerr=[width.error for _, width in known], fmt=marker, color=colour, capsize=3, label=label,
        )  # fmt: skip
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set(xlabel="upper − lower bound, nats")
    axes.set_title("Sandwich, simulated images", loc="left", fontweight="bold", fontsize=12)
    axes.legend(loc="lower right", ncols=2, columnspacing=1)
