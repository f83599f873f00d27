"""`diffusion`: what its rows are, what is compared and what refused, what its checks see; and that it runs."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from density import Kind, LogDensity
from significance import Verdict
from studies.data import images
from studies.data.ring import ring_log_density
from studies.diffusion.line import line, line_log_density
from studies.diffusion.measure import compare
from studies.diffusion.models import matched_width
from studies.diffusion.report import answer, checks, table
from studies.diffusion.settings import Settings, points, readings, tasks
from studies.diffusion.standings import pairs
from studies.kit.claims import save_claim
from tests.studies.data.test_directory import idx
from tests.studies.running import Refused, run

STUDY = "studies.diffusion"
TINY = [
    "--quick",
    "--fit-steps",
    "60",
    "--likelihood-steps",
    "1",
    "--points",
    "40",
    "--images",
    "6",
    "--toy-rows",
    "200",
]
TINY += ["--hidden", "6", "--image-hidden", "6", "--chain", "1", "3", "--draws", "4", "--repeats", "2", "--tolerances"]
TINY += ["1e-2", "--layers", "2", "--latents", "2", "--most-on-planes", "1", "--annealed", "2", "--temperatures", "2"]


def test_the_line_has_its_entropy_in_the_mean() -> None:
    data = line(100, 40_000, 0)
    surprise = -line_log_density(data.test)
    assert data.best is not None
    assert abs(surprise.mean() + data.best) < 4 * surprise.std() / math.sqrt(len(surprise))


def test_the_width_is_the_one_of_the_nearest_size() -> None:
    def make(width: int) -> nn.Module:
        return nn.Linear(width, width)

    found = matched_width(make, 1000)
    assert found == min(range(1, 60), key=lambda width: abs(width * (width + 1) - 1000))


def test_differences_are_of_what_is_known_and_the_column_has_elbos(tmp_path: Path) -> None:
    torch.manual_seed(0)
    value, elbo, other = torch.randn(3, 50, dtype=torch.float64)
    save_claim(
        tmp_path / "chain", LogDensity(value, Kind.EXACT, "grid", numerical_error=torch.full_like(value, 1e-3)), elbo
    )
    save_claim(tmp_path / "ode", LogDensity(other, Kind.EXACT, "change of variables"))
    save_claim(tmp_path / "bound", LogDensity(elbo, Kind.LOWER, "ELBO"), elbo)
    row = compare(tmp_path / "ode", tmp_path / "chain")
    assert row["value"] == pytest.approx((other - value).mean().item())
    assert row["spread"] == pytest.approx((other - value).std().item())
    assert row["naive"] == pytest.approx((other - elbo).mean().item())
    assert (row["kind"], row["numerical_error"]) == ("exact", pytest.approx(1e-3))
    assert compare(tmp_path / "ode", tmp_path / "bound")["kind"] == "upper bound"
    refused = compare(tmp_path / "bound", tmp_path / "bound")
    assert "value" not in refused
    assert "two lower bounds" in str(refused["refused"])


def test_presets_change_what_was_not_chosen() -> None:
    gpu = Settings(preset="gpu", batch_size=50).quickened()
    assert (gpu.device, gpu.batch_size, gpu.sets, gpu.image_hidden) == ("cuda", 50, ("mnist",), (1024,) * 3)
    assert Settings().quickened() == Settings()


def test_the_chain_that_is_compared_is_the_longest_that_is_known() -> None:
    settings = Settings(toy_rows=100, points=10)
    for name, known in (("line", 1000), ("ring", 30), ("digits", 100)):
        data = points(settings, name, 0)
        assert settings.longest_known(data) == known
        assert ("probes" in dict(readings(settings, data))) is (data.features > 1)
    line_alone = [task.key for task in tasks(Settings(sets=("line",), toy_rows=100, points=10)) if task.key.versus]
    assert [(key.model, key.versus) for key in line_alone][:2] == [("limit", "chain"), ("ode", "chain")]
    assert len(line_alone) == 28


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    _, found = run(STUDY, TINY, tmp_path_factory.mktemp("diffusion"))
    return found


def test_the_whole_study_runs(rows: pd.DataFrame) -> None:
    alone = rows[rows["versus"].isna()].set_index(["model", "number"])
    assert list(alone.loc["chain"]["kind"]) == ["exact", "lower bound"]
    chain = alone.loc["chain"].loc[1]
    assert chain["elbo"] == pytest.approx(chain["reconstruction"] - chain["diffusion"] - chain["prior"], abs=1e-9)
    assert chain["gap"] == pytest.approx(chain["value"] - chain["elbo"], abs=1e-9)
    with np.load(chain["points"]) as arrays:
        assert chain["value"] == pytest.approx(arrays["value"].mean(), rel=1e-12)
        assert len(arrays["elbo"]) == 40
    truth = ring_log_density(points(Settings(toy_rows=200, points=40), "ring", 0).test).mean()
    assert chain["below"] == pytest.approx(truth - chain["value"], abs=1e-6)  # points are of float32
    both = rows[rows["versus"].notna()].set_index(["model", "versus"])
    assert len(both) == 36
    ode = alone.loc["ode"].loc[0]
    assert both.loc[("ode", "chain"), "value"] == pytest.approx(ode["value"] - chain["value"], abs=1e-9)
    simple = alone.loc["simple"].loc[0]
    assert simple["kind"] == "exact"
    assert both.loc[("simple", "chain"), "naive"] == pytest.approx(simple["elbo"] - chain["elbo"], abs=1e-9)
    assert alone.loc["hierarchy"].loc[0]["kind"] == "lower bound"
    assert table(rows).renderables


@pytest.mark.slow
def test_images_and_the_line_run(tmp_path: Path) -> None:
    _, rows = run(STUDY, [*TINY, "--sets", "digits", "line"], tmp_path)
    alone = rows[rows["versus"].isna()].set_index(["data", "model", "number"]).sort_index()
    assert (alone.loc[("line", "chain"), "kind"] == "exact").all()
    digits = alone.loc["digits"]
    assert (digits.loc["chain", "kind"] == "lower bound").all()
    assert digits.loc["annealed"].loc[0]["kind"] == "lower bound"
    assert digits.loc["annealed"].loc[0]["steps"] == 2
    assert digits["below"].isna().all()
    both = rows[rows["versus"].notna() & (rows["data"] == "digits")].set_index(["model", "versus"])
    assert both.loc[("ode", "chain"), "kind"] == "upper bound"
    assert "two lower bounds" in both.loc[("vae", "chain"), "refused"]
    words = answer(rows)
    assert "digits: the ODE less the chain of 3 steps of the same network, ≤ " in words
    assert "A VAE of equal size less the chain" in words.partition("line: ")[2]
    assert "A VAE of equal size less the chain" not in words.partition("line: ")[0]


@pytest.mark.slow
def test_images_of_the_size_of_mnist_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in files such as MNIST's; small networks and few steps, on the CPU."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    labels = np.arange(300, dtype=np.uint8) % 10
    parts = idx(pixels[:250], labels[:250], pixels[250:], labels[250:])
    monkeypatch.setattr(images, "MNIST", tuple(hashlib.sha256(part).hexdigest() for part in parts))
    for name, part in zip(images.PARTS, parts, strict=True):
        (tmp_path / f"{name}-ubyte").write_bytes(part)
    small = ["--sets", "mnist", "--data-directory", str(tmp_path), "--images", "4"]
    _, rows = run(STUDY, [*TINY, *small, "--image-tolerance", "1e-2"], tmp_path)
    alone = rows[rows["versus"].isna()].set_index("model")
    assert (alone["features"] == 784).all()
    assert np.isfinite(alone["value"]).all()
    assert set(alone.index) == {"chain", "limit", "ode", "probes", "simple", "coupling", "vae", "hierarchy", "annealed"}


def test_checks_see_what_is_wrong(rows: pd.DataFrame) -> None:
    def failed(change: str, value: float | str, where: pd.Series) -> list[str]:
        spoilt = good.copy()
        spoilt.loc[where, change] = value
        return [check.claim for check in checks(spoilt) if check.passed is False and check.claim not in before]

    good = rows.assign(stated_rms=rows["off_rms"])
    before = {check.claim for check in checks(good) if check.passed is False}
    on_ring = (rows["data"] == "ring") & rows["versus"].isna()
    assert "no ELBO is above" in failed("gap", -1.0, on_ring & (rows["model"] == "vae"))[0]
    assert "few steps make" in failed("gap", 0.0, on_ring & (rows["model"] == "chain"))[0]
    assert "covers 99 points" in failed("covered", 0.9, on_ring & (rows["model"] == "ode") & (rows["number"] > 0))[0]
    assert "solved to its tolerance" in failed("kind", "estimate", on_ring & (rows["model"] == "ode"))[0]
    assert "grids give" in failed("kind", "estimate", on_ring & (rows["model"] == "chain"))[0]
    probes = rows["model"] == "probes"
    assert "as noisy as they state" in failed("stated_rms", 1e3, probes)[0]


def test_seeds_are_decided_together(rows: pd.DataFrame) -> None:
    mine = (rows["data"] == "ring") & rows["versus"].notna()
    again = rows[mine].assign(seed=1)
    both = pd.concat([rows[mine], again], ignore_index=True)
    both["value"] = np.where(both["model"] == "ode", 1.0 + 0.001 * both["seed"], both["value"])
    pair = pairs(both, "ring")["ode", "chain"]
    assert pair.decision is not None
    assert pair.decision.fitted.mean == pytest.approx(1.0005)
    assert isinstance(pair.decision.verdict_anew, Verdict)


@pytest.mark.parametrize(
    "arguments",
    [["--data", "digits"], ["--sets", "line", "line"], ["--ends", "1", "0"], ["--tolerances", "2"], ["--chain", "0"]],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
