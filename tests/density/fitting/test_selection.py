"""Candidates are fitted to the same rows, judged by the same others, and do not depend on one another."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Checkpoint, Density, History, NonFiniteObjective, Training, select
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


def test_weights_are_those_of_fits_and_of_held_out_rows(x: Tensor) -> None:
    weights = torch.arange(80.0) % 4  # a fourth of the rows is not there, whatever stands in them
    there = weights > 0
    found = []
    for rows, own in ((x.where(there.unsqueeze(1), 100.0), weights), (x[there], weights[there])):
        torch.manual_seed(0)
        found.append(select(CANDIDATES, rows, weights=own, generator=Generator().manual_seed(1)))
    one, other = ({name: each.validation for name, each in of.histories.items()} for of in found)
    assert one == other
    assert found[0].scores == found[1].scores
    for name, history in found[0].histories.items():
        assert found[0].scores[name].mean == pytest.approx(history.validation[history.best], rel=1e-5)
    with pytest.raises(ValueError, match="select expects finite weights, none of them negative"):
        select(CANDIDATES, x, weights=-weights)


def test_conditional_bounds_are_asked_with_their_contexts(x: Tensor) -> None:
    given = {"vae": (lambda: VAE.gaussian(1, 1, hidden=(4,), context_features=1), SHORT)}
    found = select(given, x[:, 1:], context=x[:, :1], generator=Generator().manual_seed(0))
    assert math.isfinite(found.scores["vae"].mean)


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


class Doomed(nn.Module):
    """A model whose fit becomes infinite, or which leaves nan behind."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def fit(self, x: Tensor, training: Training, *, generator: Generator | None = None) -> History:
        if self.raises:
            raise NonFiniteObjective("the objective became inf", History(stopped="non-finite objective"))
        return History()

    def elbo(self, x: Tensor, *, draws: int, generator: Generator) -> Tensor:
        return torch.full((len(x),), math.nan)


@pytest.mark.parametrize("raises", [True, False])
def test_a_candidate_that_fails_loses_and_takes_nothing_with_it(raises: bool, x: Tensor) -> None:
    candidates = {"doomed": (lambda: Doomed(raises), SHORT), "narrow": CANDIDATES["narrow"]}
    found = select(candidates, x, generator=Generator().manual_seed(1))
    assert found.name == "narrow"
    assert found.scores["doomed"].mean == -math.inf
    assert set(found.histories) == set(candidates)
    generator = Generator().manual_seed(1)
    with pytest.raises(NonFiniteObjective if raises else ValueError):
        select({"doomed": candidates["doomed"]}, x, generator=generator)
    after = Generator().manual_seed(1)
    torch.randperm(len(x), generator=after)  # the rows that are held out, whatever becomes of the fits
    assert generator.get_state().equal(after.get_state())
