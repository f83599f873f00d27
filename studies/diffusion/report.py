"""What the rows of `diffusion` say: tables, checks and figure."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Kind, Verdict
from studies.diffusion.figure import drawn
from studies.diffusion.settings import TOYS, Settings
from studies.diffusion.standings import LABELS, Pair, Reading, chains, longest_known, pairs, reading, readings, sets
from studies.kit.study import Check, Finding
from studies.kit.tables import Number, narrow, with_error

SIGMAS = 3.0  # several chains, each with a gap
COVERED = 0.99  # of the points, by the solver's stated error
SAID = {
    ("ode", "limit"): "The ODE less the chain as T → ∞",
    ("ode", "annealed"): "The ODE less a short chain of the network, by annealing",
    ("likelihood", "matching"): "Maximum likelihood less flow matching, as many parameters and about as many seconds",
    ("simple", "chain"): "The chain of a network that was fitted by the simple loss less the chain by the ELBO",
    ("coupling", "ode"): "A coupling flow of equal size less the ODE",
    ("vae", "chain"): "A VAE of equal size less the chain",
    ("vae", "ode"): "A VAE of equal size less the ODE",
    ("hierarchy", "chain"): "A VAE of two levels, of equal size, less the chain",
    ("hierarchy", "ode"): "A VAE of two levels, of equal size, less the ODE",
}
CLAIMED = {
    ("ode", "chain"): "the ODE has more log p(x) than the chain of the same network",
    ("ode", "annealed"): "the ODE has more than a short chain of the same network, annealed",
    ("likelihood", "matching"): "maximum likelihood gets further than flow matching",
    ("coupling", "ode"): "a coupling flow of equal size has more than the ODE",
    ("vae", "chain"): "a VAE of equal size has more than the chain",
}
RATIO = 1.5  # between the noise that Hutchinson's estimate has and the one that it states


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the sets of these settings."""
    return rows[rows["data"].isin(settings.sets)]


def table(rows: pd.DataFrame) -> Group:
    """The network as a chain of T steps, bound and log p(x); every two models, and what one column of ELBOs and
    densities says of them; the solver's error and the noise of probes.
    """
    parts: list[Table | Text] = []
    for data in sets(rows):
        parts += [chain_table(rows, data), model_table(rows, data), pair_table(rows, data), *solver_table(rows, data)]
    explained = (
        "Nats a point, ± standard error over points. log p: exact by grids in one and two dimensions, ≥ by importance "
        "weights or the ELBO. Loose: log p − ELBO of the same points. Naive: ELBOs of models that have one, densities "
        "of the others, in one column. Spread: standard deviation over points. Verdicts by Holm at 5 %. "
        "ms: of CPU, for one number."
    )
    return Group(*parts, Text(f"{answer(rows)} {explained}"))


def chain_table(rows: pd.DataFrame, data: str) -> Table:
    """One line for each T: the ELBO and its parts, log p(x), how loose the bound is, milliseconds a point."""
    every = chains(rows, data)
    about = every[0]
    found = narrow(
        f"{data}: {about['train_rows']:,.0f} points to fit, {about['test_rows']:,.0f} to test, "
        f"{about['features']:.0f} dimensions; one network of {about['parameters']:,.0f} parameters as a chain"
    )
    for name in ("T", "ELBO", "recon.", "diff.", "prior", "log p", "loose", "ms"):
        found.add_column(name, justify="right")
    for row in every:
        found.add_row(
            f"{row['number']:,.0f}",
            str(Number(row["elbo"], row["elbo_error"])),
            f"{row['reconstruction']:.2f}",
            f"{row['diffusion']:.2f}",
            f"{row['prior']:.3f}",
            signed(row) if row["beyond_elbo"] else "",
            with_error(row["gap"], row["gap_error"]) if row["beyond_elbo"] else "",
            f"{row['ms']:.2f}",
        )
    limit = reading(rows, data, "limit")
    found.add_row("∞", str(Number(limit["elbo"], limit["elbo_error"])), "", "", "", "", "", f"{limit['ms']:.2f}")
    return found


def model_table(rows: pd.DataFrame, data: str) -> Table:
    """Every model: log p(x), how far below the truth, its ELBO, parameters, seconds of the fit, time a number."""
    found = narrow(f"{data}: models; of the ODE, the fit is the chain's")
    found.add_column("model")
    for name in ("log p", "below truth", "ELBO", "parameters", "fit, s", "ms"):
        found.add_column(name, justify="right")
    chain = longest_known(rows, data)
    for row in readings(rows, data):
        model, number, below = row["model"], row["number"], row.get("below", math.nan)
        if model not in LABELS or number != (chain["number"] if model == "chain" else 0):
            continue
        most = "≤ " if row["kind"] == Kind.LOWER.value else ""
        found.add_row(
            f"chain, T = {number:,.0f}" if model == "chain" else LABELS[model],
            signed(row),
            "" if math.isnan(below) else f"{most}{with_error(below, row['below_error'])}",
            "" if math.isnan(row["elbo"]) else str(Number(row["elbo"], row["elbo_error"])),
            f"{row['parameters']:,.0f}",
            "" if model == "ode" else f"{row['cpu_seconds']:.1f}",
            f"{row['ms']:.2f}",
        )
    return found


def pair_table(rows: pd.DataFrame, data: str) -> Table:
    """Every two models: difference of log p(x) where it is known, verdicts, spread a point, the naive difference."""
    found = narrow(
        f"{data}: differences of log p(x), paired; chain of {longest_known(rows, data)['number']:,.0f} steps"
    )
    for name in ("model", "less"):
        found.add_column(name)
    for name in ("difference", "these fits", "anew", "spread", "naive"):
        found.add_column(name, justify="right")
    for pair in pairs(rows, data).values():
        of = pair.decision
        verdict = "" if of is None else of.verdict.value
        anew = "" if of is None or of.anew is None else of.verdict_anew.value
        spread = "" if of is None else f"{pair.spread:.3f}"
        found.add_row(LABELS[pair.model], LABELS[pair.versus], pair.text, verdict, anew, spread, pair.naive_text)
    return found


def solver_table(rows: pd.DataFrame, data: str) -> list[Table]:
    """What a looser solver changes, and what probes in place of the trace add."""
    asked = [
        row for row in readings(rows, data) if row["model"] == "probes" or (row["model"] == "ode" and row["number"])
    ]
    if not asked:
        return []
    found = narrow(f"{data}: errors of the ODE's log p(x), of tolerances and of single probes")
    found.add_column("tolerance, nats")
    for name in ("bias", "worst", "stated, worst", "covered", "ms"):
        found.add_column(name, justify="right")
    for row in sorted(asked, key=lambda row: -row["number"]):
        probes = row["model"] == "probes"
        found.add_row(
            f"probes, noise {row['noise']:.2f} each" if probes else f"{row['number']:g}",
            with_error(row["off"], row["off_error"]) if probes else f"{row['off']:.1e} ± {row['off_error']:.1e}",
            f"{row['worst_off']:.1e}",
            f"{row['worst_stated']:.1e}",
            f"{row['covered']:.3f}",
            f"{row['ms']:.2f}",
        )
    return [found]


def signed(row: Reading) -> str:
    """log p(x) with its error, and a sign where it is a bound."""
    sign = {Kind.LOWER.value: "≥ ", Kind.UPPER.value: "≤ "}.get(row["kind"], "")
    return f"{sign}{Number(row['value'], row['value_error'])}"


def answer(rows: pd.DataFrame) -> str:
    """Of each set: how the network's two models differ, how loose the bound is, what the naive column says."""
    return " ".join(" ".join(_answers(rows, data)) for data in sets(rows))


def brief(rows: pd.DataFrame) -> str:
    """Of each set: how the network's two models differ, and what the naive column says of that."""
    return " ".join(_answers(rows, data)[0] for data in sets(rows))


def _answers(rows: pd.DataFrame, data: str) -> list[str]:
    found, chain = pairs(rows, data), longest_known(rows, data)
    two, exact = found["ode", "chain"], chain["kind"] == Kind.EXACT.value
    apart = f"; at a point they differ by {two.spread:.2f} (standard deviation)" if exact else ""
    steps, loose = f"{chain['number']:,.0f}", with_error(chain["gap"], chain["gap_error"])
    lines = [
        f"{data}: the ODE less the chain of {steps} steps of the same network, {two.text} nats{_open(two)}{apart}. One "
        f"column has {two.naive_text}, since the chain's ELBO is loose by {'' if exact else 'at least '}{loose}."
    ]
    said = {names for names, pair in found.items() if pair.decision is not None and names in SAID}
    for names, words in SAID.items():
        if names in said and (names[1] != "ode" or (names[0], "chain") not in said):  # once beside the network
            pair = found[names]
            naive = "" if pair.naive_text in pair.text else f", in the column {pair.naive_text}"
            lines.append(f"{words}, {pair.text}{_open(pair)}{naive}.")
    if ("simple", "chain") in found and ("simple", "chain") not in said:
        lines.append(f"The ELBO of a network fitted by the simple loss less this one's, "
                     f"{found['simple', 'chain'].naive_text}.")  # fmt: skip
    for row in readings(rows, data):
        if row["model"] == "annealed":
            loose = with_error(row["gap"], row["gap_error"])
            lines.append(f"Of {row['steps']:.0f} steps the ELBO is loose by at least {loose}, by annealing.")
        if row["model"] == "probes":
            off = with_error(row["off"], row["off_error"])
            lines.append(
                f"A probe in place of the trace has noise of {row['noise']:.2f} a point, and a mean off by {off}."
            )
    return lines


def _open(pair: Pair) -> str:
    return " (not proven)" if pair.decision is None or pair.decision.verdict is Verdict.OPEN else ""


def checks(rows: pd.DataFrame) -> list[Check]:
    """That bounds are below what they bound, that stated errors hold, and that one column misjudges the network."""
    found: list[Check] = []
    for data in sets(rows):
        mine = rows[rows["versus"].isna() & (rows["data"] == data)]
        bounded = mine[mine["gap"].notna()]
        orders = {
            "no ELBO is above its model's log p(x)": (bounded["gap"] >= -SIGMAS * bounded["gap_error"] - 1e-9).all(),
        }
        if data in TOYS:
            known = mine[(mine["model"] == "chain") & (mine["beyond_elbo"] > 0)]
            solved = mine[(mine["model"] == "ode") & mine["number"].gt(0)]
            loosest = max(chains(rows, data), key=lambda each: each["gap"])
            loose = with_error(loosest["gap"], loosest["gap_error"])
            orders |= {
                "the ODE is solved to its tolerance": (mine[mine["model"] == "ode"]["kind"] == Kind.EXACT.value).all(),
                "grids give the chain's log p(x) at every T up to the longest": (known["kind"] == "exact").all(),
                "the solver's stated error covers 99 points in 100 at every tolerance": (
                    solved["covered"] >= COVERED
                ).all(),
                f"few steps make the ELBO loose ({loose} nats at T = {loosest['number']:.0f})": (
                    loosest["gap"] > SIGMAS * loosest["gap_error"]
                ),
            }
        noisy = mine[mine["model"] == "probes"]
        if len(noisy):
            ratio = noisy["off_rms"] / noisy["stated_rms"]
            orders["probes are as noisy as they state"] = ratio.between(1 / RATIO, RATIO).all()
        found += [Check(f"{data}: {claim}", bool(holds)) for claim, holds in orders.items()]
        for names, words in CLAIMED.items():
            pair = pairs(rows, data).get(names)
            if pair is not None and pair.decision is not None:
                found.append(Finding.of(f"{data}: {words}", pair.decision, f"{pair.text} nats"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """For each set: ELBO and log p(x) of the chain against its steps, beside the density of its ODE; log p(x) of both
    models, point by point; how far every model is above the chain, as known and as one column has it.
    """
    return drawn(rows, brief(rows))
