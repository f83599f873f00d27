"""EM is coordinate ascent on the ELBO: the E-step closes the gap, the M-step raises the bound, log p never falls."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from lvm import PPCA, Diagonal, Full, GaussianMixture, Spherical, Tied
from lvm.mixture.covariance import Covariance
from tests.equivalence.examples import randomise

Record = Callable[[str, float, float], None]
STRUCTURES = [Full, Tied, Diagonal, Spherical]
STEPS = 600


def clusters(generator: Generator, n: int = 300, d: int = 2, k: int = 3) -> Tensor:
    centres = 3 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    label = torch.randint(k, (n,), generator=generator)
    return centres[label] + torch.randn(n, d, generator=generator, dtype=torch.float64)


def mixture_bound(model: GaussianMixture, of: GaussianMixture, x: Tensor) -> Tensor:
    """ELBO of the model with the posterior of another one as q; the sum over components is exact."""
    z = of.prior.enumerate().unsqueeze(1)
    log_q = of.encoder.log_prob(z, x)
    return (log_q.exp() * (model.log_joint(x, z) - log_q)).sum(0).mean().detach()


def ppca_bound(model: PPCA, of: PPCA, x: Tensor) -> Tensor:
    """The same for PPCA, where E_q ‖x − Wz − μ‖² and E_q ‖z‖² follow from mean and covariance of q."""
    mean, scale = of.encoder.at(x)
    root = scale.dense()
    covariance = root @ root.mT
    weight, noise = model.decoder.weight, model.decoder.log_std.exp() ** 2
    residual = (x - model.decoder.mean - mean @ weight.mT).square().sum(-1) + (weight.mT @ weight * covariance).sum()
    d, q = weight.shape
    two_pi = torch.tensor(2 * torch.pi, dtype=torch.float64)
    reconstruction = -0.5 * residual / noise - 0.5 * d * (two_pi * noise).log()
    prior = -0.5 * (mean.square().sum(-1) + covariance.trace()) - 0.5 * q * two_pi.log()
    entropy = 0.5 * q * (two_pi.log() + 1) + scale.log_det()
    return (reconstruction + prior + entropy).mean().detach()


def check_steps(
    model: GaussianMixture | PPCA,
    bound: Callable[[GaussianMixture | PPCA, GaussianMixture | PPCA, Tensor], Tensor],
    x: Tensor,
    name: str,
    record_measurement: Record,
) -> None:
    log_p = model.log_prob(x).mean().detach()
    start = log_p
    closed, raised, fallen = 0.0, 0.0, 0.0
    for step in range(STEPS):
        before = deepcopy(model)
        model.em_step(x)
        now = model.log_prob(x).mean().detach()
        if step < 50:  # past these nothing moves that could violate
            touching = bound(before, before, x)  # after the E-step: q is the posterior of the old parameters
            above = bound(model, before, x)  # after the M-step: same q, new parameters
            closed = max(closed, float((touching - log_p).abs()))
            raised = max(raised, float(touching - above), float(above - now))
        fallen = max(fallen, float(log_p - now))
        log_p = now
    assert log_p - start > 0.1  # it had far to go
    # Means of 300 terms of size 10: rounding alone is below 1e-13; a fall by more would be a fault.
    record_measurement(f"9  E-step closes the gap ({name})", closed, 1e-12)
    record_measurement(f"9b M-step raises the bound ({name})", max(raised, 0.0), 1e-12)
    record_measurement(f"9c log p never falls in {STEPS} steps ({name})", max(fallen, 0.0), 1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mixture(structure: type[Covariance], generator: Generator, record_measurement: Record) -> None:
    model = GaussianMixture(2, 3, structure()).double()
    randomise(model, generator, 1.0)
    check_steps(model, mixture_bound, clusters(generator), "mixture", record_measurement)


@pytest.mark.parametrize("n", [300, 12])
def test_ppca(n: int, generator: Generator, record_measurement: Record) -> None:
    d, q = 20, 3
    loadings = torch.randn(d, q + 2, generator=generator, dtype=torch.float64)
    x = torch.randn(n, q + 2, generator=generator, dtype=torch.float64) @ loadings.mT
    x = x + torch.randn(n, d, generator=generator, dtype=torch.float64) + 5
    model = PPCA(d, q).double()
    randomise(model, generator, 0.5)
    with torch.no_grad():
        model.decoder.mean.copy_(x.mean(0))
    check_steps(model, ppca_bound, x, "PPCA", record_measurement)
