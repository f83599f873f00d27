"""Hamiltonian Monte Carlo, its pilot run and the schedules, on Gaussians and on a density that is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import kstest
from torch import Generator, Tensor

from density import Gaussian
from lvm.evidence.annealing.bounds import Adaptive, Linear, Pilot, Sigmoid
from lvm.evidence.annealing.hamiltonian import GeometricPath, leapfrog, transition
from lvm.evidence.annealing.pilot import Tuning

Record = Callable[[str, float, float], None]
START = Gaussian.from_moments(
    torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[1.5, 0.4], [0.4, 0.8]], dtype=torch.float64)
)
TARGET = Gaussian.from_moments(
    torch.tensor([-1.0, 1.5], dtype=torch.float64), torch.tensor([[0.3, -0.2], [-0.2, 0.5]], dtype=torch.float64)
)
BETA = torch.tensor([0.3, 0.8], dtype=torch.float64)  # two points, at temperatures of their own


def curved(z: Tensor) -> Tensor:
    """A banana: neither Gaussian nor quadratic."""
    return -0.5 * z[..., 0].square() - 2 * (z[..., 1] - z[..., 0].square()).square() + 0.3 * z[..., 0].sin()


def randn(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def between(beta: float) -> Gaussian:
    """The geometric path of two Gaussians is Gaussian: precisions, and precisions times means, are mixed."""
    first, second = torch.linalg.inv(START.covariance), torch.linalg.inv(TARGET.covariance)
    covariance = torch.linalg.inv((1 - beta) * first + beta * second)
    mean = covariance @ ((1 - beta) * first @ START.mean + beta * second @ TARGET.mean)
    return Gaussian.from_moments(mean.detach(), covariance.detach())


def test_position_is_the_geometric_path(generator: Generator) -> None:
    path = GeometricPath(START.log_prob, TARGET.log_prob)
    z = randn(generator, 7, 2, 2)
    position = path.at(z)
    for point, beta in enumerate(BETA.tolist()):
        here = between(beta)
        assert (position.log_density(BETA) - here.log_prob(z))[:, point].std() < 1e-12  # up to its normaliser
        expected = -(z[:, point] - here.mean) @ torch.linalg.inv(here.covariance)
        torch.testing.assert_close(position.gradient(BETA)[:, point], expected.detach(), rtol=0, atol=1e-12)


def test_leapfrog_is_its_own_inverse_after_a_turn(generator: Generator, record_measurement: Record) -> None:
    path = GeometricPath(START.log_prob, curved)
    begin, momentum = path.at(randn(generator, 50, 2, 2)), randn(generator, 50, 2, 2)
    step = torch.tensor([[0.11, 0.05], [0.07, 0.13]], dtype=torch.float64)
    there, turned = leapfrog(path, begin, momentum, BETA, step, 15)
    back, final = leapfrog(path, there, -turned, BETA, step, 15)
    assert (there.z - begin.z).abs().max() > 0.5
    error = max((back.z - begin.z).abs().max(), (final + momentum).abs().max())
    record_measurement("leapfrog: there and back", float(error), 1e-9)  # rounding, grown along 30 nonlinear steps


def test_leapfrog_preserves_volume(generator: Generator, record_measurement: Record) -> None:
    path = GeometricPath(START.log_prob, curved)
    beta, step = BETA[:1], torch.tensor([[0.11, 0.05]], dtype=torch.float64)
    origin, h = randn(generator, 4), 1e-5

    def flow(state: Tensor) -> Tensor:
        end, momentum = leapfrog(path, path.at(state[:, None, :2]), state[:, None, 2:], beta, step, 5)
        return torch.cat([end.z, momentum], -1).squeeze(1)

    moved = torch.cat([origin + h * torch.eye(4).double(), origin - h * torch.eye(4).double()])
    ahead, behind = flow(moved).chunk(2)
    jacobian = (ahead - behind) / (2 * h)
    assert (jacobian - torch.eye(4).double()).abs().max() > 0.3
    # Central differences err by h² times a third derivative, ~ 1e-10 · 10², and by rounding, 1e-16/h.
    record_measurement("leapfrog: |det J| − 1", abs(torch.linalg.det(jacobian).item() - 1), 1e-7)


def test_transition_keeps_the_distribution(generator: Generator) -> None:
    path, count = GeometricPath(START.log_prob, TARGET.log_prob), 20_000
    exact = [between(beta) for beta in BETA.tolist()]
    begin = torch.stack([density.sample(count, generator=generator) for density in exact], 1).detach()
    position, accepted = path.at(begin), torch.zeros(())
    step = torch.tensor([[0.9, 1.1], [0.5, 0.8]], dtype=torch.float64)
    for _ in range(8):
        position, probability = transition(path, position, BETA, step, 3, generator)
        accepted = accepted + probability.mean() / 8
    assert 0.3 < accepted < 0.9  # Metropolis is needed, so its absence would show
    for point, density in enumerate(exact):
        factor = torch.linalg.cholesky(density.covariance)
        white = torch.linalg.solve_triangular(factor, (position.z[:, point] - density.mean).mT, upper=False).mT.detach()
        assert (white.mean(0) * math.sqrt(count)).abs().max() < 5
        second = white.mT @ white / count - torch.eye(2)
        assert (second * math.sqrt(count) / torch.tensor([[math.sqrt(2), 1], [1, math.sqrt(2)]])).abs().max() < 5
        for column in range(2):
            assert kstest(white[:, column].numpy(), "norm").pvalue > 1e-5
        drift = torch.corrcoef(torch.stack([position.z[:, point, 0], begin[:, point, 0]]))[0, 1]
        assert drift.abs() < 0.2  # and the chains have moved


def test_transition_is_in_detailed_balance(generator: Generator) -> None:
    """At equilibrium (z, z′) and (z′, z) are equally likely: stronger than stationarity, and what reversal needs."""
    path, count = GeometricPath(START.log_prob, TARGET.log_prob), 50_000
    begin = torch.stack([between(beta).sample(count, generator=generator) for beta in BETA.tolist()], 1).detach()
    step = torch.tensor([[0.5, 0.6], [0.3, 0.4]], dtype=torch.float64)
    end, _ = transition(path, path.at(begin), BETA, step, 2, generator)
    for f, g in ((lambda z: z[..., 0], lambda z: z[..., 1]), (lambda z: z[..., 0], lambda z: z[..., 0].square())):
        asymmetry = f(begin) * g(end.z) - g(begin) * f(end.z)
        assert (asymmetry.mean(0) / asymmetry.std(0) * math.sqrt(count)).abs().max() < 5


def test_a_diverging_trajectory_is_rejected(generator: Generator) -> None:
    path = GeometricPath(START.log_prob, lambda z: -z.square().square().sum(-1))
    position = path.at(randn(generator, 5, 2, 2))
    moved, probability = transition(path, position, BETA, torch.full((2, 2), 1e30).double(), 5, generator)
    assert (probability == 0).all()
    assert torch.equal(moved.z, position.z)
    assert moved.log_density(BETA).isfinite().all()


def test_a_density_of_zero_is_left_and_never_entered(generator: Generator) -> None:
    path = GeometricPath(START.log_prob, lambda z: torch.where(z[..., 0] > 0, TARGET.log_prob(z), -math.inf))
    position = path.at(randn(generator, 2000, 2, 2))
    inside = position.z[..., 0] > 0
    for _ in range(20):
        position, probability = transition(path, position, BETA, torch.full((2, 2), 0.5).double(), 3, generator)
        now = position.z[..., 0] > 0
        assert bool(now[inside].all())
        assert probability.isfinite().all()
        inside = now
    assert inside.double().mean() > 0.9


def test_zero_times_minus_infinity_is_zero() -> None:
    path = GeometricPath(START.log_prob, lambda z: z.sum(-1) - math.inf)
    position = path.at(torch.ones(1, 2, 2, dtype=torch.float64))
    log_density = position.log_density(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert log_density[0].tolist() == [position.start[0, 0].item(), -math.inf]


def test_pilot_reaches_the_acceptance_at_every_scale(generator: Generator) -> None:
    scale = torch.logspace(-3, 3, 7).double().unsqueeze(-1) * torch.tensor([1.0, 0.05, 2.0]).double()
    path = GeometricPath(
        lambda z: -0.5 * (z / scale).square().sum(-1) - scale.log().sum(-1),
        lambda z: -0.5 * ((z / scale - 1.0) / 0.3).square().sum(-1) - (0.3 * scale).log().sum(-1),
    )
    for acceptance in (0.5, 0.8):
        tuning = Pilot(acceptance=acceptance).run(path, scale * randn(generator, 64, 7, 3), 3, generator=generator)
        assert (tuning.beta[0] == 0).all()
        assert (tuning.beta[-1] == 1).all()
        beta = torch.full((7,), 0.5).double()
        mean, std = 1 / (0.09 + 1) * 1.0, (1 / (0.5 + 0.5 / 0.09)) ** 0.5
        position = path.at(scale * (mean + std * randn(generator, 400, 7, 3)))
        rates = []
        for _ in range(10):
            position, accepted = transition(path, position, beta, tuning.step(beta), 3, generator)
            rates.append(accepted.mean(0))
        # The last of a few dozen Robbins-Monro steps of size ½ on eight chains: good to about 0.1.
        assert (torch.stack(rates).mean(0) - acceptance).abs().max() < 0.2
        assert (torch.stack(rates).mean() - acceptance).abs() < 0.1


def flat(n: int = 1) -> Tuning:
    grid = torch.linspace(0, 1, 5).double().unsqueeze(-1).expand(-1, n)
    return Tuning(grid, torch.zeros_like(grid), torch.ones(5, n, 3).double(), torch.ones_like(grid))


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("schedule", [Linear(), Sigmoid(), Sigmoid(rad=9.0), Adaptive(), Adaptive(floor=1.0)])
def test_schedules_rise_from_zero_to_one(schedule: Linear | Sigmoid | Adaptive, steps: int) -> None:
    beta = torch.tensor([[0.0, 0.0], [1e-4, 0.3], [0.2, 1.0], [1.0, 1.0]], dtype=torch.float64)
    speed = torch.tensor([[1e4, 0.0], [30.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    betas = schedule.betas(steps, Tuning(beta, torch.zeros_like(beta), torch.ones(4, 2, 3), speed))
    assert betas.shape == (steps + 1, 2)
    assert betas.dtype == torch.float64
    assert (betas[0] == 0).all()
    assert (betas[-1] == 1).all()
    assert (betas.diff(dim=0) > 0).all()


def test_sigmoid_is_that_of_the_paper() -> None:
    logistic = [1 / (1 + math.exp(-4 * (2 * t / 10 - 1))) for t in range(11)]
    expected = [(value - logistic[0]) / (logistic[-1] - logistic[0]) for value in logistic]
    assert Sigmoid(rad=4).betas(10, flat()).squeeze(-1).tolist() == pytest.approx(expected, abs=1e-14)
    assert Linear().betas(4, flat()).squeeze(-1).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_adaptive_spreads_evenly_in_length(generator: Generator) -> None:
    """N(0, 1) to N(m, 1) moves at constant speed; N(0, 1) to N(0, s²) in the logarithm of its precision."""
    s = 0.02

    def target(z: Tensor) -> Tensor:
        shifted, narrowed = -0.5 * (z[:, 0, 0] - 6).square(), -0.5 * (z[:, 1, 0] / s).square()
        return torch.stack([shifted, narrowed], -1)

    path = GeometricPath(lambda z: -0.5 * z.square().sum(-1), target)
    tuning = Pilot(chains=200).run(path, randn(generator, 200, 2, 1), 3, generator=generator)
    betas = Adaptive(floor=1e-9).betas(20, tuning)
    fractions = torch.linspace(0, 1, 21).double()
    assert (betas[:, 0] - fractions).abs().max() < 0.03
    precision = 1 + betas[:, 1] * (s**-2 - 1)
    assert (precision.log() / math.log(s**-2) - fractions).abs().max() < 0.05
    assert betas[10, 1] < 0.03  # far from linear


def test_interpolation_of_the_tuning() -> None:
    beta = torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 1.0]], dtype=torch.float64)
    log_step = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 9.0]], dtype=torch.float64)
    scale = torch.tensor([[1.0, 1.0], [2.0, 3.0], [4.0, 9.0]], dtype=torch.float64).unsqueeze(-1)
    step = Tuning(beta, log_step, scale, log_step).step(torch.tensor([0.75, 0.5], dtype=torch.float64))
    assert step.squeeze(-1).tolist() == pytest.approx([3 * math.exp(2), 2 * math.exp(1)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sigmoid(rad=0.0),
        lambda: Adaptive(floor=0.0),
        lambda: Pilot(chains=1),
        lambda: Pilot(transitions=0),
        lambda: Pilot(temperatures=1),
        lambda: Pilot(acceptance=1.0),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must|share"):
        make()
