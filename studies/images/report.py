"""What the rows of `images` say: tables, checks and figure."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Verdict
from studies.images.figure import drawn
from studies.images.published import published_table
from studies.images.settings import Settings
from studies.images.standings import BAR, LABELS, Standing, of_equal_size, pairs, sets, standings
from studies.kit.study import PASSED, TOLD, Check, Finding
from studies.kit.tables import empty, with_error

SIGMAS = 3.0  # many models, two orders each
CLAIMED = ("digits", "mnist")  # where the multi-scale flow is said to be ahead


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the images and models of these settings."""
    models = rows["model"].isin(settings.models) & (rows["versus"].isna() | rows["versus"].isin(settings.models))
    return rows[rows["data"].isin(settings.sets) & models]


def table(rows: pd.DataFrame) -> Group:
    """Bits per dimension of every model: an upper bound on those of its mass, how loose it is, and the naive column."""
    parts: list[Table | Text] = []
    for data in sets(rows):
        parts += [mass_table(rows, data), *difference_table(rows, data)]
    every = [each for data in sets(rows) for each in standings(rows, data)]
    if published := published_table({(each.data, each.model): each for each in every}):
        parts.append(published)
    explained = (
        "Mass ≤: bits per dimension from the importance-weighted bound on the mass of integers (counting measure), "
        "from above. Loose by: at most, on images simulated from the model, where its mass has an upper bound too. "
        "Density: exact, of pixels with noise (Lebesgue measure): another quantity. Naive: ELBOs, and densities of "
        "pixels in [0, 1], in one column. ± standard error over images."
    )
    return Group(*parts, Text(f"{answer(rows)} {explained}"))


def mass_table(rows: pd.DataFrame, data: str) -> Table:
    """The models of a set of images, fewest bits first."""
    alone = rows[rows["versus"].isna() & (rows["data"] == data)]
    about = alone.iloc[0]
    found = empty(
        f"{data}: {int(about['train_rows']):,} images to fit, {int(about['test_rows']):,} to test, "
        f"{int(about['features'])} pixels of {int(about['levels'])} levels; bits per dimension",
        ["model", "kind", "measure"],
        ["mass ≤", "loose by", "density", "naive", "parameters", "CPU s"],
    )
    for each in standings(rows, data):
        of = alone[alone["model"] == each.model].iloc[0]
        found.add_row(
            each.label,
            str(of["kind"]),
            str(of["measure"]),
            with_error(each.bits, each.bits_error),
            with_error(each.width, each.width_error),
            f"{each.density_bits:.3f}" if each.adds_noise else "",
            f"{each.naive_bits:.3f}",
            f"{each.parameters:,.0f}",
            f"{each.cpu_seconds:.0f}",
        )
    return found


def difference_table(rows: pd.DataFrame, data: str) -> list[Table]:
    """What is exact: two densities at the same images with the same noise."""
    every = pairs(rows, data)
    if not every:
        return []
    found = empty(
        f"{data}: differences of log p of dequantised images, nats an image, exact and paired; by Holm at 5 %",
        ["model", "than"],
        ["difference", "errors", "these fits", "fitted anew"],
    )
    for pair in every:
        of = pair.decision
        anew = "" if of.anew is None else of.verdict_anew.value
        found.add_row(LABELS[pair.model], LABELS[pair.versus], pair.text, f"{pair.errors:.1f}", of.verdict.value, anew)
    return [found]


def answer(rows: pd.DataFrame) -> str:
    """What is known of masses, what of densities, and what the naive column would have said."""
    return " ".join(" ".join(_answers(rows, data)) for data in sets(rows))


def brief(rows: pd.DataFrame) -> str:
    """Of each set: the lowest bound on bits, and the multi-scale flow beside a vector flow of its size."""
    return " ".join(" ".join(_answers(rows, data)[:2]) for data in sets(rows))


def _answers(rows: pd.DataFrame, data: str) -> list[str]:
    every = standings(rows, data)
    best = every[0]
    lines = [f"{data}: the lowest bound is {best.label}'s, at most {with_error(best.bits, best.bits_error)} bits."]
    if (pair := of_equal_size(rows, data)) is not None:
        proven = pair.decision.verdict is Verdict.FIRST
        anew = pair.decision.verdict_anew is Verdict.FIRST
        lines.append(
            f"The multi-scale flow is {'better' if proven else 'not proven better'} than the vector flow of as many "
            f"parameters ({'fitted anew too' if anew else 'these fits'}): {pair.text} nats, {pair.errors:.1f} paired "
            "errors."
        )
    masses = [each for each in every if not each.adds_noise]
    densities = [each for each in every if each.adds_noise]
    if masses and densities:
        mass, density = masses[0], densities[0]
        lines.append(
            f"Of {mass.label} ({mass.bits:.3f}) and {density.label} ({density.bits:.3f}) nothing is proven: two lower "
            f"bounds on masses. On their own images these are loose by at most {_loose(mass)} and {_loose(density)}."
        )
        first = min(every, key=lambda each: each.naive_bits)
        before = max(each.naive_bits for each in densities) < min(each.naive_bits for each in masses)
        lines.append(
            f"The naive column puts {first.label} first, at {first.naive_bits:.2f}"
            f"{', and every density before every mass' if before else ''}."
        )
    return lines


def _loose(each: Standing) -> str:
    return with_error(each.width, each.width_error)


def checks(rows: pd.DataFrame) -> list[Check]:
    """That bounds are in order; and by how much the multi-scale flow is ahead of a vector flow of its size."""
    alone = rows[rows["versus"].isna()]
    found = []
    for data in sets(rows):
        of = alone[alone["data"] == data]
        orders = {
            "the importance-weighted bound has at most the ELBO's bits": (of["bits"] <= of["elbo_bits"]).all(),
            "on simulated images no lower bound is above the upper one": (
                of["width_bits"] > -SIGMAS * of["width_error"]
            ).all(),
            "every bound is finite": of["bits"].map(math.isfinite).all(),
        }
        found += [Check(f"{data}: {claim}", bool(holds)) for claim, holds in orders.items()]
        if data in CLAIMED and (pair := of_equal_size(rows, data)) is not None:
            claim = f"{data}: the multi-scale flow is above the vector flow of as many parameters by {BAR:.0f} errors"
            held = pair.errors > BAR and pair.decision.verdict is Verdict.FIRST
            anew = "" if pair.decision.anew is None else TOLD[PASSED[pair.decision.verdict_anew]]
            measured = f"{pair.text} nats, {pair.errors:.1f} errors"
            found.append(Finding(claim, True if held else None, f"{BAR:.0f} errors", measured, anew))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Above, bits per dimension of every model, with how loose they are; below, images, what is drawn, and what comes
    back.
    """
    return drawn(rows, brief(rows))
