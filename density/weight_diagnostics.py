"""The diagnosis of the importance weights behind a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_DOMINANCE = 0.02  # beyond an equal share, of the largest normalised weight behind a reliable value


@dataclass(frozen=True, eq=False)
class WeightDiagnostics:
    """The diagnosis of the importance weights behind a value: can its error be trusted? Each ``[*batch]``.

    Attributes:
        effective_sample_size: 1 / Σ w̃², between 1 and the number of draws.
        pareto_k: k̂ of the weights' tail; the larger, the heavier (Vehtari et al. 2024).
        threshold: k̂ up to which this many draws make a reliable average.
        bias: expected error of log p̂ to second order, −½ · variance; downwards.
        dominance: by how much the largest normalised weight exceeds an equal share, max w̃ − 1/K; None where it is not
            asked for.
        least_size: effective sample size from which on the average is reliable.

    >>> few = WeightDiagnostics(torch.tensor([80.0, 3.0]), torch.tensor([0.2, 1.1]), 0.5, torch.tensor([-0.01, -0.3]))
    >>> few.reliable.tolist()
    [True, False]
    """

    effective_sample_size: Tensor
    pareto_k: Tensor
    threshold: float | Tensor
    bias: Tensor
    dominance: Tensor | None = None
    least_size: float | Tensor = 0.0

    @property
    def reliable(self) -> Tensor:
        """Where the stated error may be trusted: weights of a light tail, of which none dominates.

        These are k̂ ≤ :attr:`threshold`, an effective sample size of :attr:`least_size`, and a dominance of at most
        1/50. An average into which single draws enter with so much is short of others like them: the largest
        normalised weight tells whether draws are enough where their variance does not (Chatterjee & Diaconis 2018).
        Elsewhere the error is understated. At reliable points errors are about as large as they say, and few are many
        times larger; docs/evidence.md has the measured shares. No diagnosis of draws can see mass where none fell, and
        the rounding of the model's own arithmetic is not in any error here.
        """
        reliable = (self.pareto_k <= self.threshold) & (self.effective_sample_size >= self.least_size)
        return reliable if self.dominance is None else reliable & (self.dominance <= LARGEST_DOMINANCE)

    @staticmethod
    def concatenate(parts: Sequence[WeightDiagnostics]) -> WeightDiagnostics:
        """The diagnostics of the points of several claims, in this order; each point keeps what is asked of it."""
        asked = any(part.dominance is not None for part in parts)
        dominances = [torch.zeros_like(part.bias) if part.dominance is None else part.dominance for part in parts]
        return WeightDiagnostics(
            torch.cat([part.effective_sample_size for part in parts]),
            torch.cat([part.pareto_k for part in parts]),
            _joined([part.threshold for part in parts], parts),
            torch.cat([part.bias for part in parts]),
            torch.cat(dominances) if asked else None,
            _joined([part.least_size for part in parts], parts),
        )


def _joined(demands: Sequence[float | Tensor], parts: Sequence[WeightDiagnostics]) -> float | Tensor:
    """The one number that is asked of all points, or what is asked of each."""
    first = demands[0]
    if isinstance(first, float) and all(isinstance(one, float) and one == first for one in demands):
        return first
    return torch.cat([one + torch.zeros_like(part.bias) for one, part in zip(demands, parts, strict=True)])
