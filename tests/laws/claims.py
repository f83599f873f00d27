"""The laws of claims: what a model says of points depends on its weights and on the points, and on nothing else.

Every model of the tables is tried, its networks made such as have a mode: in training they draw, see the whole batch
and change themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from functools import partial

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Bound, ExactModel, GaussianFamily, Kind, LogDensity, Measure, Model, StandardNormal
from density.data.points import Points
from density.parallel.sharded import sharded
from flows import maf
from flows.networks.columns import ELEMENTWISE
from lvm import PPCA, LatentVariableModel, evidence
from lvm.vae.gradient_quality import gradient_quality
from lvm.vae.gradients import ScoreFunction
from tests.laws.transforms import randomise

# Rounding 2e-16 times a few hundred operations on log-densities of size up to 100.
EXACT = 1e-11


class WithMode(nn.Module):
    """What dropout and batch normalisation are at once, for any number of units: an identity in evaluation mode only.

    In training mode it draws, centres by the whole batch, and moves its own statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.1))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x - self.mean.to(x)
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean().to(self.mean)
        self.batches = self.batches + 1
        return nn.functional.dropout(x, 0.5) - x.mean()


def with_modes(model: Model) -> Model:
    """The same model, in training mode but for every third part, with a :class:`WithMode` in each of its networks."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ELEMENTWISE) or (name == "network" and isinstance(child, nn.Linear)):
                setattr(parent, name, nn.Sequential(child, WithMode()))
    model.train()
    for part in [part for part in model.modules() if not isinstance(part, WithMode)][1::3]:
        part.training = False
    return model.double()


@dataclass(frozen=True)
class ClaimCase:
    """A model and points.

    Attributes:
        make: builds the model, in float64.
        points: so many points ``[n, D]`` that it can have produced.
        context: so many contexts ``[n, C]`` for a conditional model, or None.
    """

    make: Callable[[Generator], Model]
    points: Callable[[Model, Generator, int], Tensor]
    context: Callable[[Model, Generator, int], Tensor | None] = lambda model, generator, n: None


@dataclass(frozen=True)
class Asked:
    """A claim to be put before the laws.

    Attributes:
        ask: for it, given a model, points, contexts and a generator.
        of: which models can make it.
        pointwise: whether what it says of a point is about that point, given the same draws.
    """

    ask: Callable[[Model, Tensor, Tensor | None, Generator], object]
    of: Callable[[Model], bool]
    pointwise: bool = True


def given(context: Tensor | None) -> dict[str, Tensor]:
    """A context as a keyword, which models and claims without one need not have."""
    return {} if context is None else {"context": context}


def _log_density(model: Model, x: Tensor, context: Tensor | None, generator: Generator) -> LogDensity:
    return model.log_density(x, draws=30, generator=generator, **given(context))


def _anyone(model: Model) -> bool:
    return True


def _bound(model: Model) -> bool:
    return isinstance(model, Bound)


def _latent(model: Model) -> bool:
    return isinstance(model, LatentVariableModel)


def _one_prior(model: Model) -> bool:
    return isinstance(model, LatentVariableModel) and not model.prior.context_features


def _continuous(model: Model) -> bool:
    return isinstance(model, LatentVariableModel) and model.prior.measure is Measure.LEBESGUE


def _integrable(model: Model) -> bool:
    return isinstance(model, LatentVariableModel) and (
        bool(model.prior.alphabets) or (_continuous(model) and model.prior.features < 3)
    )


def _diagonal(model: Model) -> bool:
    gaussian = _continuous(model) and isinstance(model.encoder, GaussianFamily)
    return gaussian and isinstance(model.prior, StandardNormal) and not isinstance(model, PPCA)


def own_method(model: Bound, x: Tensor, *, generator: Generator, context: Tensor | None = None) -> LogDensity:
    """A claim that is made by hand, and knows nothing of modes and points."""
    value = model.elbo(x, draws=9, generator=generator, **given(context)).detach()
    return LogDensity(value, Kind.LOWER, "ELBO", measure=model.measure)


def flow_family(model: LatentVariableModel) -> evidence.LocalFit:
    """Local posteriors whose family has a mode itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        family = with_modes(randomise(maf(model.prior.features, 1, (4,)), Generator().manual_seed(0)))
    return evidence.LocalFit(family, steps=4, draws=2, progress=False)


def _masses(model: Model) -> bool:
    return _bound(model) and model.measure is Measure.COUNTING


def _simulated(model: Model) -> bool:
    return _latent(model) and not getattr(model, "context_features", 0)


def _audited(model: Model, x: Tensor, context: Tensor | None, generator: Generator) -> evidence.Audit:
    """Of some points of the space."""
    method = partial(evidence.importance, draws=9)
    return evidence.audit(model, x, **given(context), method=method, generator=generator)


LOCAL = evidence.LocalFit(steps=4, draws=2, progress=False)
ANNEALING = {"steps": 3, "chains": 2, "leapfrog": 1, "pilot": evidence.Pilot(2, 1, 2)}
CLAIMS: dict[str, Asked] = {
    "log_density": Asked(_log_density, _anyone),
    "sharded": Asked(
        lambda m, x, c, g: sharded(lambda x, g: _log_density(m, x, c, g), x, parts=2, generator=g),
        lambda m: not getattr(m, "context_features", 0),
    ),
    "evidence": Asked(
        lambda m, x, c, g: evidence.evidence(m, x, **given(c), generator=g),
        lambda m: isinstance(m, ExactModel) and _bound(m),
    ),
    "evidence, method": Asked(
        lambda m, x, c, g: evidence.evidence(m, x, **given(c), method=own_method, generator=g), _bound, pointwise=False
    ),
    "importance": Asked(lambda m, x, c, g: evidence.importance(m, x, **given(c), draws=30, generator=g), _bound),
    "gap": Asked(lambda m, x, c, g: evidence.gap(m, x, **given(c), draws=30, generator=g), _bound),
    "gap, local": Asked(
        lambda m, x, c, g: evidence.gap(m, x, **given(c), draws=9, local=LOCAL, generator=g),
        _continuous,
        pointwise=False,
    ),
    "prior_average": Asked(lambda m, x, c, g: evidence.prior_average(m, x, **given(c), draws=30, generator=g), _latent),
    "prior_importance": Asked(
        lambda m, x, c, g: evidence.prior_importance(m, x, **given(c), draws=30, generator=g), _latent
    ),
    "local_elbo": Asked(
        lambda m, x, c, g: evidence.local_elbo(m, x, LOCAL, **given(c), draws=9, generator=g),
        _continuous,
        pointwise=False,
    ),
    "local_elbo, family": Asked(
        lambda m, x, c, g: evidence.local_elbo(m, x, flow_family(m), **given(c), draws=9, generator=g),
        lambda m: _continuous(m) and m.prior.features > 1,
        pointwise=False,
    ),
    "audit": Asked(_audited, _masses, pointwise=False),
    "interval": Asked(
        lambda m, x, c, g: evidence.interval(m, x, draws=9, simulated=99, generator=g),
        lambda m: _masses(m) and not getattr(m, "context_features", 0),
        pointwise=False,
    ),
    "annealed": Asked(
        lambda m, x, c, g: evidence.annealed(m, x, **given(c), **ANNEALING, generator=g), _continuous, False
    ),
    "reverse_annealed": Asked(
        lambda m, x, c, g: evidence.reverse_annealed(m, x, **given(c), **ANNEALING, transitions=1, generator=g),
        _continuous,
        False,
    ),
    "sandwich": Asked(
        lambda m, x, c, g: evidence.sandwich(m, 3, **given(None if c is None else c[:3]), **ANNEALING, generator=g),
        _continuous,
        False,
    ),
    "weighted_sandwich": Asked(
        lambda m, x, c, g: evidence.weighted_sandwich(m, 3, draws=9, generator=g), _simulated, pointwise=False
    ),
    "quadrature": Asked(
        lambda m, x, c, g: evidence.quadrature(m, x, **given(c), max_evaluations=3000, generator=g),
        _integrable,
        pointwise=False,
    ),
    "gradient_quality": Asked(
        lambda m, x, c, g: gradient_quality(ScoreFunction(2), m, x, **given(c), repeats=3, generator=g, progress=False),
        _continuous,
        pointwise=False,
    ),
    "kl_parts": Asked(lambda m, x, c, g: evidence.kl_parts(m, x, **given(c), draws=3, generator=g), _one_prior, False),
    "latent_usage": Asked(lambda m, x, c, g: evidence.latent_usage(m, x, **given(c)), _diagonal, False),
}


def equal_calls_are_equal(case: ClaimCase, generator: Generator) -> None:
    """Also after a call, wherever torch's own generator stands, and as in evaluation mode."""
    for name, call, model in _claims(case, generator):
        torch.manual_seed(1)
        first = call(model)
        torch.manual_seed(2)
        for other in (call(model), call(deepcopy(model).eval())):
            for one, two in zip(_tensors(first), _tensors(other), strict=True):
                torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{name}: {m}")  # noqa: B023


def the_model_is_left_as_it_was(case: ClaimCase, generator: Generator) -> None:
    """Its tensors, the mode of every part, and what it has, also where the claim cannot be made."""
    for name, call, model in _claims(case, generator):
        state, modes = deepcopy(model.state_dict()), [(part.training, *vars(part)) for part in model.modules()]

        def unchanged(name: str, model: Model, state: dict[str, Tensor], modes: list[tuple[bool | str, ...]]) -> None:
            now = [(part.training, *vars(part)) for part in model.modules()]
            assert now == modes, f"{name} changed a mode, or added something"
            for key, tensor in model.state_dict().items():
                assert tensor.equal(state[key]), f"{name} changed {key}"

        call(model)
        unchanged(name, model, state, modes)
        for part in model.modules():
            if isinstance(part, WithMode):
                part.register_forward_pre_hook(_stop)
        with suppress(Stopped):  # a claim that does not ask every network is made
            call(model)
        unchanged(f"{name}, stopped,", model, state, modes)


def a_point_is_judged_by_itself(case: ClaimCase, generator: Generator) -> None:
    """Whichever its neighbours are; and alone, where nothing is drawn."""
    model = with_modes(case.make(generator))
    x, others = case.points(model, generator, 4), case.points(model, generator, 4)
    context = case.context(model, generator, 4)
    others = torch.cat([x[:1], others[1:]])
    for name, asked in CLAIMS.items():
        if asked.pointwise and asked.of(model):
            first, second = (
                _log_densities(asked.ask(model, rows, context, Generator().manual_seed(0))) for rows in (x, others)
            )
            assert first, name
            for one, two in zip(first, second, strict=True):
                torch.testing.assert_close(one.value[0], two.value[0], rtol=EXACT, atol=EXACT)
    if isinstance(model, ExactModel):
        whole = _log_density(model, x, context, generator).value
        for i in range(4):
            alone = _log_density(model, x[i : i + 1], None if context is None else context[i : i + 1], generator)
            torch.testing.assert_close(alone.value, whole[i : i + 1], rtol=EXACT, atol=EXACT)


def claims_know_their_points(case: ClaimCase, generator: Generator) -> None:
    """All of them, also those that other claims are made of."""
    model = with_modes(case.make(generator))
    x, context = case.points(model, generator, 4), case.context(model, generator, 4)
    for name, asked in CLAIMS.items():
        if asked.of(model) and name not in ("sandwich", "weighted_sandwich", "evidence, method"):
            for claim in _log_densities(asked.ask(model, x, context, Generator().manual_seed(0))):
                assert claim.points == Points.of(x), name
    if _continuous(model):
        made = evidence.sandwich(
            model, 3, **given(None if context is None else context[:3]), **ANNEALING, generator=generator
        )
        assert made.lower.points == made.upper.points == Points.of(made.x)
    claim = _log_density(model, x, context, generator)
    if claim.kind is Kind.EXACT:
        with pytest.raises(ValueError, match="compared at the same points"):
            claim - _log_density(model, x.flip(0), context, generator)


def one_context_stands_for_all_points(case: ClaimCase, generator: Generator) -> None:
    """A single context, as a row or without one, is as good as a copy of it for each point."""
    model = with_modes(case.make(generator))
    x, contexts = case.points(model, generator, 3), case.context(model, generator, 3)
    if contexts is None:
        return
    one = contexts[0]
    for name, asked in CLAIMS.items():
        if asked.of(model):
            forms = (one.expand(3, -1), one.unsqueeze(0), *([one] if asked.pointwise else []))
            expected, *found = (_tensors(_ask(asked, x, context, model)) for context in forms)
            for tensors in found:
                for first, second in zip(expected, tensors, strict=True):
                    torch.testing.assert_close(first, second, rtol=EXACT, atol=EXACT, equal_nan=True, msg=name)


def values_that_cannot_be_are_refused(case: ClaimCase, generator: Generator) -> None:
    """Numbers between integers, in the columns that are counted."""
    model = with_modes(case.make(generator))
    counted = [column is Measure.COUNTING for column in model.measure.columns(model.features)]
    x, context = case.points(model, generator, 3), case.context(model, generator, 3)
    between = x + 0.37 * torch.tensor(counted)
    for asked in CLAIMS.values():
        if any(counted) and asked.pointwise and asked.of(model):
            with pytest.raises(ValueError, match=r"expects|is a distribution over"):
                asked.ask(model, between, context, generator)


claim_laws: list[Callable[[ClaimCase, Generator], None]] = [
    equal_calls_are_equal,
    the_model_is_left_as_it_was,
    a_point_is_judged_by_itself,
    claims_know_their_points,
    one_context_stands_for_all_points,
    values_that_cannot_be_are_refused,
]


class Stopped(Exception):
    """Raised in the middle of a claim."""


def _stop(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
    raise Stopped


def _claims(case: ClaimCase, generator: Generator) -> Iterator[tuple[str, Callable[[Model], object], Model]]:
    """Every claim that a model can make, as a function of the model alone, and the model."""
    model = with_modes(case.make(generator))
    x, context = case.points(model, generator, 3), case.context(model, generator, 3)
    for name, asked in CLAIMS.items():
        if asked.of(model):
            call = partial(_ask, asked, x, context)
            yield name, call, deepcopy(model)


def _ask(asked: Asked, x: Tensor, context: Tensor | None, model: Model) -> object:
    return asked.ask(model, x, context, Generator().manual_seed(0))


def _log_densities(result: object) -> list[LogDensity]:
    if isinstance(result, LogDensity):
        return [result]
    return [claim for part in _parts(result) for claim in _log_densities(part)]


def _tensors(result: object) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [tensor for part in _parts(result) for tensor in _tensors(part)]


def _parts(result: object) -> list[object]:
    return [getattr(result, field.name) for field in fields(result)] if is_dataclass(result) else []
