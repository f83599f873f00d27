"""Differences that were decided together, in words."""

from __future__ import annotations

from collections.abc import Mapping

from significance.rounds import Decision
from significance.statement import Verdict


def in_words(found: Mapping[str, Decision]) -> str:
    """What is proven of differences by name: of these fits, and of models fitted anew.

    >>> from significance.rounds import decisions, over_seeds
    >>> in_words(decisions({"splines": over_seeds([1.0], [0.1], 100), "LU": over_seeds([0.1], [0.1], 100)}))
    'Proven of these fits, by Holm at 5 % over all 2: splines better. Of models fitted anew one seed proves nothing.'
    """
    if not found:
        return ""
    fitted = f"Proven of these fits, by Holm at 5 % over all {len(found)}: "
    fitted += f"{_listed({name: each.verdict for name, each in found.items()})}. "
    if any(each.anew is None for each in found.values()):
        return fitted + "Of models fitted anew one seed proves nothing."
    return fitted + f"Of models fitted anew: {_listed({name: each.verdict_anew for name, each in found.items()})}."


def _listed(verdicts: Mapping[str, Verdict]) -> str:
    return ", ".join(f"{name} {each.value}" for name, each in verdicts.items() if each is not Verdict.OPEN) or "nothing"
