"""What the rows of `defaults` say: both sides table by table, what each setting buys, and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Decision, Statement, Verdict, decisions, over_seeds
from studies.defaults.settings import AFFINE, ARMS, SPLINES, Arm, Ours, Peer, Settings
from studies.defaults.tables import SHIPPED
from studies.kit.figures import MARKERS, PALETTE, caption, panels
from studies.kit.study import TOLD, Check, Finding
from studies.kit.tables import Number, narrow, with_error

LARGE, BEHIND = 2000, 1.0  # rows from which on siblings must be near, and how near, in nats
BUILDERS, PEERS, CLASSICAL = get_args(Ours), get_args(Peer), ("gaussian", "mixture")


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the tables that were asked for, or all that there are."""
    return rows if settings.tables == SHIPPED else rows[rows["data"].isin(settings.tables)]


def text(one: Decision) -> str:
    """The difference with its error, and a star where it is proven."""
    mean, star = one.statement.mean, "" if one.of_all is Verdict.OPEN else " *"
    return f"{'+' if mean > 0 else ''}{with_error(mean, one.statement.error)}{star}"


def difference(rows: pd.DataFrame) -> tuple[Statement, Statement | None]:
    """The mean difference over the seeds of a table, of these fits and of fits made anew."""
    return over_seeds(rows["difference"], rows["difference_error"], int(rows["test_rows"].min()))


def by_table(rows: pd.DataFrame, model: str, versus: str) -> dict[str, Decision]:
    """One model less another on every table, decided by Holm over the tables."""
    pairs = rows[(rows["model"] == model) & (rows["versus"] == versus)]
    return decisions({str(table): difference(of) for table, of in pairs.groupby("data", sort=False)})


def overall(found: Iterable[Decision]) -> Number:
    """The mean over tables, whose error is that of the differences between and within tables."""
    means = [one.statement.mean for one in found]
    count = len(means)
    mean = sum(means) / count
    return Number(mean, math.sqrt(sum((value - mean) ** 2 for value in means) / max(count - 1, 1) / count))


def within(found: Iterable[Decision]) -> Number:
    """The mean over these very tables: tables are independent, and each has the error that it has."""
    statements = [one.statement for one in found]
    mean = sum(one.mean for one in statements) / len(statements)
    return Number(mean, math.sqrt(sum(one.error**2 for one in statements)) / len(statements))


def models(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean log p over seeds: a row a table, a column a model."""
    alone = rows[rows["versus"].isna()]
    return alone.pivot_table(index="data", columns="model", values="log_p", sort=False)


def table(rows: pd.DataFrame) -> Group:
    """Both sides, then every model, then the arms, then what the bars say."""
    parts = [sides_table(rows), models_table(rows), cost_table(rows), arms_table(rows)]
    return Group(*(part for part in parts if part is not None), *(Text(line) for line in words(rows)))


def sides_table(rows: pd.DataFrame) -> Table | None:
    """The best and the second of our builders against those of the peers, each chosen by held-out rows."""
    best, second = by_table(rows, "best", "best"), by_table(rows, "second", "second")
    if not best:
        return None
    found = narrow("Ours minus theirs, both chosen by held-out rows; paired over test rows, nats; *: by Holm at 5 %")
    for header in ("table", "chosen, seed by seed"):
        found.add_column(header)
    for header in ("best", "second best"):
        found.add_column(header, justify="right", no_wrap=True)
    for name, one in best.items():
        of = rows[(rows["data"] == name) & (rows["model"] == "best")]
        found.add_row(name, "; ".join(map(_chosen, of.itertuples())), text(one), text(second[name]))
    return found


def _chosen(row: object) -> str:
    """Two names out of the names of files."""
    ours, theirs, table_name = (str(getattr(row, name)) for name in ("ours", "theirs", "data"))
    a, b = (next(name for name in names if f"{table_name}-{name}-" in path)
            for path, names in ((ours, BUILDERS), (theirs, sorted(PEERS, key=len, reverse=True))))  # fmt: skip
    return f"{a} / {b}"


def models_table(rows: pd.DataFrame) -> Table:
    """Mean log p of every model on test rows."""
    found, means = narrow("Mean log p of test rows over seeds, nats, data of standard deviation 1"), models(rows)
    shown = [name for name in (*CLASSICAL, *BUILDERS, *PEERS) if name in means]
    found.add_column("table")
    for name in shown:
        found.add_column(name.replace(" ", "\n", 1), justify="right")
    for name, row in means.iterrows():
        values = [row[model] for model in shown]
        found.add_row(str(name), *("" if math.isnan(value) else f"{value:.2f}" for value in values))
    return found


def cost_table(rows: pd.DataFrame) -> Table:
    """Seconds of processor time of a fit, and how many fits were still climbing when their steps were done."""
    alone = rows[rows["versus"].isna()]
    found = narrow("Fits: processor seconds, mean over tables; how many were still climbing at their last step")
    found.add_column("model")
    for header in ("seconds", "parameters", "still climbing"):
        found.add_column(header, justify="right")
    for name in (*CLASSICAL, *BUILDERS, *PEERS):
        of = alone[alone["model"] == name]
        if len(of):
            climbing = f"{int(of['climbing'].sum())} of {len(of)}"
            found.add_row(name, f"{of['cpu_seconds'].mean():.1f}", f"{of['parameters'].mean():,.0f}", climbing)
    return found


def arms_table(rows: pd.DataFrame) -> Table | None:
    """What each setting is worth: the arm minus the builder that it differs from."""
    found = narrow("Another setting minus the builder's; paired, nats, mean over tables; *: by Holm at 5 % on a table")
    found.add_column("setting")
    for header in ("tables", "mean over tables", "better *", "worse *", "seconds"):
        found.add_column(header, justify="right", no_wrap=True)
    for arm in get_args(Arm):
        of = by_table(rows, arm, ARMS[arm])
        if of:
            better, worse = proven(of)
            mean = within(of.values())
            alone = rows[rows["versus"].isna() & (rows["model"] == arm)]
            found.add_row(
                arm, str(len(of)), f"{'+' if mean.mean > 0 else ''}{with_error(mean.mean, mean.error)}",
                str(len(better)), str(len(worse)), f"{alone['cpu_seconds'].mean():.1f}",
            )  # fmt: skip
    return found if found.row_count else None


def words(rows: pd.DataFrame) -> list[str]:
    """The claim in its parts, each with what the rows say of it."""
    lines = []
    for place in ("best", "second"):
        found = by_table(rows, place, place)
        if found:
            mean = within(found.values())
            better, worse = proven(found)
            lines.append(
                f"{place.capitalize()} of ours minus {place} of theirs, mean over {len(found)} tables: "
                f"{with_error(mean.mean, mean.error)} nats (rows and seeds; between tables the standard error is "
                f"{overall(found.values()).error:.2f}). Proven better on {len(better)}, worse on {len(worse)}"
                f"{': ' + ', '.join(worse) if worse else ''}.{_of_these_fits(found)}"
            )
    return [*lines, *losses(rows), *siblings(rows)]


def proven(found: Mapping[str, Decision]) -> tuple[list[str], list[str]]:
    """Where the first is better, and where worse: of fits made anew where there are several seeds."""
    names = {verdict: [name for name, one in found.items() if one.of_all is verdict] for verdict in Verdict}
    return names[Verdict.FIRST], names[Verdict.SECOND]


def _of_these_fits(found: Mapping[str, Decision]) -> str:
    """What more is proven of these fits, where there are several seeds."""
    if any(one.anew is None for one in found.values()):
        return ""
    names = {verdict: [name for name, one in found.items() if one.verdict is verdict] for verdict in Verdict}
    worse = f": {', '.join(names[Verdict.SECOND])}" if names[Verdict.SECOND] else ""
    return f" Of these fits: better on {len(names[Verdict.FIRST])}, worse on {len(names[Verdict.SECOND])}{worse}."


def classical(rows: pd.DataFrame) -> dict[str, Decision]:
    """Every builder against a full Gaussian and the mixture, on every table."""
    found = {}
    for model in BUILDERS:
        for other in CLASSICAL:
            pairs = rows[(rows["model"] == model) & (rows["versus"] == other)]
            for name, of in pairs.groupby("data", sort=False):
                found[f"{model} to the {other} on {name}"] = difference(of)
    return decisions(found)


def losses(rows: pd.DataFrame) -> list[str]:
    """Where a builder loses to a full Gaussian or to the mixture."""
    decided = classical(rows)
    if not decided:
        return []
    lost = [(name, one.statement) for name, one in decided.items() if one.of_all is Verdict.SECOND]
    line = f"Of {len(decided)} comparisons with full Gaussian and mixture, lost by Holm: {_listed(lost)}."
    if any(one.anew is None for one in decided.values()):
        return [line]
    of_fits = [(name, one.fitted) for name, one in decided.items() if one.verdict is Verdict.SECOND]
    return [f"{line} Of these fits: {_listed(of_fits)}."]


def _listed(lost: Iterable[tuple[str, Statement]]) -> str:
    return "; ".join(f"{name} ({with_error(of.mean, of.error)})" for name, of in lost) or "none"


def siblings(rows: pd.DataFrame) -> list[str]:
    """Which builder falls a nat behind the best of its kind on a large table."""
    large = set(rows.loc[rows["train_rows"] >= LARGE, "data"])
    means = models(rows)
    means = means[means.index.isin(large)]
    late: list[str] = []
    for kind in (AFFINE, SPLINES):
        of = means[[name for name in kind if name in means]]
        behind = of.sub(of.max(axis=1), axis=0)
        late += [
            f"{model} on {name} ({value:.2f})"
            for model, column in behind.items()
            for name, value in column.items()
            if value < -BEHIND
        ]
    return [f"More than a nat behind its best sibling on a table of 2,000 rows or more: {'; '.join(late) or 'none'}."]


def checks(rows: pd.DataFrame) -> list[Check]:
    """What must hold of any run: finite numbers, and steps that end."""
    alone = rows[rows["versus"].isna()]
    bad = alone[~alone["log_p"].map(math.isfinite)]
    return [
        Check(
            "every model gives every test row a finite log p",
            bad.empty,
            "none infinite",
            f"{len(bad)} of {len(alone)} fits with an infinite mean",
        ),
        *findings(rows),
    ]


def findings(rows: pd.DataFrame) -> list[Finding]:
    """Whether the best of our builders loses, whether it wins on half of the tables, and whether any loses to simple
    models: of these fits, and of models fitted anew.
    """
    found, lost = by_table(rows, "best", "best"), classical(rows)
    if not found or not lost:
        return []
    several = all(one.anew is not None for one in found.values())

    def counted(of: Mapping[str, Decision], verdict: Verdict) -> tuple[int, int]:
        fitted, anew = (sum(word is verdict for word in words) for words in zip(
            *((one.verdict, one.verdict_anew) for one in of.values()), strict=True))  # fmt: skip
        return fitted, anew

    def told(claim: str, of: Mapping[str, Decision], verdict: Verdict, passes: Callable[[int], bool | None]) -> Finding:
        fitted, anew = counted(of, verdict)
        measured = f"{fitted} of {len(of)}" + (f", {anew} of models fitted anew" if several else "")
        return Finding(claim, passes(fitted), "", measured, TOLD[passes(anew)] if several else "")

    half = len(found) / 2
    return [
        told("the best of ours is worse than the best of theirs on no table", found, Verdict.SECOND, lambda n: n == 0),
        told("it is better on half of them", found, Verdict.FIRST, lambda n: True if n >= half else None),
        told("no builder loses to a full Gaussian or a mixture", lost, Verdict.SECOND, lambda n: n == 0),
    ]


def figure(rows: pd.DataFrame) -> Figure:
    """Left: log p by the best of our builders less that by the best of other libraries', on every table, and by the
    second of each side. Right: what other settings of a builder are worth.
    """
    arms = {arm: by_table(rows, arm, ARMS[arm]) for arm in get_args(Arm)}
    arms = {arm: of for arm, of in arms.items() if of}
    with panels(2 if arms else 1, height=6.2) as (drawn, axes):
        _sides(axes[0], rows)
        if arms:
            _arms(axes[1], arms)
        told = [line for line in words(rows) if " of ours minus " in line]
        caption(drawn, f"{' '.join(told)} Filled on the left: proven by Holm at 5 %, over seeds too.")
    return drawn


def _sides(axes: Axes, rows: pd.DataFrame) -> None:
    for index, place in enumerate(("best", "second")):
        found = by_table(rows, place, place)
        heights = [height + 0.18 * (2 * index - 1) for height in range(len(found))]
        for height, one in zip(heights, found.values(), strict=True):
            face = "white" if one.of_all is Verdict.OPEN else PALETTE[index]
            axes.errorbar(
                one.statement.mean, height, xerr=2 * one.statement.error, color=PALETTE[index], marker=MARKERS[index],
                markerfacecolor=face, markersize=7, capsize=3,
            )  # fmt: skip
        axes.plot([], [], color=PALETTE[index], marker=MARKERS[index], linestyle="", label=f"{place} of each side")
        axes.set_yticks(range(len(found)), list(found))
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("log p by ours − by theirs, nats a row\n(± 2 errors; filled: by Holm)")
    axes.margins(x=0.06)
    axes.set_title("Both sides, chosen by held-out rows", loc="left", fontweight="bold")
    axes.legend(loc="lower left")


def _arms(axes: Axes, arms: dict[Arm, dict[str, Decision]]) -> None:
    for height, of in enumerate(arms.values()):
        axes.plot([one.statement.mean for one in of.values()], [height] * len(of), ".", color=PALETTE[0], alpha=0.7)
        mean = within(of.values())
        axes.errorbar(mean.mean, height, xerr=2 * mean.error, color=PALETTE[1], marker="D", capsize=3)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_xscale("symlog", linthresh=0.1)
    axes.invert_yaxis()
    label = "log p with it − with the builder's, nats a row\n(dots: tables; diamond: mean ± 2 errors)"
    axes.margins(x=0.06)
    axes.set_xlabel(label)
    axes.set_title("What a setting is worth", loc="left", fontweight="bold")
