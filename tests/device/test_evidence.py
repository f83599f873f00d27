"""Every evidence method says on a device what it says on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from density import CategoricalLevels, ConditionalGaussian, FixedScale, Independent, LogDensity, StandardNormal
from lvm import VAE, GaussianMixture
from lvm.evidence import (
    Bits,
    FromPrior,
    Linear,
    Pilot,
    annealed,
    audit,
    evidence,
    gap,
    importance,
    interval,
    kl_parts,
    latent_usage,
    prior_average,
    prior_importance,
    quadrature,
    sandwich,
    weighted_sandwich,
)
from lvm.evidence.annealing.hamiltonian import GeometricPath
from tests.device.comparing import ROUNDING, seed
from tests.device.pretended import pretended
from tests.laws.transforms import randomise

PILOT = Pilot(chains=2, temperatures=3, transitions=1)

# Local posteriors are drawn within vmap, where a pretended tensor does not say where it lies.
METHODS: dict[str, Callable[[Any, Tensor, Generator], object]] = {
    "importance": lambda model, x, g: importance(model, x, draws=20, generator=g),
    "prior_average": lambda model, x, g: prior_average(model, x, draws=20, generator=g),
    "prior_importance": lambda model, x, g: prior_importance(model, x, draws=20, generator=g),
    "annealed": lambda model, x, g: annealed(model, x, steps=3, chains=2, pilot=PILOT, generator=g),
    "annealed from the prior": lambda model, x, g: annealed(
        model, x, steps=3, chains=2, start=FromPrior(), schedule=Linear(), pilot=PILOT, generator=g
    ),
    "sandwich": lambda model, x, g: sandwich(model, 3, steps=3, chains=2, pilot=PILOT, generator=g),
    "weighted_sandwich": lambda model, x, g: weighted_sandwich(model, 3, draws=20, generator=g),
    "quadrature": lambda model, x, g: quadrature(model, x),
    "evidence": lambda model, x, g: evidence(model, x, generator=g),
    "gap": lambda model, x, g: gap(model, x, draws=20, generator=g),
    "kl_parts": lambda model, x, g: kl_parts(model, x, draws=5, generator=g),
    "latent_usage": lambda model, x, g: latent_usage(model, x),
    "audit": lambda model, x, g: audit(model, Bits(3), passes=2, generator=g),
    "interval": lambda model, x, g: interval(model, x, draws=20, simulated=100, generator=g),
}


def numbers(found: object) -> Iterator[Tensor]:
    """All tensors and numbers of a result."""
    if isinstance(found, Tensor):
        yield found.detach().cpu().double()
    elif isinstance(found, float | int) and not isinstance(found, bool):
        yield torch.tensor(float(found), dtype=torch.float64)
    elif is_dataclass(found):
        for field in fields(found):
            if (
                field.name in ("value", "monte_carlo_error")
                if isinstance(found, LogDensity)
                else field.name != "seconds"
            ):
                yield from numbers(getattr(found, field.name))


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    def said(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = randomise(VAE.bernoulli(3, 1, hidden=(4,)).double(), seed("cpu")).to(device)
        x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64, device=device)
        return list(numbers(METHODS[name](model, x, seed(device))))

    with pretended():
        here, there = said("cpu"), said("cuda")
    assert here
    torch.testing.assert_close(there, here, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)


def test_a_density_that_overflows_on_the_way_is_refused_in_the_same_words() -> None:
    """There at the next look, which tells where it happened first of all places that are told."""

    def error(device: str) -> str:
        path = GeometricPath(
            lambda z: -0.5 * z.square().sum(-1), lambda z: torch.where(z > 1, torch.inf, -z.abs()).sum(-1), 7
        )
        z = torch.tensor([[[0.2], [0.1]], [[0.3], [2.0]]], dtype=torch.float64, device=device)

        def walk() -> None:
            path.at(z)
            path.at(z.flip(0) - 5)  # where all is well again
            path.look()

        with pytest.raises(ValueError, match="the model's densities overflow there") as found:
            walk()
        return str(found.value)

    with pretended():
        assert error("cuda") == error("cpu")
        assert "log p(x, z) is inf at point 8, chain 1, z = [2] (1 of 4 in its block)" in error("cpu")


def test_a_look_brings_numbers_and_forgets() -> None:
    with pretended():
        path = GeometricPath(lambda z: -z.square().sum(-1), lambda z: -z.square().sum(-1))
        path.at(torch.zeros(2, 3, 1, device="cuda"))
        assert path.look(torch.tensor(2.5, dtype=torch.float64, device="cuda")) == [2.5]
        assert path.look() == []


def two_latents() -> VAE:
    return randomise(VAE.gaussian(3, 2, hidden=(4,)).double(), seed("cpu"))


def mixture_of_two_scales() -> VAE:
    """Whose boxes are cut before anything is integrated, at the narrow component."""
    one = torch.ones(2, 1, dtype=torch.float64)
    prior = GaussianMixture.from_parameters(
        one[:, 0] / 2, one * torch.tensor([[0.0], [2.0]]), torch.tensor([[[1.0]], [[1e-4]]], dtype=torch.float64)
    )
    return randomise(VAE.gaussian(3, 1, hidden=(4,), prior=prior).double(), seed("cpu"), 0.01)


@pytest.mark.parametrize("make", [two_latents, mixture_of_two_scales])
def test_quadrature_claims_the_same(make: Callable[[], VAE]) -> None:
    def said(device: str) -> tuple[LogDensity, list[Tensor]]:
        torch.manual_seed(0)
        x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 4.0]], dtype=torch.float64, device=device)
        claim = quadrature(make().to(device), x, tolerance=1e-6, generator=seed(device))
        assert claim.numerical_error is not None
        return claim, [claim.value.cpu(), claim.numerical_error.cpu()]

    with pretended():
        (here, ours), (there, theirs) = said("cpu"), said("cuda")
    assert (there.kind, there.method) == (here.kind, here.method)
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=ROUNDING)


class Overflowing(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z > 1.9, torch.nan, z)


def normal() -> VAE:
    encoder = ConditionalGaussian(nn.Linear(1, 2), 1, 1)
    return VAE(StandardNormal(1), encoder, ConditionalGaussian(Overflowing(), 1, 1, FixedScale(0.1)))


def levels() -> VAE:
    encoder = CategoricalLevels(4).conditional(nn.Linear(1, 4), 1, 1)
    return VAE(Independent(1, CategoricalLevels(4)), encoder, ConditionalGaussian(Overflowing(), 1, 1, FixedScale(0.1)))


@pytest.mark.parametrize("make", [normal, levels])
@pytest.mark.parametrize("unseen", [1, 2**22])
def test_a_log_joint_that_is_no_number_is_located_in_the_same_words(
    make: Callable[[], VAE], unseen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There at the look at the end of a round, or where much was not looked at."""
    module = importlib.import_module("lvm.evidence.quadrature.integrand")
    monkeypatch.setattr(module, "UNSEEN", unseen)

    def error(device: str) -> str:
        torch.manual_seed(0)
        model = make().to(device)
        with pytest.raises(
            ValueError, match=r"of point 0 at z = \(.*\) is nan; the model's densities overflow"
        ) as found:
            quadrature(model, torch.zeros(3, 1, device=device), generator=seed(device))
        return str(found.value)

    with pretended():
        assert error("cuda") == error("cpu")
