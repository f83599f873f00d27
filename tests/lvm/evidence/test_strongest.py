"""Which method ``evidence`` takes, and that it says so."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Generator

from bridge import FlowVAE, LooseLayeredModel, UniformDequantisation
from density import Bernoulli, ConditionalBernoulli, Density, Kind, StandardNormal, mlp
from flows import real_nvp
from lvm import PPCA, VAE, GaussianMixture
from lvm.evidence import annealed, evidence, importance
from lvm.evidence.quadrature import quadrature


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (PPCA(3, 2), "Woodbury"),
        (real_nvp(3, layers=2), "change of variables"),
        (FlowVAE(real_nvp(3, layers=2)), "tight ELBO"),
        (GaussianMixture(3, 2), "sum over components"),
        (VAE.gaussian(3, 1, hidden=(4,)), "quadrature"),
        (VAE.gaussian(3, 2, hidden=(4,)), "quadrature"),
        (VAE.gaussian(3, 4, hidden=(4,)), "annealed"),
    ],
    ids=["PPCA", "flow", "FlowVAE", "mixture", "1 latent", "2 latents", "4 latents"],
)
def test_the_strongest_affordable_method(model: torch.nn.Module, method: str, generator: Generator) -> None:
    x = torch.randn(3, 3, generator=generator)
    claim = evidence(model, x, generator=generator)  # type: ignore[arg-type]
    assert method in claim.method
    assert claim.kind is (Kind.LOWER if method == "annealed" else Kind.EXACT)


def test_bits_are_summed(generator: Generator) -> None:
    encoder = ConditionalBernoulli(mlp(3, 2, (4,)), 2, 3)
    decoder: Density = VAE.gaussian(3, 2, hidden=(4,)).decoder
    model = VAE(Bernoulli(2), encoder, decoder)
    claim = evidence(model, torch.randn(4, 3, generator=generator), generator=generator)
    assert claim.method == "exact sum over 4 latent values"
    assert claim.kind is Kind.EXACT


def test_layers_without_a_joint_density_are_weighted(generator: Generator) -> None:
    model = LooseLayeredModel(StandardNormal(2), UniformDequantisation(2))
    claim = evidence(model, torch.zeros(3, 2), generator=generator)
    assert "importance-weighted" in claim.method
    assert claim.kind is Kind.LOWER


def test_a_method_can_be_asked_for(generator: Generator) -> None:
    model, x = PPCA(3, 2).double(), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    log_p = model.log_prob(x).detach()
    for method in (importance, quadrature, partial(annealed, steps=20, chains=4)):
        claim = evidence(model, x, method=method, generator=generator)
        assert "Woodbury" not in claim.method
        # PPCA's encoder is its posterior: every method is exact, and annealing to within what HMC leaves.
        assert (claim.value - log_p).abs().max() < 1e-6


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="neither"):
        evidence(torch.nn.Linear(1, 1), torch.zeros(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is nan"):
        evidence(VAE.gaussian(3, 1), torch.full((2, 3), torch.nan))
