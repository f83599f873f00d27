"""The decomposition's pieces: its grid integrates, and its best Gaussian is the one that sampling finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from density import ConditionalGaussian, NetworkScale, PerFeatureScale, StandardNormal, mlp
from lvm import VAE
from lvm.evidence import LocalFit, local_elbo
from lvm.evidence.quadrature.adaptive import quadrature
from studies.decomposition.plane import best_gaussian, gaussian_elbo, grid, log_joint_at
from tests.studies.running import Refused, run

STUDY = "studies.decomposition"


@pytest.fixture
def vae() -> VAE:
    """A small nonlinear VAE with random weights, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(
            StandardNormal(2),
            ConditionalGaussian(mlp(5, 4, (16,)), 2, 5, NetworkScale()),
            ConditionalGaussian(mlp(2, 5, (16,), torch.nn.Tanh), 5, 2, PerFeatureScale(5, 0.5)),
        ).double()


def test_the_grid_sums_to_the_evidence(vae: VAE, generator: torch.Generator) -> None:
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    nodes, cell = grid(200, x)
    with torch.no_grad():
        summed = (log_joint_at(vae, x, nodes) + torch.tensor(cell).log()).logsumexp(1)
    # the prior beyond ± 5 holds 1e-6 of its mass, and the midpoints of smooth peaks 0.05 apart sum exactly
    torch.testing.assert_close(summed, quadrature(vae, x, tolerance=1e-8).value, rtol=0, atol=1e-4)


def test_the_log_joint_by_matrix_product_is_the_models_own(vae: VAE, generator: torch.Generator) -> None:
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    z = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    expected = vae.log_joint(x, z.unsqueeze(1).expand(7, 6, 2)).T
    torch.testing.assert_close(log_joint_at(vae, x, z), expected, rtol=0, atol=1e-11)


def test_the_best_gaussian_is_the_local_posterior_found_by_sampling(vae: VAE, generator: torch.Generator) -> None:
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        mean, scale = vae.encoder.at(x)
    start = mean, torch.diag_embed(scale.color(torch.ones_like(mean)))
    best = {w: gaussian_elbo(vae, x, *best_gaussian(vae, x, *start, independent=w)).detach() for w in (True, False)}
    sampled = local_elbo(vae, x, LocalFit(progress=False), draws=2000, generator=generator)
    assert (best[True] - sampled.value >= -5 * sampled.error).all()  # Adam with noise stops a little below
    assert (best[True] - sampled.value <= 0.02 + 5 * sampled.error).all()
    assert (best[False] >= best[True] - 1e-6).all()
    assert (best[False] <= quadrature(vae, x, tolerance=1e-6).value + 1e-4).all()


def test_the_study_runs_and_replots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--data", "wine", "--epochs", "2", "--hidden", "8", "--points", "4", "--draws", "20"]
    arguments += ["--grid", "120"]
    _, rows = run(STUDY, arguments, tmp_path)
    assert "passed: PPCA: log p = ELBO + KL" in capsys.readouterr().out
    parts = {part: of.set_index("index").sort_index() for part, of in rows.groupby("part")}
    assert parts["PPCA"]["t"].tolist() == parts["VAE"]["t"].tolist() == pytest.approx([n / 10 for n in range(11)])
    assert parts["gaussians"]["label"].tolist() == ["encoder", "best independent", "best Gaussian"]
    learnt = parts["learning"].set_index("label")
    assert learnt.index.tolist() == ["ELBO", "IWAE, 16 draws", "exact likelihood"]
    assert learnt["gain"].tolist() == pytest.approx((learnt["log_p"] - learnt["log_p"]["ELBO"]).tolist(), abs=1e-9)
    run(STUDY, [*arguments, "--replot"], tmp_path)
    assert "One decoder, three objectives" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training-grid", "0"], "--training-grid must be positive"),
        (["--steps", "1"], "--steps must be at least 2"),
        (["--hidden", "0"], "--hidden expects positive widths"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
