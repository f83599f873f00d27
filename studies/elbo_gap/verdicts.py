"""Which model of `elbo_gap` wins: what a naive table says, ELBO against log p(x), and what honest comparison says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.table import Table

from significance import Kind, Statement, Verdict, decisions, joint, over_seeds, verdicts
from studies.elbo_gap.standings import LABELS, MARKS, shared, standings
from studies.kit.study import Finding
from studies.kit.tables import narrow, with_error

LEAST = 0.01  # nats: what two fits of one density may differ by


@dataclass(frozen=True)
class Pair:
    """Two models at the same test points; numbers are means over seeds.

    Attributes:
        model, versus: their names.
        fitted: the difference of log p(x) of these fits, paired, over data and draws.
        anew: that of models fitted anew, over seeds too; None of one seed.
        naive: ELBO of the first minus log p(x) of the second, paired; None where that was not kept.
        honest, honest_anew, naively: who is better by each, by Holm over the pairs of a table and by a hundredth of a
            nat; what a bound leaves open is open.
    """

    model: str
    versus: str
    fitted: Statement
    anew: Statement | None = None
    naive: Statement | None = None
    honest: Verdict = Verdict.OPEN
    honest_anew: Verdict = Verdict.OPEN
    naively: Verdict = Verdict.OPEN

    def winner(self, verdict: Verdict) -> str:
        """In words."""
        return {Verdict.FIRST: LABELS[self.model], Verdict.SECOND: LABELS[self.versus]}.get(verdict, "open")

    @property
    def comment(self) -> str:
        """What the naive table does to this pair."""
        if self.naively == self.honest:
            return "agree"
        if Verdict.OPEN not in (self.naively, self.honest):
            return "overturned"
        return "settled by log p(x)" if self.naively is Verdict.OPEN else "not proven"


def judged(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with their verdicts, all of a table together."""
    honest, anew, naively = (
        verdicts(family)
        for family in ([each.fitted for each in pairs], [each.anew for each in pairs], [each.naive for each in pairs])
    )
    return [
        replace(pair, honest=first, honest_anew=second, naively=third)
        for pair, first, second, third in zip(pairs, honest, anew, naively, strict=True)
    ]


def pairs(rows: pd.DataFrame) -> list[Pair]:
    """Every comparison in the rows, but of models whose likelihood has no maximum on this data."""
    out = {row.model for row in standings(rows) if row.unbounded}
    compared = rows[rows["versus"].notna() & ~rows["model"].isin(out) & ~rows["versus"].isin(out)]
    found = []
    for (model, versus), of in compared.groupby(["model", "versus"], sort=False):
        fitted, anew = _statements(of, joint(map(Kind, of["kind"])), "value", "standard_error")
        # The error over points has that of draws in it, but for what these few points have missed.
        fitted = replace(fitted, error=max(fitted.error, float(of["monte_carlo_error"].mean())))
        naive = None
        if "naive" in of and of["naive"].notna().all():
            naive, _ = _statements(of, Kind.EXACT, "naive", "naive_standard_error")
        found.append(Pair(str(model), str(versus), fitted, anew, naive))
    return judged(found)


def _statements(of: pd.DataFrame, kind: Kind, value: str, error: str) -> tuple[Statement, Statement | None]:
    """Of a difference in one row a seed: of these fits, and of fits made anew."""
    return over_seeds(of[value], of[error], int(of["test_rows"].min()), kind=kind, slack=LEAST)


def verdict_tables(rows: pd.DataFrame) -> list[Table]:
    """For every VAE a table of it against every other model, with the naive and the honest verdict on it."""
    unit = shared(rows)["unit"]
    naive = [pair for pair in pairs(rows) if pair.naive is not None and pair.model.startswith("vae")]
    tables = []
    for model in sorted({pair.model for pair in naive}):
        found = narrow(
            f"Is {LABELS[model]} better than the others? Naively by ELBO − log p(x), honestly by log p(x) − log p(x); "
            f"paired, nats per {unit}"
        )
        found.add_column("than")
        for header in ("naive", "honest"):
            found.add_column(f"{header}\ndifference", justify="right", no_wrap=True)
            found.add_column(f"{header}\nverdict", no_wrap=True)
        found.add_column("")
        for pair in sorted((pair for pair in naive if pair.model == model), key=lambda pair: -pair.fitted.mean):
            assert pair.naive is not None
            found.add_row(
                LABELS[pair.versus],
                with_error(pair.naive.mean, pair.naive.error),
                pair.naively.value,
                MARKS.get(pair.fitted.kind.value, "") + with_error(pair.fitted.mean, pair.fitted.error),
                pair.honest.value,
                pair.comment,
            )
        tables.append(found)
    return tables


def comparisons(rows: pd.DataFrame) -> list[str]:
    """The best model against every other, point by point: what is proven, what stays open, what a naive table hides."""
    every = standings(rows)
    lines: list[str] = []
    models = [row for row in every if not row.unbounded]
    if left_out := [row.label for row in every if row.unbounded]:
        lines.append(
            f"Unbounded here: {', '.join(left_out)}. Their likelihood has no maximum on this data (see the warning), "
            "so they are left out of what follows."
        )
    compared = pairs(rows)
    if len(models) < 2 or not compared:
        return lines
    best = models[0].model
    own = [pair for pair in compared if best in (pair.model, pair.versus)]
    words = f"Best by log p(x): {models[0].label}."
    proven = _beaten(best, [(pair, pair.honest) for pair in own])
    if proven:
        words += f" Proven of these fits, by Holm at 5 % over all {len(compared)} pairs, against {', '.join(proven)}."
    others = [LABELS[pair.versus if pair.model == best else pair.model] for pair in own]
    if unsettled := [label for label in others if label not in proven]:
        words += f" Not settled, or equal: {', '.join(unsettled)}."
    lines.append(words)
    if any(pair.anew is not None for pair in own):
        anew = _beaten(best, [(pair, pair.honest_anew) for pair in own])
        against = f"against {', '.join(anew)}" if anew else "nothing"
        lines.append(f"Proven of these models, over seeds too: {against}.")
    else:
        lines.append("Of these models, fitted anew, one seed proves nothing; --seeds 0 1 2 asks three.")
    overturned = [pair for pair in compared if pair.comment == "overturned"]
    if overturned:
        which = "; ".join(f"{pair.winner(pair.honest)} before {pair.winner(pair.naively)}" for pair in overturned)
        lines.append(f"Taking the ELBO for log p(x) would have turned round: {which}.")
    return lines


def findings(rows: pd.DataFrame) -> list[Finding]:
    """Whether encoders that are no posterior cost something, by Holm; and whether the ELBO ranks as log p(x) does."""
    found = []
    own = rows[rows["versus"].isna()]
    loose = [row for row in standings(rows) if row.has_encoder and row.gap > LEAST]
    gaps = {
        row.model: over_seeds(of["gap"], of["gap_standard_error"], int(of["test_rows"].min()), slack=LEAST)
        for row in loose
        if len(of := own[own["model"] == row.model])
    }
    for model, decision in decisions(gaps).items():
        row = next(row for row in loose if row.model == model)
        found.append(Finding.of(f"{row.label}: the encoder costs something", decision, f"{row.gap_text} nats"))
    compared = [pair for pair in pairs(rows) if pair.naive is not None]
    for model in dict.fromkeys(pair.model for pair in compared if pair.model.startswith("vae")):
        named: dict[str, list[str]] = {}
        for pair in compared:
            if pair.model == model:
                named.setdefault(pair.comment, []).append(LABELS[pair.versus])
        passed = False if "overturned" in named else True if set(named) == {"agree"} else None
        words = "; ".join(f"{comment}: {', '.join(names)}" for comment, names in named.items() if comment != "agree")
        found.append(
            Finding(f"{LABELS[model]}: its ELBO ranks it among other models as log p(x) does", passed, "", words)
        )
    return found


def _beaten(best: str, verdicts: Sequence[tuple[Pair, Verdict]]) -> list[str]:
    """The labels of those that a model is better than; by an estimate nothing is proven."""
    found = []
    for pair, verdict in verdicts:
        won = Verdict.FIRST if pair.model == best else Verdict.SECOND
        if verdict is won and pair.fitted.kind is not Kind.ESTIMATE:
            found.append(LABELS[pair.versus if pair.model == best else pair.model])
    return found
