"""Starts from data: what reaches the parts of a model, what they take from it, and when data is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import Abs, FlowVAE, HalfNormal, Max, Slice, TightLayeredModel, layered, with_flow_prior
from density import (
    ConditionalGaussian,
    DiagonalGaussian,
    PerFeatureScale,
    Rescaled,
    Standardisation,
    StandardNormal,
    Training,
)
from density.initialisation import INITIALISATION_ROWS, UNKNOWN, StartingPoints, check_units
from flows import (
    ActNorm,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    StandardisedContext,
    Transform,
    maf,
    real_nvp,
)
from lvm import VAE

Q = Training(epochs=30, progress=False)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def points(generator: Generator, n: int = 500, features: int = 2) -> Tensor:
    return torch.randn(n, features, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# Points on their way through a model
# ---------------------------------------------------------------------------------------------------------------------


def test_points_are_made_when_they_are_asked_for_and_once() -> None:
    asked = []

    def make(x: Tensor) -> Tensor:
        asked.append(len(x))
        return 2 * x

    images = StartingPoints.of(torch.ones(3, 1)).mapped(make)
    assert asked == []
    assert images.points.equal(2 * torch.ones(3, 1))
    assert images.points is images.points
    assert asked == [3]


def test_parts_see_some_rows_and_standardisation_all_of_them() -> None:
    x = torch.arange(10_000.0).unsqueeze(1)
    seen = StartingPoints.of(x)
    assert seen.points.equal(x[::3])
    assert len(seen.points) <= INITIALISATION_ROWS
    assert seen.rows is x
    assert seen.mapped(lambda x: x + 1).rows.equal(x[::3] + 1)
    model = Rescaled(StandardNormal(1))
    model.initialise(x)
    assert model.standardise.shift.item() == pytest.approx(4999.5)


def test_points_stay_fixed_until_a_parameter_has_a_say() -> None:
    data = StartingPoints.of(torch.ones(3, 2))
    assert data.fixed
    assert data.mapped(torch.exp).fixed
    assert data.through(nn.Tanh(), torch.tanh).fixed
    trained = data.through(nn.Linear(2, 2), torch.exp)
    assert not trained.fixed
    assert not trained.mapped(torch.exp).fixed
    assert not data.encoded(torch.exp).fixed
    assert data.encoded(torch.exp).through(nn.Tanh(), torch.tanh).latent
    for unknown in (UNKNOWN.mapped(torch.exp), UNKNOWN.through(nn.Tanh(), torch.exp), UNKNOWN.encoded(torch.exp)):
        assert unknown is UNKNOWN


def test_no_network_runs_where_nobody_asks_what_it_returns(generator: Generator) -> None:
    """A standard normal has nothing to set, so the encoder before it is not called."""

    class Counted(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    network = Counted(2, 4)
    encoder = ConditionalGaussian(network, 2, 2)
    model = VAE(StandardNormal(2), encoder, ConditionalGaussian(nn.Linear(2, 4), 2, 2)).double()
    model.initialise(points(generator))
    assert network.calls == 0
    with_flow_prior(model, real_nvp(2, 2, (4,)).double()).initialise(points(generator))
    assert network.calls == 1


def test_batch_statistics_and_dropout_stay_as_they_are(generator: Generator) -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout())
    encoder = ConditionalGaussian(network, 2, 2)
    model = VAE(real_nvp(2, 2, (4,)), encoder, ConditionalGaussian(nn.Linear(2, 4), 2, 2)).double()
    statistics, random = deepcopy(network[1].state_dict()), torch.get_rng_state()
    model.initialise(points(generator))
    assert all(value.equal(statistics[name]) for name, value in network[1].state_dict().items())
    assert random.equal(torch.get_rng_state())
    assert model.training
    assert network[1].training


# ---------------------------------------------------------------------------------------------------------------------
# What is set
# ---------------------------------------------------------------------------------------------------------------------


def test_frozen_scales_stay(generator: Generator) -> None:
    model = HalfNormal(2).double().requires_grad_(False)
    model.initialise(1000 * points(generator).abs())
    assert not model.log_scale.any()


def test_a_half_normal_starts_at_its_likeliest_scale(generator: Generator) -> None:
    """Also where values are so small or so large that squares would leave the range of floats."""
    for unit in (1e-200, 1.0, 1e200):
        x = points(generator).abs() * torch.tensor([unit, 3 * unit], dtype=torch.float64)
        model = HalfNormal(2).double()
        model.initialise(x)
        expected = (x / unit).square().mean(0).sqrt().log() + math.log(unit)
        torch.testing.assert_close(model.log_scale.detach(), expected, rtol=1e-12, atol=1e-12)
    model = HalfNormal(1).double()
    model.initialise(torch.zeros(5, 1).double())
    assert model.log_scale.item() == 0


def test_deficits_of_a_maximum_start_in_their_own_units(generator: Generator) -> None:
    x = torch.cat([points(generator, features=1), points(generator, features=1) - 500], 1)
    link = Max(1, 2)
    layered(Rescaled(DiagonalGaussian(1)), link).double().initialise(x)
    assert isinstance(link.deficits, HalfNormal)
    assert link.deficits.log_scale.exp().item() == pytest.approx(500, rel=0.01)


def test_inside_an_inverse_contexts_are_set_and_points_are_not(generator: Generator) -> None:
    inner, after = ActNorm(2), ActNorm(2)
    conditional = StandardisedContext(AffineCoupling([True, False], context_features=1))
    x, context = points(generator), 2000 + 10 * points(generator, features=1)
    Chain(Inverse(Chain(inner, conditional)), after).double().initialise(x, context)
    assert not inner.initialised
    assert after.initialised
    torch.testing.assert_close(conditional.standardise.shift, context.mean(0))


def test_a_context_norm_is_for_conditional_transforms() -> None:
    with pytest.raises(ValueError, match="StandardisedContext expects a conditional transform; ActNorm takes no"):
        StandardisedContext(ActNorm(2))
    with pytest.raises(TypeError, match="StandardisedContext takes a Transform; got a StandardNormal"):
        StandardisedContext(StandardNormal(2))  # type: ignore[arg-type]


def test_a_start_wants_data_and_contexts_that_fit(generator: Generator) -> None:
    flow, x = maf(2, 1, (4,), context_features=1), points(generator, 5).float()
    with pytest.raises(ValueError, match=r"Flow expects a context for each of the 5 rows of data; got 4"):
        flow.initialise(x, x[:4, :1])
    with pytest.raises(ValueError, match="Flow needs a context"):
        flow.initialise(x)
    with pytest.raises(ValueError, match=r"Flow, as context, expects finite data"):
        flow.initialise(x, x[:, :1] / 0)
    with pytest.raises(TypeError, match=r"Flow computes in torch\.float32"):
        flow.initialise(x.double(), x[:, :1].double())
    with pytest.raises(ValueError, match="VAE expects at least one row of data"):
        VAE.gaussian(2, 1).initialise(x[:0])
    assert not any(bool(part.initialised) for part in flow.modules() if isinstance(part, ActNorm))


# ---------------------------------------------------------------------------------------------------------------------
# Other units
# ---------------------------------------------------------------------------------------------------------------------


def test_columns_that_are_or_were_constant_may_vary_as_little_as_they_like() -> None:
    shift, scale = torch.zeros(2), torch.tensor([1.0, 2.0])
    varied = torch.tensor([[0.0, 0.0], [0.0, 0.01]]).repeat(15, 1)
    check_units(torch.tensor([[0.0, 1.0], [1e-6, 1.0]]).repeat(15, 1), shift, scale)
    check_units(varied[:28], shift, scale)
    with pytest.raises(ValueError, match=r"column 1 had mean 0 and standard deviation 2, and now has .* and 0.005\."):
        check_units(varied, shift, scale)


@pytest.mark.filterwarnings("ignore:.*column")
@pytest.mark.parametrize(
    "make", [lambda: real_nvp(3, 3, (8,)), lambda: maf(3, 3, (8,)), lambda: FlowVAE(maf(3, 3, (8,)))]
)
def test_a_second_fit_of_the_same_data_is_not_refused(make: object, generator: Generator) -> None:
    """Not where a constant column and a column of ties have been squeezed by every layer, and deeper norms see that."""
    x = torch.cat([points(generator, 300, 1), torch.full((300, 1), 7.0), (points(generator, 300, 1) > 1).double()], 1)
    torch.manual_seed(0)
    model = make()  # type: ignore[operator]
    training = Training(epochs=40, learning_rate=3e-2, progress=False)
    model.fit(x, training, generator=seeded())
    norms = [part for part in model.modules() if isinstance(part, ActNorm)]
    inner = [part.std.clone() for part in norms]
    history = model.fit(x, training, generator=seeded())
    assert all(part.std.equal(std) for part, std in zip(norms, inner, strict=True))
    assert history.objective[-1] > 3  # of a likelihood that has no maximum


def test_what_a_trained_layer_makes_is_not_refused(generator: Generator) -> None:
    """The layer may have moved by any amount, and its data not at all."""
    norm = ActNorm(2)
    flow = Flow(StandardNormal(2), Chain(LULinear(2), norm)).double()
    x = points(generator)
    flow.initialise(x)
    with torch.no_grad():
        for parameter in flow.transform.parts[0].parameters():  # type: ignore[union-attr,index]
            parameter.add_(10.0)
    flow.initialise(x)
    prior = real_nvp(2, 2, (4,)).double()
    encoder = ConditionalGaussian(nn.Linear(2, 4), 2, 2)
    model = VAE(prior, encoder, ConditionalGaussian(nn.Linear(2, 4), 2, 2)).double()
    model.initialise(x)
    with torch.no_grad():
        encoder.network.weight.mul_(1e4)  # type: ignore[operator,union-attr]
    model.initialise(x)


def test_fits_in_other_units_are_refused_and_change_nothing(generator: Generator) -> None:
    x = points(generator).float()
    for model in (
        maf(2, 2, (8,)),
        real_nvp(2, 2, (8,)),
        FlowVAE(maf(2, 2, (8,))),
        VAE.gaussian(2, 1, hidden=(8,)),
        TightLayeredModel(HalfNormal(2), Abs(2)),
        layered(maf(1, 1, (8,)), Slice(2, [0], maf(1, 1, (8,)))),
    ):
        model.fit(x, Training(epochs=1, progress=False), generator=seeded())
        state = deepcopy(model.state_dict())
        with pytest.raises(
            ValueError, match=r"fitted to data.* in other units: column 0 .*bring the data to the former"
        ):
            model.fit(1e3 * x + 5e4, Training(epochs=1, progress=False), generator=seeded())
        assert all(value.equal(state[name]) for name, value in model.state_dict().items())


def test_contexts_in_other_units_are_refused(generator: Generator) -> None:
    x, context = points(generator).float(), points(generator, features=1).float()
    flow = maf(2, 2, (8,), context_features=1)
    flow.initialise(x, context)
    with pytest.raises(
        ValueError, match=r"fitted to contexts in other units: column 0 .*bring the contexts to the for"
    ):
        flow.initialise(x, 2000 + context)


# ---------------------------------------------------------------------------------------------------------------------
# What users ran into
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "expected"),
    [(lambda: Max(1, 2), -16.88), (lambda: Slice(2, [0], maf(1, 2, (16,))), -16.68)],
    ids=["max", "slice"],
)
def test_layers_see_the_units_of_the_data(link: object, expected: float) -> None:
    """Of 1,000 x: 2 (½ log 2πe + log 1000) = 16.65 nats is the entropy; the maximum of two is no Gaussian."""
    x = 1000 * torch.randn(1000, 2, generator=seeded())
    torch.manual_seed(0)
    model = layered(maf(1, 2, (8,)), link())  # type: ignore[operator]
    model.fit(x, Q, generator=seeded())
    assert isinstance(model, TightLayeredModel)
    assert model.log_density(x).value.mean().item() == pytest.approx(expected, abs=0.1)


def test_a_training_loop_of_ones_own_starts_as_fit_does() -> None:
    """Raw digits, levels 0 to 16 with constant columns; without the start 20 epochs end at −289."""
    from studies.data.embedded import embedded

    x = torch.as_tensor(embedded("digits").rows).float()
    torch.manual_seed(0)
    model, generator = VAE.gaussian(64, 4, scale=PerFeatureScale(64)), seeded()
    model.initialise(x)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            optimiser.zero_grad()
            (-model.elbo(x[rows], generator=generator).mean()).backward()
            optimiser.step()
    with torch.no_grad():
        assert -145 < model.elbo(x, generator=seeded(1)).mean().item() < -110


def test_a_standardisation_in_a_network_of_ones_own_is_reached(generator: Generator) -> None:
    """However deep it lies; those of densities inside see other points."""
    x = 100 + 10 * points(generator)
    network = nn.Sequential(nn.Sequential(nn.Identity(), Standardisation(2)), nn.Linear(2, 4))
    encoder = ConditionalGaussian(network, 2, 2)
    VAE(StandardNormal(2), encoder, Rescaled(ConditionalGaussian(nn.Linear(2, 4), 2, 2))).double().initialise(x)
    first: nn.Module = network[0][1]  # type: ignore[index]
    assert isinstance(first, Standardisation)
    torch.testing.assert_close(first(x).mean(0), torch.zeros(2).double(), rtol=0, atol=1e-9)


def test_only_what_reads_the_input_takes_it(generator: Generator) -> None:
    x = 100 + 10 * points(generator)
    network = nn.Sequential(Standardisation(2), nn.Linear(2, 2), Standardisation(2), nn.Linear(2, 4))
    ConditionalGaussian(network, 2, 2).double().initialise(x, x)
    assert [bool(layer.matched) for layer in network if isinstance(layer, Standardisation)] == [True, False]


@pytest.mark.parametrize(
    ("layer", "inputs", "outputs"),
    [
        (lambda network: AffineCoupling([True, False], context_features=1, conditioner=network), 2, 2),
        (lambda network: GaussianAutoregressive(2, context_features=1, conditioner=network), 3, 4),
    ],
    ids=["coupling", "autoregressive"],
)
def test_a_standardisation_in_a_conditioner_is_reached(
    layer: Callable[[nn.Module], Transform], inputs: int, outputs: int, generator: Generator
) -> None:
    """It sees what the conditioner sees: passed features or all of them, then the context."""
    x, context = 100 + 10 * points(generator), 5 * points(generator, features=1) - 7
    seen = Standardisation(inputs)
    network = nn.Sequential(seen, nn.Linear(inputs, outputs))
    Flow(StandardNormal(2), layer(network)).double().initialise(x, context)
    expected = torch.cat([x[:, : inputs - 1], context], -1).mean(0)
    torch.testing.assert_close(seen.shift, expected, rtol=1e-12, atol=0)
