"""What a network may be, what it may return, and what is said of one that returns something else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import HalfNormal
from bridge.hybrids import autoregressive_posterior, coupling_posterior
from density import (
    ConditionalBernoulli,
    ConditionalGaussian,
    Density,
    FixedScale,
    NetworkScale,
    ScaleModel,
    Standardisation,
    StandardNormal,
    Training,
    load,
    mlp,
    save,
)
from density.families.network import leaves_input_alone, network_output
from density.fitting.autocast import lowered
from flows import AffineCoupling, Flow, GaussianAutoregressive, MaskedMLP
from lvm import VAE
from tests.cases.networks import NETWORKS, Pair
from tests.laws.networks import OnRows

N, LATENT = 128, 2


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def vae(network: nn.Module, outputs: int) -> VAE:
    """With a given decoder of binary data, and a linear encoder."""
    encoder = ConditionalGaussian(nn.Linear(outputs, 2 * LATENT), LATENT, outputs)
    return VAE(StandardNormal(LATENT), encoder, ConditionalBernoulli(network, outputs, LATENT)).double()


def images(*folded: nn.Module) -> nn.Module:
    return nn.Sequential(
        *folded,
        nn.Linear(LATENT, 128),
        nn.Unflatten(-1, (32, 2, 2)),
        nn.ConvTranspose2d(32, 1, 4, 4),
        nn.Flatten(),
    )


@pytest.mark.parametrize("network", [images(), images(nn.Flatten(0, -2))], ids=["convolutional", "folds by itself"])
def test_a_convolutional_decoder_has_an_elbo_for_every_point(network: nn.Module, generator: Generator) -> None:
    """The reports' two decoders: one failed, the other mixed the points up, which the mean does not show."""
    model = vae(network, 64)
    by_hand = copy.deepcopy(model)
    by_hand.decoder = ConditionalBernoulli(OnRows(by_hand.decoder.network), 64, LATENT).double()  # type: ignore[arg-type]
    x = (torch.rand(50, 64, generator=generator, dtype=torch.float64) < torch.linspace(0, 1, 50)[:, None]).double()
    values = []
    for one in (model, by_hand):
        torch.manual_seed(0)
        values.append(one.elbo(x, draws=3))
    torch.testing.assert_close(*values, rtol=1e-11, atol=1e-11)
    assert values[0].std() > 1, "points are alike, and the test would not see them mixed up"
    history = model.fit(x, Training(epochs=2, progress=False), generator=generator)
    assert math.isfinite(history.objective[-1])
    claim = model.eval().log_density(x, draws=20, generator=generator)
    assert claim.value.shape == (50,)


@pytest.mark.parametrize("batch", [(N,), (3, N), (1, 5)])
def test_normalisation_over_the_batch_is_over_all_its_points(batch: tuple[int, ...], generator: Generator) -> None:
    """As many features as points: the wrong axis would not be an error."""
    network = nn.Sequential(nn.Linear(LATENT, N), nn.BatchNorm1d(N), nn.ReLU(), nn.Linear(N, 4)).double().train()
    by_hand = copy.deepcopy(network)
    z = normal(generator, *batch, LATENT)
    x = (normal(generator, *batch, 4) > 0).double()
    found = ConditionalBernoulli(network, 4, LATENT).double().log_prob(x, z)
    logits = by_hand(z.reshape(-1, LATENT)).reshape(*batch, 4)
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(network[1].running_mean, by_hand[1].running_mean)


def test_a_conditioner_that_starts_in_place_moves_nothing_else() -> None:
    """The reports' numbers: x = (−1, 2) became (0, 2), and z₁ = 0."""
    for layer in (
        AffineCoupling([True, False], conditioner=nn.Sequential(nn.ReLU(inplace=True), nn.Linear(1, 2))),
        GaussianAutoregressive(2, conditioner=nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 4))),
    ):
        with torch.no_grad():
            layer.conditioner[1].weight.zero_()
            layer.conditioner[1].bias.zero_()
        x = torch.tensor([[-1.0, 2.0]])
        for call in (layer.forward, layer.inverse):
            z, log_det = call(x)
            assert x.tolist() == z.tolist() == [[-1.0, 2.0]]
            assert log_det.tolist() == [0.0]


SPARING = ("perceptron", "convolutional", "of events", "folding", "BatchNorm", "BatchNorm first", "in place later")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_may_write_into_its_input_sees_a_copy_and_the_usual_networks_do_not(name: str) -> None:
    case = NETWORKS[name]
    network = case.make(3, 4).double().eval()
    if case.writes:
        assert not leaves_input_alone(network)
    if name in SPARING:
        assert leaves_input_alone(network)
    x, seen = torch.ones(5, 3, dtype=torch.float64), []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0].data_ptr()))
    network_output(network, x, 4, "Test", "numbers", lambda mean, log_variance: torch.cat([mean, log_variance], -1))
    assert (seen == [x.data_ptr()]) is leaves_input_alone(network)


@pytest.mark.parametrize(
    ("network", "alone"),
    [
        (nn.Sequential(Standardisation(3), mlp(3, 2)), True),
        (MaskedMLP([0, 1, 2]), True),
        (nn.Sequential(), True),
        (nn.Sequential(nn.Identity(), nn.Flatten()), True),
        (nn.Sequential(nn.Dropout(inplace=True), nn.Linear(3, 2)), False),
        (nn.Sequential(nn.Sequential(nn.Flatten()), nn.Sequential(nn.ReLU(inplace=True))), False),
        (nn.Softmax(-1), False),  # not known
    ],
)
def test_what_is_known_of_networks(network: nn.Module, alone: bool) -> None:
    assert leaves_input_alone(network) is alone


def test_a_pair_is_mean_and_log_variance(generator: Generator) -> None:
    context, x = normal(generator, 6, 3), normal(generator, 6, 4)
    for shape in ((-1,), (1, 2, 2)):
        pair = Pair(3, 8, shape).double()
        mean, log_variance = (half.flatten(1) for half in pair(context))
        for bound in (None, 7.0, 0.3):
            density = ConditionalGaussian(pair, 4, 3, NetworkScale(bound)).double()
            raw = log_variance / 2
            std = (raw if bound is None else bound * torch.tanh(raw / bound)).exp()
            expected = torch.distributions.Normal(mean, std).log_prob(x).sum(-1)
            torch.testing.assert_close(density.log_prob(x, context), expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(density.expectation(context), mean)


def test_without_a_bound_sigma_is_the_network_s(generator: Generator) -> None:
    raw = torch.tensor([[-40.0, -8.0, 0.0, 8.0, 40.0]], dtype=torch.float64)
    assert NetworkScale(bound=None)(raw, raw).equal(raw.exp())
    half = HalfNormal(5, 5, nn.Identity(), log_scale_bound=None).double()
    assert half.log_scale_at(raw).equal(raw)
    assert (HalfNormal(5, 5, nn.Identity()).double().log_scale_at(raw).abs() <= 7).all()
    x = normal(generator, 1, 10)
    layer = AffineCoupling([False] * 5, (), 5, None, nn.Linear(5, 10)).double()
    with torch.no_grad():
        layer.conditioner.weight.zero_()
        layer.conditioner.bias.copy_(torch.cat([torch.zeros(5), raw[0]]))
    z, log_det = layer.forward(x[:, :5], x[:, 5:])
    torch.testing.assert_close(z, x[:, :5] * (-raw).exp(), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_det, -raw.sum(-1))
    torch.testing.assert_close(layer.inverse(z, x[:, 5:])[0], x[:, :5])
    for make in (lambda b: NetworkScale(b), lambda b: HalfNormal(2, log_scale_bound=b)):
        for bad in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=r"^(NetworkScale|HalfNormal) expects .*, or None for no bound; got"):
                make(bad)


def test_a_file_keeps_the_bound_and_that_there_is_none(generator: Generator, tmp_path: Path) -> None:
    context = 20 * normal(generator, 5, 3)
    for model in (
        ConditionalGaussian(nn.Linear(3, 4), 2, 3, NetworkScale(bound=None)),
        ConditionalGaussian(nn.Linear(3, 4), 2, 3, NetworkScale(0.5)),
        HalfNormal(2, 3, log_scale_bound=None),
        HalfNormal(2, 3, log_scale_bound=0.5),
        Flow(StandardNormal(2), AffineCoupling([True, False], (), 3, None)),
    ):
        save(model.double(), tmp_path / "model.safe")
        loaded = load(tmp_path / "model.safe")
        x = normal(generator, 5, 2).abs()
        assert isinstance(loaded, Density)
        assert loaded.log_prob(x, context).equal(model.log_prob(x, context))


@pytest.mark.parametrize("scale", [NetworkScale(bound=None), FixedScale(0.5)])
def test_builders_hand_the_encoder_its_scale(scale: ScaleModel) -> None:
    for model in (VAE.gaussian(4, 2, encoder_scale=scale), VAE.bernoulli(4, 2, encoder_scale=scale)):
        assert isinstance(model.encoder, ConditionalGaussian)
        assert model.encoder.scale is scale
        assert model.elbo(torch.zeros(3, 4)).shape == (3,)
    for posterior in (coupling_posterior(4, 2, scale=scale), autoregressive_posterior(4, 2, scale=scale)):
        assert isinstance(posterior.density, Flow)
        assert isinstance(posterior.density.base, ConditionalGaussian)
        assert posterior.density.base.scale is scale
        assert posterior.sample(2, context=torch.zeros(3, 4)).shape == (2, 3, 2)


class Returning(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (torch.zeros(5, 7), r"\[5, 7\]"),
        (torch.zeros(8), r"\[8\]"),
        (torch.zeros(1, 8), r"\[1, 8\]"),
        (torch.zeros(8, 5), r"\[8, 5\]"),
        (torch.zeros(5, 3, 4), r"\[5, 3, 4\]"),
        (torch.zeros(()), r"\[\]"),
        ((torch.zeros(5, 4), torch.zeros(5, 3)), r"a tuple of \[5, 4\], \[5, 3\]"),
        ([torch.zeros(5, 4)] * 3, r"a list of \[5, 4\], \[5, 4\], \[5, 4\]"),
        ((), "a tuple of nothing"),
        (None, "a NoneType"),
        ({"mean": torch.zeros(5, 4)}, "a dict"),
    ],
)
def test_another_output_is_one_clear_error(output: object, shown: str) -> None:
    density = ConditionalGaussian(Returning(output), 4, 3)
    message = (
        r"^ConditionalGaussian with NetworkScale expects its network to return \[n, 8\] for n points, means and then "
        r"raw log σ, or n events of as many numbers, or a pair \(mean, log-variance\) of \[n, 4\] each; got "
        rf"{shown} for n = 5 \(docs/howto/own_network\.md\)$"
    )
    with pytest.raises(ValueError, match=message):
        density.log_prob(torch.zeros(5, 4), torch.zeros(5, 3))


@pytest.mark.parametrize(
    "build",
    [
        lambda net: ConditionalBernoulli(net, 4, 3).log_prob(torch.zeros(5, 4), torch.zeros(5, 3)),
        lambda net: ConditionalGaussian(net, 4, 3, FixedScale()).log_prob(torch.zeros(5, 4), torch.zeros(5, 3)),
        lambda net: AffineCoupling([True, False, False], conditioner=net).forward(torch.zeros(5, 3)),
        lambda net: GaussianAutoregressive(2, conditioner=net).forward(torch.zeros(5, 2)),
    ],
)
def test_a_pair_where_none_is_understood_is_refused(build: Callable[[nn.Module], object]) -> None:
    message = r"or n events of as many numbers; got a tuple of \[5, 2\], \[5, 2\] for n = 5 \(docs"
    with pytest.raises(ValueError, match=message):
        build(Returning((torch.zeros(5, 2), torch.zeros(5, 2))))


def test_a_missing_context_is_named_where_nothing_was_checked_before() -> None:
    for density, ask in (
        (HalfNormal(2, 3), lambda d: d.log_prob_each(torch.ones(5, 2))),
        (ConditionalBernoulli(nn.Linear(3, 2), 2, 3), lambda d: d.logits_at(None)),
    ):
        with pytest.raises(ValueError, match=rf"^{type(density).__name__} needs a context \[\*batch, C\]"):
            ask(density)


def test_one_number_a_point_may_come_without_a_dimension() -> None:
    class Score(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(-1)

    density = ConditionalBernoulli(Score(), 1, 3)
    assert density.log_prob(torch.ones(2, 5, 1), torch.zeros(2, 5, 3)).shape == (2, 5)
    assert density.log_prob(torch.ones(1), torch.zeros(3)).item() == pytest.approx(-math.log(2))


def test_a_pair_under_autocast_is_of_the_dtype_of_its_input(generator: Generator) -> None:
    network, x = nn.Sequential(nn.Linear(4, 8), Pair(8, 4)), torch.randn(5, 4, generator=generator)
    with torch.no_grad(), lowered(network, torch.bfloat16):
        mean, log_variance = network(x)
    assert mean.dtype == log_variance.dtype == torch.float32
    assert not mean.equal(network(x)[0])
    encoder = ConditionalGaussian(network, 2, 4)
    model = VAE(StandardNormal(2), encoder, ConditionalBernoulli(mlp(2, 4, (8,)), 4, 2))
    training = Training(epochs=2, progress=False, autocast=torch.bfloat16)
    history = model.fit((x[:, :4] > 0).float().repeat(20, 1), training, generator=generator)
    assert math.isfinite(history.objective[-1])
