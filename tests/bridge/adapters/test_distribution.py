"""Distributions and functions as densities."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn
from torch import distributions as D
from torch.utils.data import DataLoader, TensorDataset

from bridge import FromDistribution, from_distribution, from_log_prob
from density import Chunks, Kind, Measure, Training


class Made(nn.Module):
    """A distribution at a context, with dropout, which is off where the density is asked."""

    def __init__(self, features: int = 2, context: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(context, 2 * features), nn.Dropout(0.5))

    def forward(self, c: Tensor) -> D.Distribution:
        mean, raw = self.net(c).chunk(2, -1)
        return D.Independent(D.Normal(mean, raw.exp()), 1)


def test_it_is_the_distribution(generator: Generator) -> None:
    normal = D.MultivariateNormal(torch.zeros(3), torch.eye(3) * 2)
    x = torch.randn(5, 3, generator=generator)
    claim = from_distribution(normal, 3).log_density(x)
    assert claim.value.equal(normal.log_prob(x))
    assert claim.kind is Kind.EXACT
    assert claim.method == "log_prob of MultivariateNormal, as torch says"


@pytest.mark.parametrize(
    ("made", "features"),
    [
        (D.Normal(torch.zeros(3), torch.ones(3)), 3),
        (D.Independent(D.Normal(torch.zeros(1, 2, 2), 1.0), 3), 4),
        (D.Independent(D.Normal(torch.zeros(2, 3), 1.0), 1), 6),
        (D.Normal(0.0, 1.0), 1),
    ],
)
def test_axes_beyond_the_context_are_the_event(made: D.Distribution, features: int, generator: Generator) -> None:
    density = from_distribution(made, features)
    x = torch.randn(4, 2, features, generator=generator)
    assert torch.allclose(density.log_prob(x), D.Normal(0.0, 1.0).log_prob(x).sum(-1), atol=1e-5)
    assert density.sample(7, generator=generator).shape == (7, features)
    assert density.expectation().equal(torch.zeros(features))


def test_draws_follow_the_generator_and_leave_the_global_state(generator: Generator) -> None:
    density = from_distribution(D.Gamma(torch.ones(2), 1.0), 2)
    before = torch.get_rng_state()
    one, two = (density.sample(5, generator=Generator().manual_seed(3)) for _ in range(2))
    assert one.equal(two)
    assert not one.equal(density.sample(5, generator=Generator().manual_seed(4)))
    assert torch.get_rng_state().equal(before)
    assert not density.sample(5).equal(density.sample(5)), "without a generator, the global state moves"


def test_outside_the_support_it_vanishes() -> None:
    density = from_distribution(D.Exponential(torch.ones(2)), 2)
    x = torch.tensor([[1.0, 2.0], [-1.0, 1.0], [math.nan, 1.0]])
    value = density.log_prob(x)
    assert value[0] == -3
    assert value[1] == -math.inf
    assert value[2].isnan()
    with pytest.raises(ValueError, match="row 1 is outside"):
        density.log_density(x[:2])


def test_a_module_is_trained_moved_and_in_evaluation_mode(generator: Generator) -> None:
    made = Made()
    density = from_distribution(made, 2, context_features=3).double()
    context = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    x = context[:, :2] + 0.1 * torch.randn(200, 2, generator=generator, dtype=torch.float64)
    one, two = (density.log_density(x, context=context) for _ in range(2))
    assert one.value.equal(two.value), "dropout was on"
    density.fit(x, Training(epochs=20, progress=False), context=context, generator=generator)
    assert density.log_density(x, context=context).mean > one.mean + 0.05
    assert density.sample(4, context=context, generator=generator).shape == (4, 200, 2)


def test_it_is_fitted_to_whatever_comes(generator: Generator) -> None:
    """Chunks with contexts and weights, and rows of one's own to hold out."""
    context = torch.randn(60, 3, generator=generator)
    x, weights = context[:, :2] + 1, torch.arange(60.0)
    density = from_distribution(Made(), 2, context_features=3)
    settings = Training(epochs=1, learning_rate=1e-9, batch_size=60, progress=False)
    source = Chunks(DataLoader(TensorDataset(x, context, weights), batch_size=7), weighted=True)
    history = density.fit(source, settings, validation=(x[:9], context[:9]), generator=generator)
    density.eval()
    assert history.validation == [pytest.approx(density.log_prob(x[:9], context[:9]).mean().item(), rel=1e-5)]
    again = density.fit(x, settings, context=context, weights=weights, validation=(x[:9], context[:9]))
    assert again.validation == [pytest.approx(history.validation[0], rel=1e-5)]
    with pytest.raises(TypeError, match=r"FromDistribution: .* tuple \(rows, contexts\)"):
        density.fit([x], settings)


def test_modules_that_a_function_names_are_parts(generator: Generator) -> None:
    made = Made()
    density = from_distribution(lambda c: made(c), 2, context_features=3)
    assert next(density.parameters()) is next(made.parameters())
    x, context = torch.zeros(5, 2), torch.randn(5, 3, generator=generator)
    assert density.log_density(x, context=context).value.equal(density.log_density(x, context=context).value)
    with pytest.raises(TypeError, match="would go on using the originals"):
        deepcopy(density)
    assert deepcopy(from_distribution(made.forward, 2, context_features=3)).log_prob(x, context).shape == (5,)


def test_a_distribution_that_ignores_its_context(generator: Generator) -> None:
    density = from_distribution(lambda c: D.MultivariateNormal(torch.zeros(2), torch.eye(2)), 2, context_features=1)
    assert density.sample(3, context=torch.zeros(4, 1), generator=generator).shape == (3, 4, 2)


def test_masses_are_masses() -> None:
    density = from_distribution(D.Poisson(torch.ones(2)), 2, measure=Measure.COUNTING)
    assert density.log_density(torch.tensor([[0.0, 1.0]])).measure is Measure.COUNTING


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"over 3 features; got batch shape \[2\]"):
        from_distribution(D.Normal(torch.zeros(2), 1.0), 3).log_prob(torch.zeros(3))
    with pytest.raises(TypeError, match=r"takes a torch\.distributions\.Distribution"):
        from_distribution(nn.Linear(3, 2), 2, context_features=3).log_prob(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="has no context"):
        from_distribution(D.Normal(torch.zeros(2), 1.0), 2, context_features=3)
    with pytest.raises(TypeError, match="no parameters to fit"):
        from_distribution(D.Normal(torch.zeros(2), 1.0), 2).fit(torch.randn(5, 2))
    with pytest.raises(TypeError, match="Measure"):
        from_distribution(D.Normal(torch.zeros(2), 1.0), 2, measure="counting")  # type: ignore[arg-type]


def test_a_function_is_a_density(generator: Generator) -> None:
    density = from_log_prob(lambda x: -x.square().sum(-1), 2, lambda n: torch.randn(n, 2))
    x = torch.randn(3, 4, 2, generator=generator)
    assert density.log_prob(x).equal(-x.square().sum(-1))
    one, two = (density.sample(5, generator=Generator().manual_seed(1)) for _ in range(2))
    assert one.equal(two)
    array = from_log_prob(lambda x: -x.numpy().sum(-1), 2)
    assert array.log_density(torch.ones(3, 2)).mean == -2
    assert array.method == "log p, as given"
    with pytest.raises(TypeError, match="given log p"):
        array.sample(3)
    with pytest.raises(ValueError, match=r"shape \[n\] for n = 3 points; got \[3, 2\]"):
        from_log_prob(lambda x: x, 2).log_prob(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"draws of shape \[3, 2\]; got \[3\]"):
        from_log_prob(lambda x: x, 2, lambda n: torch.zeros(n)).sample(3)


def test_images_at_contexts_broadcast(generator: Generator) -> None:
    density = FromDistribution(lambda c: D.Normal(c[:, :, None].expand(-1, 1, 4), 1.0), 4, context_features=1)
    x, context = torch.randn(6, 1, 4, generator=generator), torch.randn(5, 1, generator=generator)
    expected = D.Normal(context, 1.0).log_prob(x).sum(-1)
    assert torch.allclose(density.log_prob(x, context), expected)
    draws, log_prob = density.sample_with_log_prob(3, context=context, generator=generator)
    assert torch.allclose(density.log_prob(draws, context), log_prob)
