"""Models side by side on one scale of log p(x): means, paired differences, what is proven and what open."""

from bridge.comparison.claiming import Comparable
from bridge.comparison.comparing import Comparison, compare
from bridge.comparison.pair import Pair
from bridge.comparison.standing import Standing
from significance.spread import Spread
from significance.statement import Statement, Verdict, holm

__all__ = ["Comparable", "Comparison", "Pair", "Spread", "Standing", "Statement", "Verdict", "compare", "holm"]
