"""Supports with ends, against scipy, and at their ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Generator, Tensor

from density import StandardNormal
from flows import BoxLogit, Flow, HalfLineLog, LULinear, OnFeatures, Transform, on_box, on_half_line

INF = float("inf")
DTYPES = [torch.float64, torch.float32]


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("transform", "distribution"),
    [
        # The logarithm of a log-normal is normal, and the logit of Johnson's bounded law.
        (on_box(-3.0, 13.0), scipy.stats.johnsonsb(0.0, 1.0, loc=-3.0, scale=16.0)),
        (on_half_line(2.0), scipy.stats.lognorm(1.0, loc=2.0)),
        (on_half_line(), scipy.stats.lognorm(1.0)),
    ],
    ids=["box", "half-line", "positive"],
)
def test_a_normal_there_is_scipys(
    transform: Transform, distribution: scipy.stats.rv_continuous, generator: Generator
) -> None:
    flow = Flow(StandardNormal(1), transform).double()
    x = transform.double().inverse(1.5 * normal(generator, 50, 1))[0]
    expected = torch.from_numpy(distribution.logpdf(x.numpy()))[:, 0]
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-11, atol=1e-11)
    mirrored = Flow(StandardNormal(1), HalfLineLog(-2.0, below=True)).double()
    assert mirrored.log_prob(-x - 10).equal(Flow(StandardNormal(1), on_half_line(2.0)).double().log_prob(x + 10))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (5.0, 6.0), (-1e6, 1.0), (0.0, 2.0**-100), (-1.0, INF), (-INF, 3.0)])
def test_draws_stay_inside_and_ends_are_not_lost(ends: tuple[float, float], dtype: torch.dtype) -> None:
    transform = on_box(*ends).to(dtype)
    z = torch.tensor([-800.0, -90.0, -20.0, 0.0, 20.0, 90.0, 800.0], dtype=dtype).unsqueeze(1)
    x, _ = transform.inverse(z)
    transform.check_domain(x)
    assert (x.diff(dim=0) >= 0).all()
    z, log_det = transform(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    ends_as_points = torch.tensor([end for end in ends if abs(end) < INF], dtype=dtype).unsqueeze(1)
    assert (transform(ends_as_points)[1] == -INF).all()


def test_ends_may_differ_by_feature(generator: Generator) -> None:
    low, high = torch.tensor([0.0, 1.0, -INF, -INF]).double(), torch.tensor([2.0, INF, 5.0, INF])
    x = torch.tensor([0.5, 4.0, 3.0, 7.0]).double()
    z, log_det = on_box(low, high)(x)
    parts = [BoxLogit(0.0, 2.0), HalfLineLog(1.0), HalfLineLog(5.0, below=True)]
    each = [part.double()(x[i : i + 1]) for i, part in enumerate(parts)]
    torch.testing.assert_close(z, torch.cat([*(one for one, _ in each), x[3:]]), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_det, sum(term for _, term in each), rtol=1e-14, atol=1e-14)


BOX = on_box(torch.tensor([0.0, 0.0]), torch.tensor([1.0, INF]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: on_box(1.0, 0.0), "^on_box expects low below high, and at least one finite end; got 1.0 and 0.0"),
        (lambda: on_box(-INF, INF), "^on_box expects low below high, and at least one finite end"),
        (lambda: on_box(0.0, torch.nan), "^on_box expects low below high"),
        (lambda: on_box(torch.zeros(2), torch.ones(3)), r"^on_box expects low and high of one width; got \[2, 3\]"),
        (lambda: BoxLogit(0.0, INF), "^BoxLogit expects finite ends with numbers between them.*on_box takes infinite"),
        (lambda: BoxLogit(1.0, 1.0), "^BoxLogit expects finite ends"),
        (lambda: HalfLineLog(INF), "^HalfLineLog expects a finite end; got inf"),
        (
            lambda: on_box(0.0, 16.0).check_domain(torch.tensor([[3.0, 16.5]])),
            r"\(0, 16\); the value at \[0, 1\] is 16.5",
        ),
        (lambda: on_half_line().check_domain(torch.tensor([-1.0])), "expects finite values above 0; the value at"),
        (lambda: HalfLineLog(1.0, below=True).check_domain(torch.tensor([2.0])), "finite values below 1; the value"),
        (lambda: BOX.check_domain(torch.tensor([[0.5, -1.0]])), r"chosen features, HalfLineLog expects .* above \[0\]"),
        (
            lambda: OnFeatures(3, [2], on_box(0.0, 1.0)).initialise(torch.ones(4, 3)),
            "of the chosen features, BoxLogit expects values in",
        ),
    ],
)
def test_what_does_not_fit_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()


def test_a_flow_on_a_box_is_a_flow_over_a_flow(generator: Generator) -> None:
    inner = Flow(StandardNormal(2), LULinear(2))
    flow = Flow(inner, on_box(0.0, 16.0)).double()
    x = 16 * normal(generator, 100, 2).sigmoid()
    flow.fit(x)
    assert ((flow.sample(200, generator=generator) - 8).abs() < 8).all()
    assert flow.log_prob(torch.tensor([[8.0, 17.0]]).double()).item() == -INF
    with pytest.raises(ValueError, match=r"Flow: BoxLogit expects values in \(0, 16\)"):
        flow.fit(2 * x)
