"""Networks with dropout and batch normalisation: claims evaluate them, fits train them, and neither leaves a trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import DeltaLink, FlowVAE
from density import ConditionalGaussian, GlobalScale, Model, NetworkScale, StandardNormal, Training
from density.evaluating import evaluated, evaluating, mode_kept
from flows import Affine, AffineCoupling, Chain, Flow, Logit, Permutation
from lvm import VAE, evidence

QUICK = Training(epochs=5, batch_size=32, learning_rate=1e-2, progress=False)


def dropping(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, outputs))


def normalising(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, outputs))


def vae(encoder: Callable[[int, int], nn.Module], decoder: Callable[[int, int], nn.Module]) -> VAE:
    return VAE(
        StandardNormal(1),
        ConditionalGaussian(encoder(3, 2), 1, 3, NetworkScale()),
        ConditionalGaussian(decoder(1, 3), 3, 1, GlobalScale()),
    ).double()


def flow(conditioner: Callable[[int, int], nn.Module]) -> Flow:
    layers = [AffineCoupling([True, False, False], conditioner=conditioner(1, 4)), Permutation([2, 0, 1])]
    layers += [AffineCoupling([True, False, False], conditioner=conditioner(1, 4)), Permutation([2, 0, 1])]
    return Flow(StandardNormal(3), Chain(*layers)).double()


MODELS: dict[str, Callable[[], Model]] = {
    "flow, dropout": lambda: flow(dropping),
    "flow, batch normalisation": lambda: flow(normalising),
    "VAE, dropout": lambda: vae(dropping, dropping),
    "VAE, batch normalisation": lambda: vae(normalising, dropping),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    z = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    return torch.cat([z, z.square(), z.sin()], 1) + 0.3 * torch.randn(200, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_claim_after_a_fit_depends_on_weights_and_points(model: Callable[[], Model], x: Tensor) -> None:
    fitted = model()
    fitted.fit(x, QUICK, generator=Generator().manual_seed(0))  # type: ignore[call-arg]
    assert fitted.training
    state = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}

    def claim(x: Tensor) -> Tensor:
        return fitted.log_density(x, draws=50, generator=Generator().manual_seed(0)).value

    first = claim(x)
    assert claim(x).equal(first)
    assert claim(x[:1]).isfinite().all()
    if isinstance(fitted, Flow):
        # 2e-16 times some hundred operations: products of other sizes are rounded otherwise.
        torch.testing.assert_close(claim(x[:50]), first[:50], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(claim(x[:1]), first[:1], rtol=1e-12, atol=1e-12)
    else:
        assert isinstance(fitted, VAE)
        latents = fitted.eval().encoder.expectation(x)
        torch.testing.assert_close(fitted.encoder.expectation(x[:1]), latents[:1], rtol=1e-12, atol=1e-12)
    for name, tensor in fitted.state_dict().items():
        assert tensor.equal(state[name]), name


@pytest.mark.parametrize("encoder", [dropping, normalising])
def test_a_lower_bound_lies_below_the_truth(encoder: Callable[[int, int], nn.Module], x: Tensor) -> None:
    """With dropout in training mode the importance-weighted bound averages over networks, 1.3 nats above the truth."""
    model = vae(encoder, dropping)
    model.fit(x, QUICK, generator=Generator().manual_seed(0))
    truth = evidence.quadrature(model, x[:30])
    bound = evidence.importance(model, x[:30], draws=500, generator=Generator().manual_seed(0))
    assert model.training
    assert bound.mean <= truth.mean + 4.5 * bound.mean_monte_carlo_error
    assert bound.mean == pytest.approx(truth.mean, abs=4.5 * bound.mean_monte_carlo_error + 0.05)


@pytest.mark.parametrize("rows", [129, 143, 33])
@pytest.mark.parametrize("parts", [None, 4])
@pytest.mark.parametrize("model", [MODELS["flow, batch normalisation"], MODELS["VAE, batch normalisation"]])
def test_no_batch_is_too_small_to_be_normalised(
    model: Callable[[], Model], parts: int | None, rows: int, x: Tensor
) -> None:
    """With a tenth held out 143 rows leave 129, one more than a batch; in four parts, 3 rows more are too few, too."""
    for more, validation in ((0, 0.1), (2, 0.0)):
        settings = Training(epochs=1, batch_size=min(128, rows - 1), validation=validation, parts=parts, progress=False)
        model().fit(x[: rows + more], settings, generator=Generator().manual_seed(0))  # type: ignore[call-arg]


def test_a_fit_leaves_every_part_in_its_mode(x: Tensor) -> None:
    """Also a part that somebody has frozen, while all of them train."""
    model = flow(dropping)
    drops = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    drops[0].eval()
    seen: list[bool] = []
    drops[0].register_forward_hook(lambda part, given, output: seen.append(part.training))
    found = [part.training for part in model.modules()]
    model.fit(x, QUICK, generator=Generator().manual_seed(0))
    assert [part.training for part in model.modules()] == found
    assert set(seen) == {True, False}  # steps, and held-out rows


@pytest.mark.parametrize("mode", [evaluating, mode_kept])
def test_the_mode_comes_back_after_an_error(mode: Callable[[nn.Module], object]) -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval(), nn.Linear(1, 1)).eval())
    found = [part.training for part in network.modules()]

    def fail() -> None:
        with mode(network):  # type: ignore[attr-defined]
            if mode is mode_kept:
                network.eval()
            assert not any(part.training for part in network.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [part.training for part in network.modules()] == found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_network_is_evaluated_too() -> None:
    network = nn.Sequential(torch.jit.script(nn.Dropout()))
    x = torch.ones(100)
    with evaluating(network):
        assert network(x).equal(x)
    assert not network(x).equal(x)


def test_a_claim_keeps_its_name_and_its_own_errors() -> None:
    @evaluated
    def claim(model: nn.Module, x: Tensor) -> bool:
        """Whether it evaluates."""
        return not model.training

    assert claim.__name__ == "claim"
    assert claim.__doc__ == "Whether it evaluates."
    assert claim(nn.Dropout(), x=torch.ones(1))
    assert claim(model=nn.Dropout(), x=torch.ones(1))
    with pytest.raises(AttributeError):
        claim("no module", torch.ones(1))  # type: ignore[arg-type]


def test_a_normalisation_without_statistics_is_refused(generator: Generator) -> None:
    """A point's value would depend on the points beside it."""
    network = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 2))
    flow = Flow(StandardNormal(2), AffineCoupling([True, False], conditioner=network))
    x = torch.randn(50, 2, generator=generator)
    with pytest.raises(ValueError, match="Flow holds a BatchNorm1d with track_running_stats=False"):
        flow.log_density(x)
    assert network.training


def test_a_train_of_ones_own_is_called(generator: Generator) -> None:
    """A module may keep its mode elsewhere, too."""

    class Noisy(nn.Linear):
        noisy = True

        def train(self, mode: bool = True) -> Noisy:
            self.noisy = mode
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + torch.randn_like(y) if self.noisy else y

    network = nn.Sequential(Noisy(1, 8), nn.Dropout().eval(), nn.Linear(8, 2))
    flow = Flow(StandardNormal(2), AffineCoupling([True, False], conditioner=network))
    x = torch.randn(50, 2, generator=generator)
    assert flow.log_density(x).value.equal(flow.log_density(x).value)
    assert [part.training for part in network] == [True, False, True]
    assert network[0].noisy


def on_the_square(generator: Generator) -> tuple[Flow, Tensor]:
    """A flow on the unit square after a coupling with batch statistics, and data within."""
    conditioner = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 2), nn.Tanh())
    coupling = AffineCoupling([True, False], conditioner=conditioner)
    flow = Flow(StandardNormal(2), Chain(coupling, Affine(-50.0, 100.0), Logit()))
    return flow, 0.1 * torch.rand(50, 2, generator=generator)


@pytest.mark.parametrize("model", [lambda flow: flow, FlowVAE], ids=["flow", "layered"])
def test_a_fit_that_is_refused_moves_no_statistics(
    model: Callable[[Flow], Flow | FlowVAE], generator: Generator
) -> None:
    """Whether data lies in the support may be asked of networks, which are not trained yet."""
    flow, x = on_the_square(generator)
    state = {name: value.clone() for name, value in flow.state_dict().items()}
    with pytest.raises(ValueError, match=r"Logit expects values in \(0, 1\)"):
        model(flow).fit(x + 1000, Training(epochs=1, progress=False))
    assert all(value.equal(state[name]) for name, value in flow.state_dict().items())
    assert flow.training


@pytest.mark.parametrize(
    "start",
    [
        lambda flow, x: flow.initialise(x),
        lambda flow, x: flow.transform.initialise(x),
        lambda flow, x: DeltaLink(flow.transform).initialise(x),
    ],
    ids=["model", "transform", "link"],
)
def test_a_start_moves_no_statistics(start: Callable[[Flow, Tensor], object], generator: Generator) -> None:
    flow, x = on_the_square(generator)
    state = {name: value.clone() for name, value in flow.state_dict().items()}
    start(flow, x)
    assert all(value.equal(state[name]) for name, value in flow.state_dict().items())
    assert flow.training
