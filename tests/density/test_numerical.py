"""The error that numerical parts make in a claim by weights."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density import Kind, LogDensity
from density.numerical import LEAST, LOOSER, Numerical, with_numerical_error

OFF = torch.tensor([[1e-4, 0.0, 5e-4], [0.0, 2e-3, 0.0], [1e-4, 0.0, 0.0], [0.0, 0.0, 1e-3]], dtype=torch.float64)


class Off(Numerical):
    """Log-weights of draws ``[4, 3]`` that are off in proportion to the looseness."""

    def __init__(self, tolerance: float) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros((), dtype=torch.float64))
        self.tolerance = tolerance

    def log_weights(self, draws: int, generator: Generator) -> Tensor:
        assert draws == len(OFF)
        return torch.randn(OFF.shape, generator=generator, dtype=torch.float64) + self.looseness * OFF


def test_of_draws_the_worst_counts_at_each_point() -> None:
    """And no draw counts for less than the root mean square of all; the draws of both evaluations are the same."""
    bound = LogDensity(torch.zeros(3, dtype=torch.float64), Kind.LOWER, "weights")
    apart = (LOOSER - 1) * OFF
    expected = torch.maximum(apart, apart.square().mean().sqrt()).amax(0) + LEAST * 0.1
    for tolerance, kind in ((0.1, Kind.LOWER), (1e-3, Kind.ESTIMATE)):
        part = Off(tolerance)
        claim = with_numerical_error(part, bound, part.log_weights, Generator().manual_seed(0))
        assert claim.numerical_error is not None
        torch.testing.assert_close(claim.numerical_error, expected + LEAST * (tolerance - 0.1), rtol=0, atol=1e-12)
        assert claim.kind is kind


def test_without_numerical_parts_nothing_is_drawn_or_said() -> None:
    bound, generator = LogDensity(torch.zeros(3), Kind.LOWER, "weights"), Generator().manual_seed(0)
    before = generator.get_state()
    assert with_numerical_error(torch.nn.Linear(1, 1), bound, Off(0.1).log_weights, generator) is bound
    assert generator.get_state().equal(before)
