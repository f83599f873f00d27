"""Choose among fits of the same rows by the same held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from density.contract import Bound, Density
from density.data.rows import check_weights
from density.data.ties import Said, said_once
from density.evaluating import evaluating
from density.fitting.best_weights import NonFiniteObjective
from density.fitting.rows import split
from density.fitting.training import Training
from density.history import History
from density.parallel.random_streams import Randomness

DRAWS = 16  # of the latent for each held-out point
ROWS_AT_ONCE = 1024

Candidate = tuple[Callable[[], Any], Training]


@dataclass(frozen=True)
class Score:
    """What the held-out rows say of a candidate, nats per point.

    Attributes:
        mean: of log p(x), or of the ELBO, over the held-out rows.
        difference: of this mean from the best candidate's, 0 or less.
        error: standard error of the difference, over rows; that of the choice among fits is not in it.
    """

    mean: float
    difference: float
    error: float


@dataclass(frozen=True)
class Selection:
    """The best of several fits by held-out rows, which it may flatter: they chose it.

    Attributes:
        model: the best, fitted.
        name: its name.
        histories: of every candidate.
        scores: of every candidate.

    >>> Selection(None, "b", {}, {"b": Score(-1.0, 0.0, 0.0), "a": Score(-1.5, -0.5, 0.1)}).scores["a"].difference
    -0.5
    """

    model: Any
    name: str
    histories: dict[str, History]
    scores: dict[str, Score]


def select(
    candidates: Mapping[str, Candidate],
    x: Tensor,
    *,
    context: Tensor | None = None,
    weights: Tensor | None = None,
    generator: Generator | None = None,
) -> Selection:
    """Fit several candidates to the same rows, and keep the one that does best on the same held-out rows.

    Every candidate is built and fitted from the same random state, so that no result depends on the others or on their
    order. Held-out rows are judged by log p(x) where a model has it, and else by its ELBO; candidates of both sorts are
    compared all the same, and a bound then does worse than its model by its gap. One fitted model is kept at a time
    besides the best.

    Args:
        candidates: by name, a function that builds an unfitted model, and the settings of its fit. All hold out the
            same share of rows. A fit that becomes nan or infinite, and a model that is −∞ at a held-out row, lose.
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of conditional models.
        weights: of the rows ``[n]``, not negative, in fits and in means over held-out rows; 0 is a row that is not
            there.
        generator: of the fits; torch's own if None.

    Raises:
        ValueError: no candidates; shares of held-out rows that differ, or none held out; a refit, after which no rows
            are held out, or a checkpoint: candidates differ in more than it can tell; −∞ everywhere.
        NonFiniteObjective: of every candidate.

    >>> from density import DiagonalGaussian, Gaussian
    >>> select({"a": (lambda: None, Training(validation=0.0))}, torch.zeros(9, 2))
    Traceback (most recent call last):
        ...
    ValueError: select needs held-out rows, the same for all candidates; got shares of [0.0]
    """
    held_out = _share(candidates)
    given = {} if context is None else {"context": context}
    if weights is not None:
        there = check_weights(weights, "select", len(x)) > 0
        if context is not None and len(context) == len(x):  # any other number a fit refuses
            given = {"context": context[there]}
        x, given = x[there], given | {"weights": weights[there].to(x)}
    randomness = Randomness(generator, x.device)
    begun = randomness.state()
    rows, _ = split(len(x), held_out, randomness)  # as a fit does
    after = randomness.state()
    if not len(rows):
        raise ValueError(f"select needs held-out rows; a share of {held_out} of {len(x)} rows is none")
    best, best_name, failure = None, "", None
    histories: dict[str, History] = {}
    values: dict[str, Tensor] = {}
    means: dict[str, float] = {}
    share = given.get("weights", x.new_ones(len(x)))[rows].double()
    share = share / share.sum()
    said: Said = set()
    try:
        for name, (build, training) in candidates.items():
            randomness.restore(begun)
            model = build()
            randomness.restore(begun)
            try:
                with said_once(said):
                    histories[name] = model.fit(x, training, generator=generator, **given)
                judged = _judged(model, x[rows], given["context"][rows] if "context" in given else None)
                values[name] = judged.nan_to_num(nan=-torch.inf)
            except NonFiniteObjective as error:
                histories[name], failure = error.history, error
                values[name] = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=x.device)
            means[name] = float(share @ values[name])
            if means[name] > -math.inf and (best is None or means[name] > means[best_name]):
                best, best_name = model, name
    finally:
        randomness.restore(after)
    if best is None:
        raise failure or ValueError("select: every candidate has log p(x) = −∞ at some held-out row")
    scores = {name: _score(own, values[best_name], share) for name, own in values.items()}
    return Selection(best, best_name, histories, scores)


def _share(candidates: Mapping[str, Candidate]) -> float:
    if not candidates:
        raise ValueError("select needs at least one candidate; got none")
    shares = sorted({training.validation for _, training in candidates.values()})
    if len(shares) > 1 or not shares[0]:
        raise ValueError(f"select needs held-out rows, the same for all candidates; got shares of {shares}")
    for name, (_, training) in candidates.items():
        if training.refit or training.checkpoint is not None:
            raise ValueError(f"select takes no refit and no checkpoint; candidate {name!r} asks for one")
    return shares[0]


def _judged(model: Density | Bound, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x), or else an unbiased estimate of the ELBO, in float64, always by the same draws."""
    generator = Generator(x.device).manual_seed(0)
    contexts = [None] * len(x) if context is None else context.split(ROWS_AT_ONCE)
    found = []
    with evaluating(model), torch.no_grad():
        for points, given in zip(x.split(ROWS_AT_ONCE), contexts, strict=False):
            if isinstance(model, Density):
                found.append(model.log_prob(points, given).double())
            else:
                about = {} if given is None else {"context": given}
                found.append(model.elbo(points, draws=DRAWS, generator=generator, **about).double())
    return torch.cat(found)


def _score(values: Tensor, best: Tensor, share: Tensor) -> Score:
    """Weighted means, and the error of a mean of independent rows with these shares of all weight."""
    difference, n = (values - best).where(values > -torch.inf, -torch.inf), len(values)
    mean = share @ difference
    scatter = (share * (difference - mean)).square().sum() * n / (n - 1) if n > 1 else mean.new_tensor(math.nan)
    return Score((share @ values).item(), mean.item(), scatter.sqrt().item())
