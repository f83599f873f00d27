"""Flows as densities: mass one, samples that follow log_prob, contexts, fitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from density import (
    DiagonalGaussian,
    Gaussian,
    Kind,
    StandardNormal,
    Training,
    lbfgs,
)
from flows import (
    ActNorm,
    Chain,
    Flow,
    Linear,
    Logit,
    LULinear,
    QRLinear,
    SplineAutoregressive,
    Transform,
    glow,
    iaf,
    linear_flow,
    maf,
    neural_spline_flow,
    real_nvp,
)
from tests.cases.flows import FLOWS, built
from tests.cases.transforms import CONTEXT, NARROW, matrix, vector
from tests.laws.transforms import randomise


def logit_normal() -> Flow:
    return Flow(StandardNormal(2), Chain(Logit(), maf(2, 2, NARROW).transform))


@pytest.mark.parametrize("name", FLOWS)
def test_mass_is_one(name: str, generator: Generator) -> None:
    flow, context = built(name, generator)
    with torch.no_grad():
        draws = flow.sample(4000, context=context, generator=generator)
        low, high = draws.amin(0), draws.amax(0)
        margin = 1.5 * (high - low)
        points = 4001 if flow.features == 1 else 801
        axes = [
            torch.linspace(a, b, points, dtype=torch.float64) for a, b in zip(low - margin, high + margin, strict=True)
        ]
        grid = torch.cartesian_prod(*axes).reshape(-1, flow.features)
        cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
        mass = flow.log_prob(grid, context).exp().sum() * cell
    # The trapezoid rule converges faster than any power for smooth densities; what the margin cuts off is a tail that
    # 4000 draws did not come near: at most 2e-6 here, and no less on a finer grid. Second derivatives of splines jump
    # at their knots, so that there the error is one of the square of the grid's step.
    kinks = any(isinstance(module, SplineAutoregressive) for module in flow.modules())
    assert abs(mass - 1) < (1e-3 if kinks else 1e-5)


def test_mass_is_one_inside_the_unit_square(generator: Generator) -> None:
    flow = randomise(logit_normal(), generator)
    axis = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().mean()
    # Midpoint rule, density and derivatives zero at the edge.
    assert abs(mass - 1) < 1e-4
    x = flow.sample(1000, generator=generator)
    assert ((x > 0) & (x < 1)).all()


@pytest.mark.parametrize("name", FLOWS)
def test_samples_follow_log_prob(name: str, generator: Generator) -> None:
    """E_p[q/p] = 1 for Gaussians q inside p, at several places: it fails if samples come from anything but p."""
    flow, context = built(name, generator)
    n = 20_000
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(n, context=context, generator=generator)
        torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=1e-10, atol=1e-10)
        again = flow.sample(n, context=context, generator=generator.manual_seed(5))
        assert again.equal(flow.sample_with_log_prob(n, context=context, generator=generator.manual_seed(5))[0])
        median = x.median(0).values
        width = (x - median).abs().median(0).values
        for shift in (-0.7, 0.0, 0.7):
            q = torch.distributions.Normal(median + shift * width, 0.5 * width, validate_args=False)
            ratio = (q.log_prob(x).sum(-1) - log_prob).exp()
            assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(n), shift
            assert ratio.std() / math.sqrt(n) < 0.05


def test_a_conditional_flow_samples_every_context(generator: Generator) -> None:
    for name in ("glow, context", "conditional base", "conditional base and transform", "flow on a flow"):
        flow, _ = built(name, generator)
        contexts = torch.stack([vector(generator, CONTEXT) for _ in range(6)]).reshape(3, 2, CONTEXT)
        x, log_prob = flow.sample_with_log_prob(5, context=contexts, generator=generator)
        assert x.shape == (5, 3, 2, 2)
        assert log_prob.shape == (5, 3, 2)
        torch.testing.assert_close(log_prob, flow.log_prob(x, contexts))
        torch.testing.assert_close(log_prob[1, 2, 0], flow.log_prob(x[1, 2, 0], contexts[2, 0]))
        again = flow.sample(5, context=contexts, generator=generator)
        assert again.shape == x.shape
        # All draws are their own: no noise is shared between contexts.
        for draws in (x, again):
            noise, _ = flow.transform.forward(draws, contexts if flow.transform.context_features else None)
            assert len(noise.reshape(-1, 2).detach().round(decimals=9).unique(dim=0)) == 30


def test_samples_are_pathwise_and_seeded(generator: Generator) -> None:
    flow, _ = built("maf", generator)
    x = flow.sample(10, generator=generator.manual_seed(1))
    gradients = torch.autograd.grad(x.square().sum(), list(flow.parameters()))
    assert all((gradient != 0).any() for gradient in gradients)
    assert x.equal(flow.sample(10, generator=generator.manual_seed(1)))
    state = torch.get_rng_state()
    flow.sample(10, generator=generator)
    assert torch.get_rng_state().equal(state)


def test_log_prob_is_the_change_of_variables(generator: Generator) -> None:
    w, b = matrix(generator, 3), vector(generator, 3)
    flow = Flow(StandardNormal(3).double(), LULinear.from_matrix(w, b))
    inverse = torch.linalg.inv(w)
    gaussian = torch.distributions.MultivariateNormal(-inverse @ b, inverse @ inverse.T)
    x = torch.stack([vector(generator, 3) for _ in range(7)])
    torch.testing.assert_close(flow.log_prob(x), gaussian.log_prob(x), rtol=1e-12, atol=1e-12)
    claim = flow.log_density(x)
    assert (claim.kind, claim.method) == (Kind.EXACT, "change of variables")
    assert claim.value.equal(flow.log_prob(x))


@pytest.mark.parametrize("linear", [LULinear, QRLinear])
def test_a_fitted_linear_flow_is_the_gaussian(linear: Callable[..., Linear], generator: Generator) -> None:
    x = torch.randn(500, 3, generator=generator, dtype=torch.float64) @ matrix(generator, 3) + vector(generator, 3)
    flow = linear_flow(3, linear)
    exact = Training(epochs=60, batch_size=None, learning_rate=1.0, optimiser=lbfgs, validation=0.0, clip=None)
    history = flow.fit(x, exact, generator=generator)
    best = Gaussian(3)
    best.fit(x)
    assert abs(flow.log_density(x).mean - best.log_density(x).mean) < 1e-9
    assert abs(history.objective[-1] - best.log_density(x).mean) < 1e-3


BRIEF = Training(epochs=15, batch_size=100, learning_rate=1e-2, validation=0.2)


@pytest.mark.parametrize("build", [real_nvp, glow, maf, iaf])
def test_fitting_learns_a_curve(build: Callable[..., Flow], generator: Generator) -> None:
    """A banana far from the origin and badly scaled: clearly better than the best Gaussian."""
    noise = torch.randn(1500, 2, generator=generator, dtype=torch.float64)
    x = torch.stack([1e6 + 1e-3 * noise[:, 0], 50 * (noise[:, 0].square() + 0.3 * noise[:, 1])], -1)
    flow = build(2, 4, (32,))
    history = flow.fit(x[:1000], BRIEF, generator=generator)
    assert flow.reference.dtype == torch.float64
    assert len(history.objective) == len(history.validation) == 15
    gaussian = Gaussian(2)
    gaussian.fit(x[:1000])
    assert flow.log_density(x[1000:]).mean > gaussian.log_density(x[1000:]).mean + 0.3
    assert history.objective[-1] > history.objective[0]


@pytest.mark.parametrize(("unit", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e8)])
@pytest.mark.parametrize("build", [real_nvp, glow, maf, iaf])
def test_a_fit_does_not_depend_on_the_units(
    build: Callable[..., Flow], unit: float, offset: float, generator: Generator
) -> None:
    """x and unit · x + offset are one path of the optimiser: log p differs by D log unit."""
    x = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    flow = build(2, 2, NARROW)
    other = deepcopy(flow)
    brief = Training(epochs=5, learning_rate=1e-2, validation=0.0)
    flow.fit(x, brief, generator=Generator().manual_seed(0))
    other.fit(unit * x + offset, brief, generator=Generator().manual_seed(0))
    moved = other.log_density(unit * x + offset).mean + 2 * math.log(unit)
    # 1e8 rounds x by 1e-8; Adam divides gradients by their own size and can make a little more of it.
    assert abs(moved - flow.log_density(x).mean) < 1e-5


def test_fitting_uses_the_context(generator: Generator) -> None:
    context = torch.randn(800, 1, generator=generator)
    x = 3 * context + 0.1 * torch.randn(800, 1, generator=generator)
    flow = maf(1, 2, (16,), context_features=1)
    flow.fit(x, BRIEF, context=context, generator=generator)
    marginal = DiagonalGaussian(1)
    marginal.fit(x)
    assert flow.log_prob(x, context).mean() > marginal.log_prob(x).mean() + 1.0


def test_initialisation_sees_the_whole_range_of_a_long_data_set(generator: Generator) -> None:
    flow = Flow(StandardNormal(1), ActNorm(1))
    x = torch.linspace(0, 1, 10_001)[:, None]  # sorted: the first 4096 rows would do badly
    flow.fit(x, Training(epochs=1, learning_rate=1e-12, validation=0.0))
    assert isinstance(flow.transform, ActNorm)
    assert abs(flow.transform.mean.item() - 0.5) < 1e-3


def test_a_second_fit_goes_on_from_the_first(generator: Generator) -> None:
    x = torch.randn(200, 2, generator=generator)
    flow = maf(2, 2, NARROW)
    still = Training(epochs=1, learning_rate=1e-12, validation=0.0)
    flow.fit(x, still)
    before = flow.log_prob(x)
    flow.fit(x + 2, still)
    torch.testing.assert_close(flow.log_prob(x), before)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(5, 3), ValueError, r"expects x of shape \[\*batch, 2\]; got \[5, 3\]"),
        (torch.zeros(2), ValueError, r"expects data of shape \[n, 2\]; got \[2\]"),
        (torch.zeros(0, 2), ValueError, "at least one row"),
        (torch.zeros(5, 2, dtype=torch.int64), TypeError, "floating point; got torch.int64"),
        (torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), ValueError, "row 1, column 0 is nan"),
        (torch.tensor([[0.0, 1.0], [2.0, -torch.inf]]), ValueError, "row 1, column 1 is -inf"),
        ([[0.0, 1.0]], TypeError, "torch.Tensor; got list"),
    ],
)
def test_fit_refuses(x: Tensor, error: type[Exception], message: str) -> None:
    flow = maf(2, 1, NARROW)
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    with pytest.raises(error, match=f"Flow.*{message}"):
        flow.fit(x)
    assert all(tensor.equal(before[name]) for name, tensor in flow.state_dict().items())


def test_fit_refuses_contexts_that_do_not_fit() -> None:
    x, flow = torch.zeros(5, 1), maf(1, 1, NARROW, 2)
    for context, message in (
        (None, "needs a context"),
        (torch.zeros(5, 3), r"context of shape \[\*batch, 2\]"),
        (torch.zeros(4, 2), "a context for each of the 5 rows of data; got 4"),
        (torch.zeros(2), r"as context, expects data of shape \[n, 2\]"),
        (torch.full((5, 2), torch.nan), "as context, expects finite data"),
    ):
        with pytest.raises(ValueError, match=message):
            flow.fit(x, context=context)
    with pytest.raises(ValueError, match="takes no context"):
        maf(1, 1, NARROW).fit(x, context=torch.zeros(5, 2))


@pytest.mark.parametrize("name", FLOWS)
def test_only_the_call_itself_checks_its_arguments(
    name: str, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hooks of base and transform take what the flow has checked."""
    flow, context = built(name, generator)
    x = torch.stack([vector(generator, flow.features) for _ in range(20)])
    expected = [flow.log_prob(x, context), flow.sample(3, context=context, generator=generator.manual_seed(1))]

    def forbidden(*arguments: object, **keywords: object) -> None:
        raise AssertionError("checked a second time")

    monkeypatch.setattr(Transform, "_checked", forbidden)
    for method in ("log_prob", "sample", "sample_with_log_prob"):
        setattr(flow.base, method, forbidden)
    assert flow.log_prob(x, context).equal(expected[0])
    assert flow.sample(3, context=context, generator=generator.manual_seed(1)).equal(expected[1])
    flow.sample_with_log_prob(3, context=context, generator=generator)


@pytest.mark.parametrize("name", FLOWS)
def test_the_call_itself_checks_its_arguments(name: str, generator: Generator) -> None:
    flow, context = built(name, generator)
    x = vector(generator, flow.features).expand(2, -1)
    for bad, error, message in (
        (x.long(), TypeError, "^Flow expects x to be floating point"),
        (x.tolist(), TypeError, "^Flow expects x to be a torch.Tensor"),
        (x.float(), TypeError, r"^Flow computes in torch\.float64 .*x is torch\.float32"),
        (torch.cat([x, x], -1), ValueError, rf"^Flow expects x of shape \[\*batch, {flow.features}\]"),
    ):
        with pytest.raises(error, match=message):
            flow.log_prob(bad, context)
    calls: list[Callable[[Tensor | None], object]] = [
        lambda context: flow.log_prob(x, context),
        lambda context: flow.sample(2, context=context),
        lambda context: flow.sample_with_log_prob(2, context=context),
    ]
    for call in calls:
        if context is None:
            with pytest.raises(ValueError, match=r"^Flow takes no context"):
                call(x)
            continue
        with pytest.raises(ValueError, match=r"^Flow needs a context of shape \[\*batch, 2\]"):
            call(None)
        with pytest.raises(ValueError, match=r"^Flow expects a context of shape \[\*batch, 2\]; got \[4\]"):
            call(torch.cat([context, context]))
        with pytest.raises(TypeError, match=r"^Flow computes in torch\.float64 .*context is torch\.float32"):
            call(context.float())
    if context is not None:
        with pytest.raises(ValueError, match=r"^Flow expects batch shapes that broadcast"):
            flow.log_prob(x, context.expand(3, -1))
    for n in (0, 1.5):
        with pytest.raises(ValueError, match="n must be a positive int"):
            flow.sample(n, context=context)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FLOWS)
def test_every_pair_of_points_and_contexts(name: str, generator: Generator) -> None:
    flow, context = built(name, generator)
    if context is None:
        return
    x = torch.stack([vector(generator, flow.features) for _ in range(4)])
    contexts = torch.stack([context, -context, 2 * context])
    pairs = flow.log_prob(x[:, None], contexts)
    assert pairs.shape == (4, 3)
    for point, row in zip(x, pairs, strict=True):
        torch.testing.assert_close(flow.log_prob(point, contexts), row)  # one point, many contexts
    torch.testing.assert_close(flow.log_prob(x, contexts[1]), pairs[:, 1])


@pytest.mark.parametrize("build", [real_nvp, glow, maf, iaf, neural_spline_flow])
def test_per_sample_gradients(build: Callable[..., Flow], generator: Generator) -> None:
    flow = randomise(build(3, 2, NARROW, CONTEXT), generator, scale=0.2)
    x, contexts = (torch.stack([vector(generator, width) for _ in range(5)]) for width in (3, CONTEXT))

    class LogProb(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            return self.flow.log_prob(x, context)

    module = LogProb()
    state = {name: parameter.detach() for name, parameter in module.named_parameters()}
    of_each = torch.func.vmap(
        torch.func.grad(lambda state, x, context: torch.func.functional_call(module, state, (x, context))),
        (None, 0, 0),
    )(state, x, contexts)
    for row in range(5):
        log_prob = flow.log_prob(x[row], contexts[row])
        expected = torch.autograd.grad(log_prob, list(module.parameters()), materialize_grads=True)
        for (name, found), gradient in zip(of_each.items(), expected, strict=True):
            torch.testing.assert_close(found[row], gradient, rtol=1e-10, atol=1e-10, msg=name)


def test_a_transform_is_callable_and_saved_with_its_flow(generator: Generator, tmp_path: object) -> None:
    flow, _ = built("real nvp", generator)
    path = f"{tmp_path}/flow.pt"
    torch.save(flow.state_dict(), path)
    other = real_nvp(2, 4, NARROW).double()
    other.load_state_dict(torch.load(path))
    x = vector(generator, 2)
    assert other.log_prob(x).equal(flow.log_prob(x))
    transform = flow.transform
    assert isinstance(transform, Transform)
    assert transform(x)[0].equal(transform.forward(x)[0])
