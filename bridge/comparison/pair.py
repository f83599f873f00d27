"""Two models at the same points: the difference of their log p(x), and what it takes to decide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bridge.comparison.claiming import Entry, numerical_error, rounding
from bridge.comparison.standing import joint_kind, same_points, sampling_error, worst_row
from density.log_density import LogDensity
from significance.kind import Kind
from significance.rounds import statements
from significance.spread import Spread
from significance.statement import Statement, Verdict


@dataclass(frozen=True)
class Pair:
    """log p(x) of a first model less that of a second, paired, nats a point.

    Attributes:
        first, second: their names.
        points: how many, of each fit.
        fitted: the difference of these fits; None where the kinds of both numbers allow none, as of two lower bounds.
        anew: that of models fitted anew; None where one of them was fitted once.
        equal: whether the two are the same numbers, but for rounding, at every point.
        verdict: of these fits; OPEN until :func:`~bridge.comparison.comparing.compare` has judged all pairs.
        verdict_anew: of models fitted anew; OPEN where ``anew`` is None.
        sampling: share of the squared error that is of draws.
        worst_share: the worst row's share of the squared deviations from the mean difference.
        loose: the names of those whose number is a bound or an estimate.

    >>> import torch
    >>> from bridge import compare
    >>> from density import Kind, LogDensity
    >>> log_p = torch.linspace(-2.0, -1.0, 50)
    >>> claims = {"a": LogDensity(log_p, Kind.EXACT, "by hand"), "b": LogDensity(log_p - 0.1, Kind.EXACT, "by hand")}
    >>> pair = compare(claims).pair("a", "b")
    >>> round(pair.fitted.mean, 4), pair.verdict.value, pair.winner
    (0.1, 'better', 'a')
    """

    first: str
    second: str
    points: int
    fitted: Statement | None
    anew: Statement | None
    equal: bool
    sampling: float = 0.0
    worst_share: float = 0.0
    loose: tuple[str, ...] = ()
    verdict: Verdict = Verdict.OPEN
    verdict_anew: Verdict = Verdict.OPEN

    @property
    def proven(self) -> bool:
        """Whether these fits are told apart by more than an estimate."""
        decided = self.verdict in (Verdict.FIRST, Verdict.SECOND)
        return decided and self.fitted is not None and self.fitted.kind is not Kind.ESTIMATE

    @property
    def proven_anew(self) -> bool:
        """Whether models fitted anew are told apart by more than an estimate."""
        decided = self.verdict_anew in (Verdict.FIRST, Verdict.SECOND)
        return decided and self.anew is not None and self.anew.kind is not Kind.ESTIMATE

    @property
    def winner(self) -> str | None:
        """The better one of these fits; None where that is open, or both are equal."""
        return {Verdict.FIRST: self.first, Verdict.SECOND: self.second}.get(self.verdict)

    def settled_by(self, chance: float) -> str:
        """What would settle an open pair of these fits, at a two-sided level; "" where it is not open.

        A number of test points is for a difference of the size that was seen, with a chance of 4 in 5.
        """
        if self.verdict is not Verdict.OPEN:
            return ""
        stronger = f"a stronger method for {' and '.join(self.loose)}"
        if self.fitted is None:
            return stronger
        if math.isnan(self.fitted.error):
            return "more than one test point"
        wrong_side = self.fitted.leaning is not (Verdict.SECOND if self.fitted.kind is Kind.UPPER else Verdict.FIRST)
        if self.fitted.kind in (Kind.LOWER, Kind.UPPER) and wrong_side:
            return stronger
        cures = []
        if self.sampling > 0.5:
            cures.append(f"more draws for {' and '.join(self.loose)}")
        needed = self.fitted.points_needed(self.points, chance)
        cures.append(f"about {_rounded(needed)} test points" if needed < 1e9 else "no number of test points")
        if self.loose and self.fitted.kind is not Kind.EXACT:
            cures.append(stronger)
        return " or ".join(cures)

    @staticmethod
    def of(ours: Entry, theirs: Entry, margin: float) -> Pair:
        """The difference of two entries of one measure, not judged yet. O(nR).

        Raises:
            ValueError: they are about different points.
        """
        a, b = ours.claims, theirs.claims
        loose = tuple(each.name for each in (ours, theirs) if joint_kind(each.claims) is not Kind.EXACT)
        kind = _kind(joint_kind(a), joint_kind(b))
        if same_points([*a, *b]):
            one, other = (torch.stack([claim.value.double().cpu() for claim in claims]) for claims in (a, b))
            spread, differences = Spread.crossed(one.numpy(), other.numpy()), [one.mean(0) - other.mean(0)]
            room = [sum(torch.stack([rounding(claim).cpu() for claim in claims]).mean(0) for claims in (a, b))]
        else:
            _require_rounds(ours, theirs)
            differences = [p.value.double().cpu() - q.value.double().cpu() for p, q in zip(a, b, strict=True)]
            spread = Spread.rounds([each.numpy() for each in differences])
            room = [rounding(p).cpu() + rounding(q).cpu() for p, q in zip(a, b, strict=True)]
        equal = not loose and all(bool((d.abs() <= r).all()) for d, r in zip(differences, room, strict=True))
        sampling = math.hypot(sampling_error(a), sampling_error(b))
        points = len(a[0].value)
        if kind is None:
            return Pair(ours.name, theirs.name, points, None, None, equal, loose=loose)
        fitted, anew = statements(kind, spread, sampling, margin + numerical_error(a) + numerical_error(b))
        of_draws = (sampling / fitted.error) ** 2 if fitted.error > 0 else 0.0
        share = worst_row(torch.cat(differences))[1]
        return Pair(ours.name, theirs.name, points, fitted, anew, equal, of_draws, share, loose)


def _kind(ours: Kind, theirs: Kind) -> Kind | None:
    try:
        return ours.minus(theirs)
    except ValueError:  # two bounds on the same side
        return None


def _require_rounds(ours: Entry, theirs: Entry) -> None:
    """Raise ValueError unless the r-th fits of both are at the same points."""
    if len(ours.claims) != len(theirs.claims):
        raise ValueError(
            f"compare: '{ours.name}' has {len(ours.claims)} fits and '{theirs.name}' {len(theirs.claims)}, and not all "
            "are at the same points; fits at points of their own must come in the same number and order"
        )
    for one, other in zip(ours.claims, theirs.claims, strict=True):
        _require_same(ours.name, theirs.name, one, other)


def _require_same(first: str, second: str, one: LogDensity, other: LogDensity) -> None:
    if one.value.shape != other.value.shape:
        raise ValueError(
            f"compare: '{first}' is about {len(one.value)} points and '{second}' about {len(other.value)}; ask all "
            "models about the same ones"
        )
    one.require_points(other.points)


def judged(pairs: Sequence[Pair], fitted: Sequence[bool], anew: Sequence[bool]) -> list[Pair]:
    """Pairs with their verdicts, of hypotheses of no difference that fell."""
    found = []
    for pair, fell, fell_anew in zip(pairs, fitted, anew, strict=True):
        verdicts = [
            Verdict.EQUAL if pair.equal else statement.leaning if statement is not None and fallen else Verdict.OPEN
            for statement, fallen in ((pair.fitted, fell), (pair.anew, fell_anew))
        ]
        found.append(replace(pair, verdict=verdicts[0], verdict_anew=verdicts[1]))
    return found


def _rounded(number: float) -> str:
    """To two significant digits, upwards enough for a plan."""
    if number < 1:
        return "1"
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / unit) * unit:,}"
