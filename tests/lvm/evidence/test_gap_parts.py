"""The gap taken apart: linear VAEs, where both parts are known, and a nonlinear one with a posterior of two modes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    Categorical,
    ConditionalGaussian,
    DiagonalGaussian,
    FixedScale,
    Gaussian,
    Kind,
    LogDensity,
    StandardNormal,
)
from flows import linear_flow, real_nvp
from lvm import VAE, GaussianMixture, LinearVAE
from lvm.evidence import LocalFit, gap, kl_parts, latent_usage, local_elbo
from tests.equivalence.examples import randomise

QUIET = LocalFit(progress=False)


def random_linear_vae(generator: Generator, d: int = 6, q: int = 3) -> tuple[LinearVAE, Tensor]:
    model = LinearVAE(d, q).double()
    randomise(model, generator, 0.7)
    model.set_optimal_encoder()
    return model, model.sample(40, generator=generator).detach()


def test_linear_vae_with_the_best_encoder(generator: Generator) -> None:
    """Amortisation gap 0, approximation gap ½(Σ log M_ii − log det M), at every point."""
    model, x = random_linear_vae(generator)
    report = gap(model, x, draws=4_000, local=QUIET, generator=generator)
    assert report.parts is not None
    expected = float(model.closed_form_gap().detach())
    assert expected > 0.05
    for claim, truth in (
        (report.difference, expected),
        (report.parts.approximation, expected),
        (report.parts.amortisation, 0.0),
    ):
        assert claim.kind is Kind.EXACT
        # The optimiser stops within tolerance², far below the draws' error; 40 points: |z| > 5 has probability 2e-5.
        assert claim.monte_carlo_error is not None
        assert ((claim.value - truth).abs() < 5 * claim.monte_carlo_error + 2e-3).all()
    assert report.parts.amortisation.mean == pytest.approx(
        0, abs=5 * report.parts.amortisation.mean_monte_carlo_error + 1e-3
    )


def test_a_claim_about_other_points_is_refused(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    known = model.log_density(x)
    report = gap(model, x, draws=10, log_density=known, local=LocalFit(steps=2, draws=1, progress=False))
    assert report.log_density is known
    assert report.parts is not None
    assert report.elbo.points == report.parts.local_elbo.points == known.points
    with pytest.raises(ValueError, match="log-densities are compared at the same points; got a claim about 40 rows"):
        gap(model, x.flip(0), draws=10, log_density=known)
    by_hand = LogDensity(known.value, Kind.EXACT, "by hand")
    assert gap(model, x.flip(0), draws=10, log_density=by_hand).log_density is by_hand


def test_full_covariance_closes_the_gap(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    best = local_elbo(model, x, LocalFit(Gaussian(3), progress=False), generator=generator)
    assert best.converged.all()
    assert (model.log_prob(x).detach() - best.value).abs().max() < 1e-6


def test_a_worse_encoder_shows_as_amortisation_gap(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    with torch.no_grad():
        model.encoder.bias += 0.5
        model.encoder.log_std += 0.3
    expected_total = (model.log_prob(x) - model.elbo_closed_form(x)).detach()
    approximation = float(model.closed_form_gap().detach())
    report = gap(model, x, draws=4_000, local=QUIET, generator=generator)
    assert report.parts is not None
    assert report.parts.amortisation.value.min() > 0.05
    amortisation = expected_total - approximation
    error = report.parts.amortisation.monte_carlo_error
    assert error is not None
    assert ((report.parts.amortisation.value - amortisation).abs() < 5 * error + 2e-3).all()


def test_a_flow_is_a_family(generator: Generator) -> None:
    """Any reparametrised density: a flow's local ELBO is at least a diagonal Gaussian's."""
    model, _ = random_linear_vae(generator, q=2)
    with torch.no_grad():
        model.decoder.weight[:, 1] = model.decoder.weight[:, 0] + 0.3 * model.decoder.weight[:, 1]  # nearly parallel
    x = model.sample(6, generator=generator).detach()
    assert model.closed_form_gap() > 0.3
    flow = local_elbo(
        model, x, LocalFit(real_nvp(2, layers=2, hidden=(8,)), steps=300, progress=False), generator=generator
    )
    gaussian = local_elbo(model, x, LocalFit(DiagonalGaussian(2), progress=False), generator=generator)
    log_p = model.log_prob(x).detach()
    assert ((flow.value - gaussian.value) > -5 * torch.hypot(flow.error, gaussian.error)).all()
    assert (log_p - flow.value).mean() < 0.5 * (log_p - gaussian.value).mean()


class FoldedDecoder(nn.Module):
    """z ↦ (z², z²): the posterior has two modes, and no Gaussian covers them."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square().repeat(1, 2) if z.ndim == 2 else torch.cat([z.square(), z.square()], -1)


def folded_vae(generator: Generator) -> tuple[VAE, Tensor]:
    from density import ConditionalGaussian, FixedScale, NetworkScale

    encoder = ConditionalGaussian(nn.Linear(2, 2), 1, 2, NetworkScale())
    model = VAE(StandardNormal(1), encoder, ConditionalGaussian(FoldedDecoder(), 2, 1, FixedScale(0.3))).double()
    return model, torch.tensor([[1.0, 1.2], [2.0, 1.9], [0.8, 1.0]], dtype=torch.float64)


def test_known_log_density_and_two_modes(generator: Generator) -> None:
    """Half the posterior is out of any Gaussian's reach, which costs log 2; log p(x) comes from a trapezoid rule."""
    model, x = folded_vae(generator)
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64).unsqueeze(-1)
    log_joint = model.log_joint(x, grid.unsqueeze(1)).detach()
    exact = LogDensity(log_joint.logsumexp(0) + math.log(18 / 20_000), Kind.EXACT, "trapezoid rule")
    report = gap(model, x, draws=4_000, log_density=exact, local=QUIET, generator=generator)
    assert report.parts is not None
    assert report.difference.kind is Kind.EXACT
    torch.testing.assert_close(
        report.parts.approximation.value, torch.full((3,), math.log(2)).double(), atol=0.1, rtol=0
    )
    assert (report.difference.value > report.parts.approximation.value - 0.01).all()
    total = report.parts.approximation.value + report.parts.amortisation.value
    torch.testing.assert_close(total, report.difference.value, atol=1e-9, rtol=0)


def test_kinds(generator: Generator) -> None:
    model, x = folded_vae(generator)
    lower = gap(model, x, draws=200, local=QUIET, generator=generator)
    assert lower.log_density.kind is Kind.LOWER
    assert lower.difference.kind is Kind.LOWER
    assert lower.parts is not None
    assert lower.parts.approximation.kind is Kind.LOWER
    hasty = LocalFit(steps=2, learning_rate=1.0, tolerance=1e-9, progress=False)
    unfinished = gap(model, x, draws=200, local=hasty, generator=generator).parts
    assert unfinished is not None
    assert not unfinished.converged.all()
    assert unfinished.approximation.kind is Kind.ESTIMATE
    assert unfinished.amortisation.kind is Kind.LOWER
    linear, y = random_linear_vae(generator)
    exact = gap(linear, y, draws=200, local=hasty, generator=generator).parts
    assert exact is not None
    assert exact.approximation.kind is Kind.UPPER


def test_report_prints_and_gives_rows(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    report = gap(model, x, draws=100, local=LocalFit(steps=20, progress=False), generator=generator)
    names = [row["quantity"] for row in report.rows()]
    assert names == ["log p(x)", "ELBO, best local q", "ELBO", "approximation gap", "amortisation gap", "gap"]
    assert all(str(name) in repr(report) for name in names)
    assert "converged at" in repr(report)


def test_the_model_is_left_as_it_was(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    family = DiagonalGaussian(3).double()
    before = [p.detach().clone() for p in (*model.parameters(), *family.parameters())]
    local_elbo(model, x, LocalFit(family, steps=5, progress=False), draws=10, generator=generator)
    after = [*model.parameters(), *family.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.requires_grad and p.grad is None for p in after)


def test_bad_input(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    with pytest.raises(ValueError, match="over the 3 latent features; got Gaussian over 2"):
        local_elbo(model, x, LocalFit(Gaussian(2)))
    with pytest.raises(ValueError, match="is discrete"):
        local_elbo(GaussianMixture(6, 2).double(), x)
    with pytest.raises(TypeError, match="log_joint"):
        local_elbo(linear_flow(6).double(), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"continuous density with parameters to fit; got Categorical"):
        local_elbo(model, x, LocalFit(Categorical(3)))
    with pytest.raises(ValueError, match=r"continuous density with parameters to fit; got StandardNormal"):
        local_elbo(model, x, LocalFit(StandardNormal(3)))
    for about_the_encoder in (kl_parts, latent_usage):
        with pytest.raises(TypeError, match="needs a LatentVariableModel, with an encoder; got Flow"):
            about_the_encoder(linear_flow(6).double(), x)
    with pytest.raises(ValueError, match="steps must be a positive int"):
        LocalFit(steps=0)
    with pytest.raises(ValueError, match="same 40 points"):
        gap(model, x, log_density=LogDensity(torch.zeros(3), Kind.EXACT, "?"))


def test_kl_parts_add_up_and_know_the_extremes(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    parts = kl_parts(model, x, draws=200, generator=generator)
    total = model.elbo_terms(x, draws=2, generator=generator).kl.detach().mean()
    assert parts.mutual_information.mean + parts.marginal.mean == pytest.approx(parts.total.mean, abs=1e-10)
    assert parts.total.mean == pytest.approx(float(total), abs=5 * parts.total.mean_monte_carlo_error)
    assert 0 < parts.mutual_information.mean < math.log(40)
    with torch.no_grad():
        model.encoder.log_std -= 12  # points can be told apart for certain
    assert kl_parts(model, x, generator=generator).mutual_information.mean == pytest.approx(math.log(40), abs=1e-6)
    with torch.no_grad():
        model.encoder.weight.zero_()
        model.encoder.bias.zero_()
        model.encoder.log_std.zero_()  # collapse: q is the prior
    collapsed = kl_parts(model, x, generator=generator)
    assert max(abs(c.mean) for c in (collapsed.total, collapsed.mutual_information, collapsed.marginal)) < 1e-12


def test_mutual_information_in_closed_form(generator: Generator) -> None:
    """With x Gaussian and q linear, I(x; z) = ½ log det(V S Vᵀ + D) / det D as n grows."""
    model = LinearVAE(2, 1).double()
    with torch.no_grad():
        model.encoder.weight.copy_(torch.tensor([[0.8, 0.0]]))
        model.encoder.log_std.fill_(math.log(0.6))
    x = torch.randn(3_000, 2, generator=generator, dtype=torch.float64)
    measured = kl_parts(model, x, draws=2, generator=generator).mutual_information
    expected = 0.5 * math.log((0.8**2 + 0.6**2) / 0.6**2)
    assert measured.mean == pytest.approx(expected, abs=5 * measured.standard_error)


def test_latent_usage(generator: Generator) -> None:
    model, x = random_linear_vae(generator, q=3)
    with torch.no_grad():
        model.encoder.weight[2] = 0
        model.encoder.bias[2] = 0
        model.encoder.log_std[2] = 0
    usage = latent_usage(model, x)
    assert usage.active.tolist() == [True, True, False]
    assert usage.activity[2] == 0
    assert usage.kl[2] == pytest.approx(0, abs=1e-12)
    mean = model.encode(x).detach()
    torch.testing.assert_close(usage.activity, mean.var(0))
    terms = model.elbo_terms(x, generator=generator).kl.detach()
    torch.testing.assert_close(usage.kl.sum(), terms.mean())
    assert [row["dimension"] for row in usage.rows()] == [0, 1, 2]
    with pytest.raises(TypeError, match="kl_parts works for any"):
        latent_usage(GaussianMixture(6, 2).double(), x)
    with pytest.raises(ValueError, match="one point"):
        latent_usage(model, x[:1])


@pytest.mark.slow
def test_stated_error_of_the_activity(generator: Generator) -> None:
    """√((m₄ − m₂²)/n) against the spread over data sets."""
    model, _ = random_linear_vae(generator)
    results = [latent_usage(model, model.sample(300, generator=generator).detach()) for _ in range(300)]
    stated = torch.stack([u.activity_error for u in results]).square().mean(0).sqrt()
    spread = torch.stack([u.activity for u in results]).std(0)
    torch.testing.assert_close(stated, spread, rtol=0.15, atol=0)


def test_the_family_is_left_as_it_was(generator: Generator) -> None:
    model, x = random_linear_vae(generator)
    family = Gaussian(3)  # float32, where the model is float64
    local_elbo(model, x, LocalFit(family, steps=4, draws=2, progress=False), draws=10, generator=generator)
    assert family.mean.dtype == torch.float32


@pytest.mark.parametrize("draws", [2, 5, 1000])
def test_noise_is_not_convergence(draws: int, generator: Generator) -> None:
    """After 5 steps q is 1e5 nats from its best; few draws cannot tell, and that must not count as converged."""
    network = nn.Linear(3, 4)
    encoder = ConditionalGaussian(network, 2, 3)
    model = VAE(StandardNormal(2), encoder, ConditionalGaussian(nn.Linear(2, 3), 3, 2, FixedScale(1e-3))).double()
    x = model.sample(20, generator=generator).detach()
    fit = LocalFit(steps=5, draws=2, progress=False)
    assert not local_elbo(model, x, fit, draws=draws, generator=generator).converged.any()
