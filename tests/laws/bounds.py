"""The laws that every model with log-weights obeys, as functions of a case: a new model is one new line in a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Generator, Tensor, nn

from density import ExactModel, Kind
from lvm import PPCA, AmortisedModel, LayeredModel, LinkedModel
from lvm.components import MixtureModel
from lvm.evidence import evidence, gap, importance

# One law compares some ten numbers with their standard errors, and a normal one is beyond 4.5 of them once in 150,000.
SIGMAS = 4.5


@dataclass(frozen=True)
class BoundCase:
    """A model with log-weights, to be put before the laws.

    Attributes:
        make: builds it, in float64 and with random parameters, from a generator. The weights' variance must be finite:
            q must be broader than the posterior.
        log_p: log p(x) ``[n]`` for points ``[n, D]`` by other means: a closed form of scipy, quadrature, enumeration.
            Of a conditional model it takes contexts ``[n, C]``, too.
        binary: whether points are bits.
        exact: whether every log-weight is log p(x).
        gradient_free: names (or their beginnings) of parameters that the ELBO's gradient does not reach.
    """

    make: Callable[[Generator], LayeredModel]
    log_p: Callable[..., Tensor]
    binary: bool = False
    exact: bool = False
    gradient_free: tuple[str, ...] = ()

    def points(self, model: LayeredModel, generator: Generator, *batch: int) -> Tensor:
        x = torch.randn(*batch, model.features, generator=generator, device=generator.device, dtype=torch.float64)
        return (x > 0).double() if self.binary else x

    def truth(self, model: LayeredModel, x: Tensor, **given: Tensor) -> Tensor:
        """log p(x) by those means, which run on the CPU, where x is."""
        if x.device.type == "cpu":
            return self.log_p(model, x, **given)
        given = {name: context.cpu() for name, context in given.items()}
        return self.log_p(deepcopy(model).cpu(), x.cpu(), **given).to(x)

    def given(self, model: LayeredModel, generator: Generator, *batch: int) -> dict[str, Tensor]:
        """Contexts for points of that batch shape, as keywords: none for an unconditional model."""
        width = model.context_features
        shape = (*batch, width)
        normal = (
            torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64) if width else None
        )
        return {} if normal is None else {"context": normal}


def the_mean_weight_is_the_density(case: BoundCase, generator: Generator) -> None:
    """E_q w = p(x), each point within its standard error."""
    model, draws = case.make(generator), 8000
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    with torch.no_grad():
        relative = (model.log_weights(x, draws, **given, generator=generator) - case.truth(model, x, **given)).exp()
    error = relative.std(0) / math.sqrt(draws)
    assert (error < 0.1).all(), "the weights are too heavy to test anything"
    assert ((relative.mean(0) - 1).abs() <= SIGMAS * error + 1e-9).all()


def the_bounds_are_in_order(case: BoundCase, generator: Generator) -> None:
    """ELBO = L_1 ≤ L_2 ≤ L_8 ≤ L_64 ≤ log p(x), paired on the same draws; strictly, unless the model is exact."""
    model, draws = case.make(generator), 2**13
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    with torch.no_grad():
        log_weights = model.log_weights(x, draws, **given, generator=generator)
        log_p = case.truth(model, x, **given)
    sizes = (1, 2, 8, 64)
    bounds = [_block_bounds(log_weights, size) for size in sizes]
    for smaller, larger, ratio in zip(bounds, bounds[1:], (2, 4, 8), strict=False):
        rise = larger - smaller.reshape(-1, ratio, len(x)).mean(1)
        assert (rise >= -1e-9).all(), "log-mean-exp is concave: on the same draws, no block may fall"
        assert case.exact or (rise.mean(0) > 0).all()
    for bound in bounds:
        error = bound.std(0) / math.sqrt(len(bound))
        assert (bound.mean(0) <= log_p + SIGMAS * error + 1e-9).all()
    if case.exact:
        torch.testing.assert_close(log_weights, log_p.expand_as(log_weights), rtol=1e-9, atol=1e-9)
    else:
        assert (bounds[0].mean(0) < log_p - SIGMAS * bounds[0].std(0) / math.sqrt(draws)).any(), "the case is not loose"


def the_elbo_is_the_mean_log_weight(case: BoundCase, generator: Generator) -> None:
    """Also where its KL is in closed form; and one draw is as unbiased as many."""
    model, draws = case.make(generator), 2000
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    with torch.no_grad():
        log_weights = model.log_weights(x, draws, **given, generator=generator)
        many = model.elbo(x, **given, draws=draws, generator=generator)
        ones = model.elbo(x.expand(draws, *x.shape), **given, generator=generator)
    assert many.shape == (4,)
    assert ones.shape == (draws, 4)
    # With the KL in closed form the ELBO's draws have another spread than log-weights.
    error = torch.hypot(ones.std(0), log_weights.std(0)) / math.sqrt(draws)
    for mean in (many, ones.mean(0)):
        assert ((mean - log_weights.mean(0)).abs() <= SIGMAS * error + 1e-9).all()


def claims_say_what_they_are(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    log_p = case.truth(model, x, **given)
    claim = model.log_density(x, **given, draws=1000, generator=generator)
    assert claim.measure is model.measure
    assert claim.value.shape == (4,)
    assert not claim.value.requires_grad
    bound = importance(model, x, **given, draws=1000, generator=generator)
    assert bound.kind is Kind.LOWER
    assert bound.monte_carlo_error is not None
    assert bound.weights is not None
    assert bound.weights.effective_sample_size.shape == (4,)
    # The bias of log-mean-exp is half its variance.
    bias = 0.5 * bound.monte_carlo_error.square()
    assert ((bound.value - log_p).abs() <= SIGMAS * bound.monte_carlo_error + bias + 1e-7).all()
    report = gap(model, x, **given, draws=1000, generator=generator)
    assert report.difference.monte_carlo_error is not None
    oracle = model.log_weights(x, 8000, **given, generator=generator).detach()
    other = oracle.std(0) / math.sqrt(len(oracle))
    error = torch.hypot(report.difference.monte_carlo_error, other)
    assert ((report.difference.value - (log_p - oracle.mean(0))).abs() <= SIGMAS * error + bias + 1e-7).all()
    if isinstance(model, ExactModel):
        assert claim.kind is report.log_density.kind is report.difference.kind is Kind.EXACT
        torch.testing.assert_close(claim.value, log_p, rtol=1e-9, atol=1e-9)
        assert claim.monte_carlo_error is None
    else:
        assert claim.kind is report.log_density.kind is report.difference.kind is Kind.LOWER
        assert claim.method == "importance-weighted bound, 1000 draws"
    assert report.elbo.kind is Kind.LOWER
    if case.exact:
        assert report.difference.value.abs().max() < 1e-9


def weights_have_their_shape_and_dtype(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    for dtype in (torch.float64, torch.float32):
        model = model.to(dtype)
        for batch in ((), (4,), (2, 3)):
            x = case.points(model, generator, *batch).to(dtype)
            given = {name: c.to(dtype) for name, c in case.given(model, generator, *batch).items()}
            log_weights = model.log_weights(x, 5, **given, generator=generator)
            assert log_weights.shape == (5, *batch)
            assert log_weights.dtype == dtype
            assert log_weights.device == x.device
            assert model.elbo(x, **given, draws=2, generator=generator).shape == batch
    with pytest.raises(TypeError, match=r"computes in torch\.float32"):
        model.log_weights(x.double(), 5)


def weights_come_from_the_generator(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    before = torch.get_rng_state()

    def seeded(seed: int) -> Tensor:
        return model.log_weights(x, 5, **given, generator=Generator(generator.device).manual_seed(seed))

    assert seeded(0).equal(seeded(0))
    assert case.exact or not seeded(0).equal(seeded(1))
    model.elbo(x, **given, draws=3, generator=generator)
    model.log_density(x, **given, draws=3, generator=generator)
    model.sample(3, **given, generator=generator)
    assert torch.get_rng_state().equal(before), "the global generator moved"


def the_elbo_has_a_gradient_in_every_parameter(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    x, given = case.points(model, generator, 20), case.given(model, generator, 20)
    parameters = {name: p for name, p in model.named_parameters() if p.numel()}
    gradients = torch.autograd.grad(
        model.elbo(x, **given, draws=3, generator=generator).sum(), list(parameters.values()), allow_unused=True
    )
    for name, gradient in zip(parameters, gradients, strict=True):
        alive = gradient is not None and bool((gradient != 0).any())
        assert alive is not name.startswith(case.gradient_free or ("\0",)), name
        assert gradient is None or gradient.isfinite().all(), name


def points_do_not_see_each_other(case: BoundCase, generator: Generator) -> None:
    """Nor each other's contexts."""
    model = case.make(generator)
    x = case.points(model, generator, 5)
    others = torch.cat([x[:1], case.points(model, generator, 4)])
    given, given_others = case.given(model, generator, 5), case.given(model, generator, 5)
    for name, context in given.items():
        given_others[name][0] = context[0]

    def first(x: Tensor, given: dict[str, Tensor]) -> Tensor:
        return model.log_weights(x, 3, **given, generator=Generator(generator.device).manual_seed(0))[:, 0]

    torch.testing.assert_close(first(others, given_others), first(x, given), rtol=1e-12, atol=1e-12)


def equal_weights_have_no_tail(case: BoundCase, generator: Generator) -> None:
    """Where every log-weight is log p(x), only rounding tells them apart, in either dtype: nothing is in doubt."""
    if not case.exact:
        return
    model = case.make(generator)
    x, given = case.points(model, generator, 200), case.given(model, generator, 200)
    for dtype in (torch.float64, torch.float32):
        cast = {name: c.to(dtype) for name, c in given.items()}
        claim = importance(model.to(dtype), x.to(dtype), **cast, draws=1000, generator=generator)
        assert claim.weights is not None
        assert claim.weights.pareto_k.isneginf().all()
        assert claim.unreliable == 0


def generation_needs_no_encoder(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    given = case.given(model, generator, 2)

    def drawn(model: LayeredModel) -> Tensor:
        return model.sample(7, **given, generator=Generator(generator.device).manual_seed(0))

    expected = drawn(model)
    assert expected.shape == (7, *(2 for _ in given), model.features)
    without = deepcopy(model)
    if isinstance(without._modules.get("encoder"), nn.Module):
        del without.encoder
    assert drawn(without).equal(expected)


def misuse_is_one_clear_error(case: BoundCase, generator: Generator) -> None:
    model = case.make(generator)
    x, given = case.points(model, generator, 4), case.given(model, generator, 4)
    for draws in (0, -1, 2.0):
        for call in (
            lambda d: model.log_weights(x, d, **given),
            lambda d: model.elbo(x, **given, draws=d),
            lambda d: importance(model, x, **given, draws=d),
            lambda d: gap(model, x, **given, draws=d),
        ):
            with pytest.raises(ValueError, match="draws must be a positive int"):
                call(draws)
    bad = x.clone()
    bad[1, 0] = math.inf if model.incomplete else math.nan
    wide = torch.cat([x, x], -1)
    claims = (model.log_density, partial(gap, model), partial(importance, model), model.fit)
    for use in (partial(claim, **given) for claim in claims):
        with pytest.raises(ValueError, match=r"row 1, column 0 is (nan|inf)"):
            use(bad)
        with pytest.raises(ValueError, match=r"expects x of shape \[\*batch, \d\]; got \[4, \d\]"):
            use(wide)
        with pytest.raises(ValueError, match="at least one row"):
            use(x[:0])
        with pytest.raises(TypeError, match="floating point"):
            use(x.long())
        if use.func == model.fit and isinstance(model, MixtureModel | PPCA):
            continue  # they read arrays, too
        with pytest.raises(TypeError, match=r"torch\.Tensor; got ndarray"):
            use(x.cpu().numpy())  # type: ignore[arg-type]
    for compute in (lambda x: model.log_weights(x, 2, **given), lambda x: model.elbo(x, **given)):
        with pytest.raises(ValueError, match=r"expects x of shape"):
            compute(wide)


def contexts_are_given_where_they_are_due(case: BoundCase, generator: Generator) -> None:
    """One clear error in the model's name wherever one is missing, superfluous, of another size or not finite."""
    model = case.make(generator)
    name, width = type(model).__name__, model.context_features
    x = case.points(model, generator, 4)
    context = x.new_zeros(4, max(1, width))
    entrances: list[Callable[..., object]] = [
        lambda x, **given: model.log_weights(x, 2, **given),
        lambda x, **given: model.sample(2, **given),
        model.elbo,
    ]
    of_data: list[Callable[..., object]] = [
        model.log_density,
        *(partial(f, model) for f in (gap, importance, evidence)),
    ]
    of_data += [model.fit] if isinstance(model, AmortisedModel | LinkedModel) else []
    for use in (*entrances, *of_data):
        if not width:
            with pytest.raises(ValueError, match=f"{name} takes no context; got one"):
                use(x, context=context)
            continue
        with pytest.raises(ValueError, match=rf"{name} needs a context of shape \[\*batch, {width}\]; got none"):
            use(x)
        with pytest.raises(ValueError, match=rf"{name} expects a context of .*, {width}\]; got \[4, {2 * width}\]"):
            use(x, context=torch.cat([context, context], -1))
        with pytest.raises(TypeError, match=rf"{name} .*context is torch\.float32"):
            use(x, context=context.float())
    for use in of_data if width else ():
        with pytest.raises(ValueError, match=f"{name} expects (a context for each of the 4 rows|batch shapes that br)"):
            use(x, context=context[:3])
        with pytest.raises(ValueError, match=f"{name}, as context, expects finite data; row 0, column 0 is nan"):
            use(x, context=torch.full_like(context, math.nan))


bound_laws: list[Callable[[BoundCase, Generator], None]] = [
    the_mean_weight_is_the_density,
    the_bounds_are_in_order,
    the_elbo_is_the_mean_log_weight,
    claims_say_what_they_are,
    weights_have_their_shape_and_dtype,
    weights_come_from_the_generator,
    the_elbo_has_a_gradient_in_every_parameter,
    points_do_not_see_each_other,
    equal_weights_have_no_tail,
    generation_needs_no_encoder,
    misuse_is_one_clear_error,
    contexts_are_given_where_they_are_due,
]


def _block_bounds(log_weights: Tensor, size: int) -> Tensor:
    """Log-mean-exp of blocks of that many draws: ``[draws / size, n]``."""
    return log_weights.reshape(-1, size, log_weights.shape[1]).logsumexp(1) - math.log(size)
