"""What numbers with errors prove: Student's t, errors over points and over fits, Holm's procedure. Without torch."""

from significance.kind import Kind, joint
from significance.rounds import CHANCE, Decision, decisions, of_all, over_seeds, statements, verdicts
from significance.spread import Spread
from significance.statement import Statement, Verdict, holm
from significance.words import in_words

__all__ = [
    "CHANCE",
    "Decision",
    "Kind",
    "Spread",
    "Statement",
    "Verdict",
    "decisions",
    "holm",
    "in_words",
    "joint",
    "of_all",
    "over_seeds",
    "statements",
    "verdicts",
]
