"""The laws of supports: an error where data enters, −∞ inside, and no look at a value in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Generator, Tensor

from density import StandardNormal, Training
from density.support import Support
from flows import Flow, Inverse, Transform
from tests.laws.transforms import TransformCase

FIXED = (-2.0, -1.0, 0.0, 0.25, 1.0, 2.0)
SPREADS = (1.0, 10.0, 50.0, 300.0)  # from where float32 is dense to where exp, sigmoid and sums run over


def outside_forward_gives_minus_infinity(case: TransformCase, generator: Generator) -> None:
    """And a finite z; a transform that says that it takes everything takes every point."""
    for transform, x, _, contexts in _both_directions(case, generator):
        context = None if contexts is None else contexts[0]
        for point in _candidates(x):
            moved, log_det = transform(point, context)
            assert moved.isfinite().all()
            assert bool(log_det == -torch.inf) is _refused(transform.domain, point)
            assert bool(log_det.isfinite()) is not _refused(transform.domain, point)
        moved, log_det = transform(torch.full_like(x[0], torch.nan), context)
        assert log_det.isnan() or moved.isnan().any(), "a nan stays one"
        assert not _refused(transform.domain, x)


def rows_outside_leave_the_gradients_of_others_alone(case: TransformCase, generator: Generator) -> None:
    for transform, x, _, _ in _both_directions(case, generator):
        far = [point for point in _candidates(x) if _refused(transform.domain, point)]
        if not far:
            continue
        together = torch.cat([x, torch.stack(far)]).requires_grad_()
        moved, log_det = transform(together)
        (moved.square().sum() + log_det[: len(x)].sum()).backward()
        assert together.grad is not None
        assert together.grad.isfinite().all()
        alone = x.clone().requires_grad_()
        moved, log_det = transform(alone)
        (moved.square().sum() + log_det.sum()).backward()
        torch.testing.assert_close(together.grad[: len(x)], alone.grad, rtol=1e-12, atol=1e-12)


def every_point_may_be_asked_by_itself(case: TransformCase, generator: Generator) -> None:
    """vmap agrees with the batch, outside too."""
    for transform, x, _, context in _both_directions(case, generator):
        points = torch.cat([x, torch.stack(_candidates(x))]) if context is None else x
        for direction in (transform.forward, transform.inverse):
            given = (points,) if context is None else (points, context)
            torch.testing.assert_close(torch.func.vmap(direction)(*given), direction(*given), rtol=1e-10, atol=1e-10)


def a_restricted_flow_is_one_graph(case: TransformCase, generator: Generator) -> None:
    """Compiled without a break, and exported, with the values that it has."""
    for transform, x, _, _ in _both_directions(case, generator):
        if transform.domain is None:
            continue
        flow = _flow(transform, case.features)
        points = torch.cat([x, torch.stack(_candidates(x))])
        torch.compiler.reset()
        compiled = torch.compile(flow, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(points), flow(points))
        exported = torch.export.export(flow, (points,)).module()
        torch.testing.assert_close(exported(points), flow(points))


def a_flow_can_evaluate_what_it_draws(case: TransformCase, generator: Generator) -> None:
    """In float32, from the middle to where samples round onto the edge or overflow: never an error, never a nan."""
    for transform, _, _, _ in _both_directions(case, generator):
        if transform.domain is None or transform.image is not None:
            continue
        for spread in SPREADS:
            z = spread * torch.randn(2000, case.features, generator=generator)
            x, log_det = transform.to(torch.float32).inverse(z)
            assert not log_det.isnan().any()
            log_prob = _flow(transform, case.features).float().log_prob(x)
            assert not log_prob.isnan().any()
            assert (log_prob < torch.inf).all()
            if spread == 1.0:
                assert log_prob.isfinite().all()


def data_outside_is_refused_where_it_enters(case: TransformCase, generator: Generator) -> None:
    for transform, x, _, _ in _both_directions(case, generator):
        if transform.domain is None:
            continue
        flow = _flow(transform, case.features)
        assert flow.log_density(x).value.isfinite().all()
        far = next(point for point in _candidates(x) if _refused(transform.domain, point))
        data = torch.cat([x, far.unsqueeze(0)])
        assert flow.log_prob(data)[-1] == -torch.inf
        uses: list[Callable[[Tensor], object]] = [flow.log_density, transform.initialise]
        uses += [lambda data: flow.fit(data, Training(epochs=1))]  # noqa: B023
        uses += [lambda data: flow.fit([data[:5], data[5:]], Training(epochs=1, validation=0))]  # noqa: B023
        uses += [lambda data: flow.fit(data[:5], Training(epochs=1), validation=data[5:])]  # noqa: B023
        for use in uses:
            with pytest.raises(ValueError, match=r"expects .* at \[\d+, \d\] is .* are outside\)"):
                use(data)


support_laws: list[Callable[[TransformCase, Generator], None]] = [
    outside_forward_gives_minus_infinity,
    rows_outside_leave_the_gradients_of_others_alone,
    every_point_may_be_asked_by_itself,
    a_restricted_flow_is_one_graph,
    a_flow_can_evaluate_what_it_draws,
    data_outside_is_refused_where_it_enters,
]


def _both_directions(
    case: TransformCase, generator: Generator
) -> Iterator[tuple[Transform, Tensor, Tensor, Tensor | None]]:
    """The transform and its inverse, with five points of each one's domain, where they go, and contexts."""
    transform = case.make(generator)
    x, context = case.points(generator, 5), case.context(transform, generator, 5)
    with torch.no_grad():
        z = transform(x, context)[0]
    yield transform, x, z, context
    yield Inverse(transform), z, x, context


def _candidates(x: Tensor) -> list[Tensor]:
    """Points of which some lie outside of any domain here: constant, falling, one entry off, at infinity's side."""
    width = x.shape[-1]
    falling = -torch.arange(1.0, width + 1.0).to(x)
    first_off = x[0].clone()
    first_off[0] = -3.0
    return [*(torch.full_like(x[0], value) for value in FIXED), falling, 0.5 - 0.1 * falling, first_off]


def _refused(domain: Support | None, x: Tensor) -> bool:
    if domain is None:
        return False
    try:
        domain.check(x, "the transform")
    except ValueError:
        return True
    return False


def _flow(transform: Transform, features: int) -> Flow:
    return Flow(StandardNormal(features).double(), transform)
