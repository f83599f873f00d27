"""Candidates are fitted to the same rows, judged by the same others, and do not depend on one another."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, Density, Training, select
from flows import Flow, real_nvp
from lvm import VAE

SHORT = Training(epochs=4, batch_size=32, validation=0.25, progress=False)


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(80, 2, generator=generator).cumsum(1)


def flow(hidden: int) -> Callable[[], Flow]:
    return lambda: real_nvp(2, layers=2, hidden=(hidden,))


def vae() -> VAE:
    return VAE.gaussian(2, 1, hidden=(8,))


CANDIDATES = {
    "narrow": (flow(4), SHORT),
    "wide": (flow(16), SHORT),
    "decayed": (flow(16), Training(epochs=8, batch_size=16, validation=0.25, weight_decay=1.0, progress=False)),
}


@pytest.mark.parametrize("own", [True, False])
def test_every_candidate_is_the_fit_it_would_be_alone(own: bool, x: Tensor) -> None:
    def chosen(names: list[str]) -> tuple[list[list[float]], Tensor]:
        torch.manual_seed(2)
        found = select(
            {name: CANDIDATES[name] for name in names}, x, generator=Generator().manual_seed(1) if own else None
        )
        for name in names:
            history = found.histories[name]
            assert found.scores[name].mean == pytest.approx(history.validation[history.best], rel=1e-5)
        assert found.scores[found.name].difference == 0
        assert found.scores[found.name].mean == max(score.mean for score in found.scores.values())
        return [found.histories[name].validation for name in sorted(names)], found.model.log_prob(x)

    together, one = chosen(["narrow", "wide", "decayed"])
    reversed_, other = chosen(["decayed", "wide", "narrow"])
    assert together == reversed_
    assert one.equal(other)
    assert [chosen([name])[0][0] for name in sorted(CANDIDATES)] == together


def test_errors_are_of_pairs(x: Tensor) -> None:
    """Against the values of both models at the rows that the first permutation holds out."""
    found = select({"flow": (flow(8), SHORT), "vae": (vae, SHORT)}, x, generator=Generator().manual_seed(1))
    rows = torch.randperm(len(x), generator=Generator().manual_seed(1))[:20]
    assert isinstance(found.model, Density) == (found.name == "flow")
    best, other = found.scores[found.name], found.scores["vae" if found.name == "flow" else "flow"]
    assert (best.difference, best.error) == (0, 0)
    assert other.difference == pytest.approx(other.mean - best.mean)
    assert 0 < other.error < math.inf
    if isinstance(found.model, Density):
        assert best.mean == pytest.approx(found.model.log_prob(x[rows]).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({}, "at least one candidate"),
        ({"a": (vae, Training(validation=0))}, r"got shares of \[0\]"),
        ({"a": (vae, SHORT), "b": (vae, Training(validation=0.5))}, r"got shares of \[0.25, 0.5\]"),
        ({"a": (vae, Training(validation=0.001))}, "a share of 0.001 of 80 rows is none"),
        ({"a": (vae, Training(refit=True))}, "takes no refit and no checkpoint; candidate 'a'"),
        ({"a": (vae, Training(checkpoint=Checkpoint("a")))}, "takes no refit and no checkpoint; candidate 'a'"),
    ],
)
def test_what_cannot_be_compared(
    candidates: dict[str, tuple[Callable[[], VAE], Training]], message: str, x: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        select(candidates, x)
