"""Compare models of one data set: who is better, by how much, how sure that is, and what would settle the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from torch import Generator, Tensor

from bridge.comparison.claiming import Comparable, Entry, Method, ask
from bridge.comparison.pair import Pair, judged
from bridge.comparison.printing import said, table
from bridge.comparison.standing import Standing
from density.log_density import BitsPerDimension, LogDensity
from density.measure import Measure, ReferenceMeasure
from significance.statement import holm

if TYPE_CHECKING:
    import pandas

Record = dict[str, str | int | float | None]
ELBO_DRAWS = 100


@dataclass(frozen=True, eq=False)
class Comparison:
    """What models say about the same points, and what that says of the models. ``print`` shows all of it.

    Attributes:
        standings: one a model, highest mean first, models of one measure together.
        pairs: of models of one measure, judged by Holm's procedure at 1 − level over all pairs that have a difference.
        measures: of each model, by name.
        level: of confidence.
        simultaneous: whether the intervals of differences hold all at once.
        claims: of each model's fits, by name.
    """

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    measures: dict[str, ReferenceMeasure]
    level: float
    simultaneous: bool
    claims: dict[str, tuple[LogDensity, ...]]

    def pair(self, first: str, second: str) -> Pair:
        """The pair of two models in the order that it is kept in.

        Raises:
            KeyError: there is no such pair.
        """
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise KeyError(f"no pair of '{first}' and '{second}': they must be two models of one measure")

    @property
    def level_of_pairs(self) -> float:
        """The level of each difference's interval: Bonferroni's where all are to hold at once."""
        decidable = sum(pair.fitted is not None for pair in self.pairs)
        return 1 - (1 - self.level) / decidable if self.simultaneous and decidable else self.level

    def beaten(self, name: str, *, anew: bool = False) -> list[str]:
        """The models that this one is proven to be better than: these fits, or models fitted anew."""
        found = []
        for pair in self.pairs:
            proven, verdict = (pair.proven_anew, pair.verdict_anew) if anew else (pair.proven, pair.verdict)
            ahead, behind = (pair.first, pair.second) if verdict.value == "better" else (pair.second, pair.first)
            if proven and ahead == name:
                found.append(behind)
        return found

    def to_dataframe(self, *, differences: bool = False) -> pandas.DataFrame:
        """:meth:`rows` as a pandas data frame by model; or :meth:`differences`, by the two models of each pair.

        Raises:
            ImportError: pandas is not installed; it is imported when this is called, and no sooner.

        >>> import torch
        >>> from density import Gaussian
        >>> found = compare({"a": Gaussian(2), "b": Gaussian(2)}, torch.zeros(3, 2))
        >>> found.to_dataframe()[["kind", "mean"]]
                kind      mean
        model
        a      exact -1.837877
        b      exact -1.837877
        >>> found.to_dataframe(differences=True).loc[("a", "b"), "verdict"]
        'equal'
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "Comparison.to_dataframe needs pandas: pip install pandas; without it rows() and differences() give "
                "the same as plain records"
            ) from error
        frame = pandas.DataFrame(self.differences() if differences else self.rows())
        return frame if frame.empty else frame.set_index(["first", "second"] if differences else "model")

    def rows(self) -> list[Record]:
        """A plain record for each model; :meth:`to_dataframe` makes a frame of them."""
        found = []
        for each in self.standings:
            low, high = each.fitted.interval(self.level)
            found.append(
                {
                    "model": each.name,
                    "measure": self.measures[each.name].value,
                    "kind": each.kind.value,
                    "method": each.method,
                    "fits": each.fits,
                    "mean": each.fitted.mean,
                    "standard_error": each.fitted.error,
                    "monte_carlo_error": each.monte_carlo_error,
                    "low": low,
                    "high": high,
                    "error_anew": math.nan if each.anew is None else each.anew.error,
                    "median": each.median,
                    "worst_row": each.worst_row,
                    "worst_share": each.worst_share,
                    "without_worst": each.without_worst,
                    "unreliable": each.unreliable,
                    "gap": each.gap,
                    "gap_error": each.gap_error,
                    "gap_kind": None if each.gap_kind is None else each.gap_kind.value,
                    "parameters": each.parameters,
                }
            )
        return found

    def differences(self) -> list[Record]:
        """A plain record for each pair, first less second; ``to_dataframe(differences=True)`` makes a frame of them."""
        found = []
        for pair in self.pairs:
            record: Record = {"first": pair.first, "second": pair.second, "verdict": pair.verdict.value}
            record["verdict_anew"] = pair.verdict_anew.value
            record["proven"], record["proven_anew"] = pair.proven, pair.proven_anew
            for name, statement in (("", pair.fitted), ("_anew", pair.anew)):
                low, high = (-math.inf, math.inf) if statement is None else statement.interval(self.level_of_pairs)
                record |= {
                    f"difference{name}": math.nan if statement is None else statement.mean,
                    f"error{name}": math.nan if statement is None else statement.error,
                    f"low{name}": low,
                    f"high{name}": high,
                    f"p_value{name}": math.nan if statement is None else statement.p_value,
                }
            record["worst_share"] = pair.worst_share
            record["kind"] = None if pair.fitted is None else pair.fitted.kind.value
            record["settled_by"] = self.settled_by(pair)
            found.append(record)
        return found

    def settled_by(self, pair: Pair) -> str:
        """What would settle an open pair; "" for others."""
        decidable = max(1, sum(each.fitted is not None for each in self.pairs))
        return pair.settled_by((1 - self.level) / decidable)

    def bits_per_dimension(self, features: int | None = None, *, levels: int = 1) -> dict[str, BitsPerDimension]:
        """−log₂ p(x)/D of every model, all its fits together; see :meth:`~density.LogDensity.bits_per_dimension`.

        Args:
            features: D; by default what the claims know of their points.
            levels: of pixels that were divided by their number.

        Raises:
            ValueError: D is not known, or a measure has atoms, where a density has no bits.
        """
        found = {}
        for name, claims in self.claims.items():
            if claims[0].measure is Measure.RECTIFIED:
                raise ValueError(f"'{name}' has a density with an atom; bits per dimension are of masses or densities")
            points = claims[0].points
            size = features if features is not None else None if points is None else points.features
            if size is None:
                raise ValueError(f"the claims of '{name}' do not know the dimension of a point; give features=")
            found[name] = LogDensity.concatenate(claims).bits_per_dimension(size, levels=levels)
        return found

    def sentences(self) -> list[str]:
        """What to know of single models, what is proven of these fits and of models fitted anew, and what is open."""
        return said(self.standings, self.pairs, self.level_of_pairs, self.settled_by)

    def __str__(self) -> str:
        return "\n".join([*table(self.standings, self.measures, self.level), *self.sentences()])

    def __repr__(self) -> str:
        return str(self)


def compare(
    models: Mapping[str, Comparable | Sequence[Comparable]],
    x: Tensor | None = None,
    *,
    level: float = 0.95,
    context: Tensor | None = None,
    method: Method | Mapping[str, Method] | None = None,
    margin: float = 0.0,
    simultaneous: bool = False,
    elbo_draws: int = ELBO_DRAWS,
    generator: Generator | None = None,
) -> Comparison:
    r"""Put models side by side at the points x, and say which is better where that can be said.

    Every two models of one measure are compared point by point. The difference of their means has the error of a paired
    comparison, Student's t quantile, and what quadrature and rounding may add to it; bounds give one-sided intervals
    and can prove one side alone, and two bounds on the same side give no difference. Holm's procedure at 1 − level over
    all differences decides: if models are equal, the chance of telling any two of those apart is at most 1 − level.
    Two models whose values are the same at every point, up to rounding, are equal: difference 0, deviation 0.

    Given several fits of every model, a second statement is made: of models as they would come out of training anew,
    with the error over fits beside that over points (:class:`~significance.spread.Spread`). Fits may be at the
    same points, or the r-th fits of all models at points of their own.

    Args:
        models: by name: a fitted model, a claim about log p(x), or a sequence of one of them, fits of one model.
        x: points ``[n, D]``; None where all are claims.
        level: of confidence, of intervals and of all verdicts together.
        context: ``[n, C]``, for models that have one; the others are asked without.
        method: how to find log p(x) where a model does not know it, as in :func:`lvm.evidence.evidence`, which chooses
            by default; for all models, or by name. Where a context is given it is called with ``context=``.
        margin: nats within which two models are no different; 0 for none.
        simultaneous: make the intervals of differences wide enough to hold all at once (Bonferroni).
        elbo_draws: of the gap between log p(x) and ELBO, for models that have both; 0 leaves it out.
        generator: of all draws, on the device of x.

    Raises:
        TypeError: something is neither a model nor a claim.
        ValueError: nothing to compare, claims about different points, or settings that mean nothing.

    What the intervals assume: test points drawn independently, and enough of them for the mean to be near normal. Where
    one row has most of the variance (``worst_share``) that is not so, and the table says it.

    Sources: Holm 1979; Satterthwaite 1946. Cost O(nR) a pair, beside what the claims cost.

    >>> import torch
    >>> from density import Gaussian
    >>> from lvm import PPCA
    >>> x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0)).double() @ torch.ones(3, 3).triu().double()
    >>> full, round = Gaussian(3), PPCA(3, 1)
    >>> for model in (full, round):
    ...     _ = model.fit(x[:300])
    >>> found = compare({"full": full, "PPCA": round}, x[300:])
    >>> found.pair("full", "PPCA").verdict.value, found.beaten("full")
    ('better', ['PPCA'])
    >>> compare({"full": full, "again": full}, x[300:]).pair("full", "again").verdict
    <Verdict.EQUAL: 'equal'>
    """
    if not 0.5 <= level < 1:
        raise ValueError(f"compare: level must be at least 0.5 and below 1, 0.95 for 95 %; got {level}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"compare: margin must be finite and at least 0 nats; got {margin}")
    entries = ask(models, x, context, method, elbo_draws, generator)
    measures = list(dict.fromkeys(entry.measure for entry in entries))
    unjudged = [[Pair.of(a, b, margin) for a, b in combinations(_of(entries, each), 2)] for each in measures]
    pairs = [pair for family in unjudged for pair in decided(family, 1 - level)]
    standings = sorted(map(Standing.of, entries), key=lambda each: -each.fitted.mean)
    by_name = {entry.name: entry.measure for entry in entries}
    standings.sort(key=lambda each: measures.index(by_name[each.name]))
    claims = {entry.name: entry.claims for entry in entries}
    return Comparison(tuple(standings), tuple(pairs), by_name, level, simultaneous, claims)


def _of(entries: Sequence[Entry], measure: ReferenceMeasure) -> list[Entry]:
    return [entry for entry in entries if entry.measure == measure]


def decided(pairs: Sequence[Pair], chance: float) -> list[Pair]:
    """Pairs of models of one measure with their verdicts, by Holm's procedure over all of them."""
    fitted, anew = (
        holm([math.nan if statement is None else statement.p_value for statement in family], chance)
        for family in ([pair.fitted for pair in pairs], [pair.anew for pair in pairs])
    )
    return judged(pairs, fitted, anew)
