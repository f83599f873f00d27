"""Intervals of log p(x) on small discrete spaces contain the truth by enumeration, and are narrow."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Bernoulli, Kind, Measure
from density.data.points import Points
from lvm import PPCA, VAE
from lvm.evidence import evidence, gap, interval
from lvm.evidence.mass.hits import hits
from lvm.evidence.mass.intervals import _ruler
from tests.lvm.evidence.mass.models import FIVE, continuous, one_hot


def random_case(index: int, generator: Generator) -> tuple[VAE, Tensor]:
    """One of many small models, and points that it drew in part: the others it finds hard to explain."""
    bits = 4 + index % 7
    model = (
        one_hot(bits, 2 + index % 4, generator)
        if index % 2
        else continuous(bits, 1, generator, steep=1 + index % 3 / 2)
    )
    n = 20 + 10 * (index % 9)
    own = model.sample(n, generator=generator)
    foreign = torch.randint(2, own.shape, generator=generator).to(own)
    return model, torch.where(torch.rand(n, 1, generator=generator) < 0.1 * (index % 4), foreign, own)


def truth(model: VAE, x: Tensor) -> Tensor:
    """log p(x), each state asked once."""
    states, which = x.unique(dim=0, return_inverse=True)
    return evidence(model, states).value[which]


def covered(count: int, generator: Generator) -> tuple[int, int, list[float]]:
    """How often the mean lies in its interval, and all points between their bounds; the widths."""
    means, points, widths = 0, 0, []
    for index in range(count):
        model, x = random_case(index, generator)
        log_p = truth(model, x)
        found = interval(model, x, draws=100, simulated=20_000, generator=generator)
        means += found.low <= log_p.mean().item() <= found.high
        points += bool(((found.lower.value <= log_p) & (log_p <= found.upper.value)).all())
        widths.append(found.width)
    return means, points, widths


def test_intervals_contain_the_truth(generator: Generator) -> None:
    means, points, widths = covered(10, generator)
    assert means == points == 10
    assert sorted(widths)[5] < 0.2


@pytest.mark.slow
def test_intervals_of_200_models_contain_the_truth(
    generator: Generator, record_measurement: Callable[[str, float, float], None]
) -> None:
    """At 95 %; 184 are two standard deviations below 190."""
    means, points, widths = covered(200, generator)
    record_measurement("intervals without the truth, of 200", 200 - means, 16)
    record_measurement("sets of bounds without all points, of 200", 200 - points, 16)
    assert means >= 184
    assert points >= 184
    assert sorted(widths)[100] < 0.2


@pytest.mark.parametrize("name", ["mixture of 5", "1 steep latent"])
def test_they_close_in_on_the_truth(name: str, generator: Generator) -> None:
    model = FIVE[name](generator)
    x = model.sample(1000, generator=generator)
    log_p = truth(model, x).mean().item()
    few, many = (interval(model, x, draws=k, simulated=100 * k, generator=generator) for k in (50, 500))
    for found in (few, many):
        assert found.low <= log_p <= found.high
    assert many.width < 0.05
    assert many.width < few.width
    assert many.lower.mean < many.low
    assert many.high < many.upper.mean
    assert 0 < many.seen <= 1


def test_their_parts_are_claims(generator: Generator) -> None:
    model = one_hot(5, 2, generator)
    x = model.sample(40, generator=generator)
    found = interval(model, x, confidence=0.9, draws=30, simulated=5000, generator=generator)
    for claim, kind in ((found.lower, Kind.LOWER), (found.upper, Kind.UPPER)):
        assert claim.kind is kind
        assert claim.confidence == pytest.approx(0.95)
        assert claim.measure is Measure.COUNTING
        assert claim.points == Points.of(x)
    report = gap(model, x, draws=5, log_density=found.upper, generator=generator)
    assert report.difference.confidence == pytest.approx(0.95)
    assert "upper bound at 95 %" in repr(report)
    assert (found.upper - found.lower).kind_in_words == "upper bound at 90 %"
    assert repr(found).startswith(f"mean log p(x) in [{found.low:.4f}, {found.high:.4f}] nats at 90 %, of 40 points")


def test_the_same_draws_make_the_same_interval(generator: Generator) -> None:
    model = one_hot(4, 2, generator)
    x = model.sample(20, generator=generator)
    one, other = (interval(model, x, draws=20, simulated=500, generator=Generator().manual_seed(3)) for _ in range(2))
    assert (one.low, one.high) == (other.low, other.high)


def test_hits_are_counted_row_by_row(generator: Generator) -> None:
    model = continuous(6, 1, generator)
    states = model.sample(50, generator=generator).unique(dim=0)
    states = states[torch.randperm(len(states), generator=generator)]
    counts = hits(model, states, 70_000, Generator().manual_seed(1))
    stream = Generator().manual_seed(1)
    drawn = torch.cat([model.sample(n, generator=stream) for n in (65_536, 70_000 - 65_536)])
    assert counts.equal((drawn.unsqueeze(1) == states).all(-1).sum(0))
    assert hits(model, -states.abs() - 0.0, 100, generator)[(states.sum(1) == 0).logical_not()].sum() == 0


def test_the_ruler_weighs_no_state_too_much(generator: Generator) -> None:
    """A state that the model hardly ever draws must not make M so large that nothing can be measured."""
    share = torch.tensor([0.5, 0.4, 0.1], dtype=torch.float64)
    for tiny in (1e-12, 0.0):
        ruler = _ruler(share, torch.tensor([0.5, 0.4, tiny], dtype=torch.float64), 10_000, 0.025)
        assert ruler[:2].tolist() == pytest.approx([1.0, 1.0])
        assert 1 <= ruler[2].item() < 1000
    assert _ruler(share, torch.zeros(3, dtype=torch.float64), 100, 0.025).isfinite().all()


def test_no_interval_is_above_the_entropy_of_the_points(generator: Generator) -> None:
    """Σ f log p is highest at p = f, so that without simulation to speak of that is the upper end."""
    model = one_hot(6, 2, generator)
    x = model.sample(30, generator=generator)
    share = x.unique(dim=0, return_counts=True)[1].double() / 30
    found = interval(model, x, draws=2, simulated=2, generator=generator)
    assert found.high <= (share * share.log()).sum().item() + 1e-12


def test_what_has_no_interval_is_refused(generator: Generator) -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(TypeError, match="Bernoulli has none"):
        interval(Bernoulli(2), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="PPCA would have to model discrete data"):
        interval(PPCA(2, 1), x)
    with pytest.raises(ValueError, match="another one for every context"):
        interval(VAE.bernoulli(2, 1, hidden=(2,), context_features=1), x)
    model = VAE.bernoulli(2, 1, hidden=(2,))
    with pytest.raises(ValueError, match="between 0 and 1; got 95"):
        interval(model, x, confidence=95)
    with pytest.raises(ValueError, match="draws must be an int, 2 or more; got 1"):
        interval(model, x, draws=1)
    assert math.isfinite(interval(model, x, draws=2, simulated=2).high)


def test_a_model_that_draws_one_state_alone_has_an_interval() -> None:
    """The variance over its draws is 0, whatever rounding says."""
    x = torch.tensor([[1.0, 1.0, 1.0]] * 9 + [[0.0, 1.0, 1.0]])
    for seed in range(40):
        generator = Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = VAE.bernoulli(3, latent_features=1, hidden=(4,))
        *_, last = (part for part in model.decoder.modules() if isinstance(part, nn.Linear))
        with torch.no_grad():
            last.bias.fill_(8.0)
        found = interval(model, x, draws=10, simulated=100, generator=generator)
        assert found.low < found.high
