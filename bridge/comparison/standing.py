"""Where one model stands by itself: its mean log p(x), how sure that is, and which row rules it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bridge.comparison.claiming import Entry, numerical_error
from density.log_density import LogDensity
from significance.kind import Kind, joint
from significance.rounds import statements
from significance.spread import Spread
from significance.statement import Statement

RULED = 0.25  # of the variance of all values by one row: the mean and its error hang on it


@dataclass(frozen=True)
class Standing:
    """A model's numbers over all its fits, nats a point.

    Attributes:
        name: of the model.
        fits: how many.
        kind, method: of log p(x).
        fitted: its mean over points, these fits given; ``mean``, ``error`` and ``interval(level)``.
        anew: the same with the error over fits that are made anew; None where there is one fit.
        median: of log p(x) over points.
        worst_row: the row that is farthest from the mean, by its number from 0.
        worst_share: its share of the sum of squared deviations from the mean; one of n equal rows has 1/n.
        without_worst: the mean of the other rows.
        unreliable: share of points whose own error is not to be trusted, by their importance weights.
        monte_carlo_error: of the mean, over draws; part of the error over points.
        gap, gap_error, gap_kind: log p(x) − ELBO, where it was asked for; nan and None elsewhere.
        parameters: trained numbers; None for a claim.

    >>> import torch
    >>> from bridge import compare
    >>> from density import LogDensity
    >>> claim = LogDensity(torch.tensor([-1.0, -1.2, -4.0]), Kind.EXACT, "by hand")
    >>> standing = compare({"a": claim, "b": claim}).standings[0]
    >>> round(standing.fitted.mean, 4), standing.worst_row, round(standing.without_worst, 4)
    (-2.0667, 2, -1.1)
    """

    name: str
    fits: int
    kind: Kind
    method: str
    fitted: Statement
    anew: Statement | None
    median: float
    worst_row: int
    worst_share: float
    without_worst: float
    unreliable: float
    monte_carlo_error: float
    gap: float
    gap_error: float
    gap_kind: Kind | None
    parameters: int | None

    @property
    def ruled(self) -> bool:
        """Whether one row has more than a quarter of the variance, and more than four of as many equal rows would."""
        return self.worst_share > RULED

    @staticmethod
    def of(entry: Entry) -> Standing:
        """The numbers of an entry. O(nR)."""
        claims = entry.claims
        spread = spread_of(claims)
        kind, slack, sampling = joint_kind(claims), numerical_error(claims), sampling_error(claims)
        values = torch.cat([claim.value.double().cpu() for claim in claims])
        row, share, without = worst_row(values)
        unreliable = sum(claim.unreliable for claim in claims) / len(values)
        gaps = entry.gaps
        return Standing(
            entry.name,
            len(claims),
            kind,
            " / ".join(dict.fromkeys(claim.method for claim in claims)),
            *statements(kind, spread, sampling, slack),
            values.median().item(),
            row % len(claims[0].value),
            share,
            without,
            unreliable,
            sampling,
            sum(gap.mean for gap in gaps) / len(gaps) if gaps else math.nan,
            math.sqrt(sum(gap.standard_error**2 for gap in gaps)) / len(gaps) if gaps else math.nan,
            gaps[0].kind if gaps else None,
            entry.parameters,
        )


def spread_of(claims: Sequence[LogDensity]) -> Spread:
    """Of the values of one model's fits."""
    values = [claim.value.double().cpu().numpy() for claim in claims]
    return Spread.crossed(np.stack(values)) if same_points(claims) else Spread.rounds(values)


def same_points(claims: Sequence[LogDensity]) -> bool:
    """Whether all claims can be about the same points; those that do not know theirs, by their number."""
    known = {claim.points for claim in claims if claim.points is not None}
    return len(known) < 2 and len({claim.value.numel() for claim in claims}) == 1


def joint_kind(claims: Sequence[LogDensity]) -> Kind:
    """The kind of the mean of claims; of bounds on opposite sides it is an estimate."""
    return joint(claim.kind for claim in claims)


def sampling_error(claims: Sequence[LogDensity]) -> float:
    """Standard error of the mean of claims over their draws, which are independent."""
    return math.sqrt(sum(claim.mean_monte_carlo_error**2 for claim in claims)) / len(claims)


def worst_row(values: Tensor) -> tuple[int, float, float]:
    """The row farthest from the mean of values ``[n]``, its share of the squared deviations, the mean without it.

    >>> worst_row(torch.tensor([0.0, 1.0, 0.0, -99.0]).double())[0]
    3
    """
    deviations = values - values.mean()
    squares = deviations.square()
    row = int(squares.argmax())
    total = squares.sum().item()
    rest = torch.cat([values[:row], values[row + 1 :]])
    return row, squares[row].item() / total if total > 0 else 0.0, rest.mean().item()
