"""A comparison in words: a table of the models, and below it what is proven, what is open and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bridge.comparison.pair import Pair
from bridge.comparison.standing import Standing
from density.measure import ReferenceMeasure
from significance.kind import Kind
from significance.statement import Statement, Verdict

MARKS = {Kind.LOWER: "≥ ", Kind.UPPER: "≤ ", Kind.ESTIMATE: "≈ ", Kind.EXACT: ""}


def table(standings: Sequence[Standing], measures: dict[str, ReferenceMeasure], level: float) -> list[str]:
    """The models, a table for every measure."""
    parts = []
    for measure in dict.fromkeys(measures.values()):
        own = [each for each in standings if measures[each.name] == measure]
        parts.append(f"log p(x), nats a point, {measure.words}; intervals of {level:.3g} confidence")
        parts.append(_table(own, level))
    if len(set(measures.values())) > 1:
        parts.append("Numbers with respect to different measures are in different units, and not compared.")
    return parts


def said(
    standings: Sequence[Standing], pairs: Sequence[Pair], level_of_pairs: float, cure: Callable[[Pair], str]
) -> list[str]:
    """Sentences: remarks on single models, then what is proven of these fits and of models fitted anew, or open."""
    parts = _remarks(standings)
    parts += _statements("of these fits", pairs, [(p.fitted, p.verdict, p.proven) for p in pairs], level_of_pairs)
    if any(pair.anew is not None for pair in pairs):
        anew = [(p.anew, p.verdict_anew, p.proven_anew) for p in pairs]
        parts += _statements("of these models, fitted anew", pairs, anew, level_of_pairs)
    elif pairs:
        parts.append("Of these models, fitted anew: nothing, with one fit of a model; give several.")
    for pair in pairs:
        if how := cure(pair):
            parts.append(f"Open of these fits: {pair.first} and {pair.second}; what would settle it: {how}.")
    return parts


def _table(standings: Sequence[Standing], level: float) -> str:
    rows = [("model", "kind", "log p(x)", "interval", "median", "worst row", "gap", "parameters")]
    for each in standings:
        low, high = each.fitted.interval(level)
        count = f" ({each.fits} fits)" if each.fits > 1 else ""
        rows.append(
            (
                f"{each.name}{count}",
                each.kind.value,
                f"{MARKS[each.kind]}{_number(each.fitted.mean, each.fitted.error)}",
                f"[{_end(low, each.fitted.error)}, {_end(high, each.fitted.error)}]",
                f"{each.median:.2f}",
                f"{each.worst_share:.0%}",
                _gap(each),
                "–" if each.parameters is None else f"{each.parameters:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _gap(each: Standing) -> str:
    if each.gap_kind is None:
        return "–"
    small = abs(each.gap) < 1e-6 and each.gap_error < 1e-6  # of an encoder that is the posterior: rounding
    return MARKS[each.gap_kind] + ("0" if small else _number(each.gap, each.gap_error))


def _remarks(standings: Sequence[Standing]) -> list[str]:
    ruled = [
        f"{each.name}: row {each.worst_row} alone has {each.worst_share:.0%} of the variance, and its mean is "
        f"{each.without_worst:.2f} without it; its error says little there."
        for each in standings
        if each.ruled
    ]
    doubtful = [
        f"{each.name}: the error of {each.unreliable:.0%} of the points is not to be trusted, by their weights."
        for each in standings
        if each.unreliable > 0
    ]
    return [*ruled, *doubtful]


def _statements(
    whose: str, pairs: Sequence[Pair], judged: Sequence[tuple[Statement | None, Verdict, bool]], level: float
) -> list[str]:
    """One sentence of what is proven, one of what an estimate says, one of what is equal."""
    proven: list[str] = []
    seems: list[str] = []
    equal: list[str] = []
    for pair, (statement, verdict, sure) in zip(pairs, judged, strict=True):
        if verdict is Verdict.EQUAL:
            equal.append(f"{pair.first} and {pair.second}")
        elif statement is not None and verdict is not Verdict.OPEN:
            ahead, behind = (pair.first, pair.second) if verdict is Verdict.FIRST else (pair.second, pair.first)
            low, high = statement.interval(level)
            low, high = (low, high) if verdict is Verdict.FIRST else (-high, -low)
            size = f"[{_end(low, statement.error)}, {_end(high, statement.error)}]"
            (proven if sure else seems).append(f"{ahead} over {behind} by {size}")
    found = [f"Proven {whose}: {'; '.join(proven) if proven else 'nothing'}."]
    if seems:
        found.append(f"By an estimate, {whose}: {'; '.join(seems)}.")
    if equal:
        found.append(f"Equal at every point: {'; '.join(equal)}.")
    return found


def _digits(error: float) -> int:
    return max(0, min(6, 1 - math.floor(math.log10(error)))) if 0 < error < math.inf else 4


def _number(mean: float, error: float) -> str:
    digits = _digits(error)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def _end(end: float, error: float) -> str:
    return f"{end:.{_digits(error)}f}" if math.isfinite(end) else "∞" if end > 0 else "−∞"
