"""The models of `mnist` start alike, shares add up to the whole, claims are decided by numbers, and the study runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from density import constant, cosine
from density.saving import files
from lvm.vae.gradients import AnalyticKL, DoublyReparametrised
from studies.data.binary_images import BinaryImages
from studies.kit.binary_vae import KIND
from studies.kit.rows import Rows
from studies.kit.run import main
from studies.kit.study import Study, Task
from studies.kit.tables import frame
from studies.mnist.measure import LAST, compare, measure, plain, with_flows
from studies.mnist.report import BAR, MNIST, PUBLISHED, checks, standings
from studies.mnist.settings import Key, Settings
from tests.studies.running import Refused

STUDY = "studies.mnist"
SMALL = Settings(data="digits", latents=4, hidden=(8,), flow_hidden=(6,), layers=2, dtype="float64")
TINY = ["--quick", "--hidden", "8", "--latents", "3", "--start-epochs", "2", "--epochs", "1", "--draws", "30"]
TINY += ["--simulated", "5", "--annealing-steps", "5", "--annealing-chains", "4", "--share", "150"]


@pytest.mark.parametrize("name", LAST)
def test_flows_start_as_the_plain_vae(name: str) -> None:
    model = plain(64, SMALL).double()
    other = with_flows(name, model, SMALL).double()
    x = torch.randint(2, (5, 64), generator=torch.Generator().manual_seed(0)).double()
    z = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert other.decoder is model.decoder
    torch.testing.assert_close(other.prior.log_prob(z), model.prior.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.encoder.log_prob(z, x), model.encoder.log_prob(z, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["flow-posterior", "flow-prior", "flow-both"])
def test_flows_learn(name: str) -> None:
    """They are where the log-weight feels them: every parameter of a coupling's last layer gets a gradient."""
    model = with_flows(name, plain(64, SMALL).double(), SMALL).double()
    model.elbo(torch.ones(3, 64, dtype=torch.float64), generator=torch.Generator().manual_seed(0)).sum().backward()
    flows = [model.prior] * LAST[name].prior + [model.encoder] * LAST[name].posterior
    for flow in flows:
        assert any(p.grad is not None and bool(p.grad.any()) for n, p in flow.named_parameters() if "transform" in n)


def test_the_start_is_trained_at_a_constant_rate_and_each_model_from_it_by_its_own_estimator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = BinaryImages("digits", "h", np.ones((4, 64), np.uint8), np.ones((4, 64), np.uint8))
    start, fits = tmp_path / "start", []
    common = plain(64, SMALL).double().state_dict()
    files.write(start, KIND, common)
    monkeypatch.setattr("studies.mnist.measure.saved_fit", lambda *arguments: fits.append(arguments))
    measure(SMALL, Task(Key("digits", "h", 0, "start", "fit"), data, makes=(tmp_path / "new",)))
    measure(SMALL, Task(Key("digits", "h", 0, "iwae-5", "fit"), data, makes=(tmp_path / "iwae",), needs=(start,)))
    first, last = ((training.epochs, training.schedule, estimator) for _, _, _, training, estimator, *_ in fits)
    assert first == (80, constant, AnalyticKL())
    assert last == (60, cosine, DoublyReparametrised(5))
    assert all(torch.equal(tensor, common[name]) for name, tensor in fits[1][0].state_dict().items())


def test_a_comparison_is_paired(tmp_path: Path) -> None:
    level = np.random.default_rng(0).normal(-90, 25, 400)
    gain = np.random.default_rng(1).normal(1, 0.1, 400)
    np.savez(tmp_path / "a.npz", value=level + gain, elbo=level - 3)
    np.savez(tmp_path / "b.npz", value=level, elbo=level)
    row = compare(tmp_path / "a.npz", tmp_path / "b.npz")
    assert row["value"] == pytest.approx(gain.mean(), abs=1e-12)
    assert row["standard_error"] == pytest.approx(gain.std(ddof=1) / 20, rel=1e-9)
    assert row["elbo"] == pytest.approx(-3, abs=1e-12)
    assert row["gap"] == pytest.approx(gain.mean() + 3, abs=1e-12)
    assert row["gap_standard_error"] == pytest.approx(row["standard_error"], rel=1e-9)


def made_up(bound: float = -90.5, shares: int = 10, device: str = "cpu") -> pd.DataFrame:
    """Rows of a run on MNIST in which everything holds."""
    rows: list[dict[str, object]] = [{"model": "start", "part": "fit"}]
    for model, own, gap in (("vae", bound - 1, 4.0), ("iwae-5", bound, 6.0), ("flow-both", bound - 0.8, 3.0)):
        rows.append({"model": model, "part": "fit"})
        for share in range(1 if model == "flow-both" else shares):
            numbers = {"value": own, "standard_error": 0.8, "elbo": own - gap, "elbo_standard_error": 0.8}
            numbers |= {"gap": gap, "gap_standard_error": 0.05, "unreliable": 0.1, "draws": 5000, "test_rows": 1000}
            rows.append({"model": model, "part": "bound", "share": share, **numbers})
        widths = {"value": 0.3, "standard_error": 0.1, "annealed": 0.1, "annealed_standard_error": 0.1}
        rows.append({"model": model, "part": "sandwich", **widths})
        if model != "vae":
            wider = {"gap": gap - 4.0, "gap_standard_error": 0.05}
            numbers = {"value": own - bound + 1, "standard_error": 0.1, "test_rows": 1000, **wider}
            rows.append({"model": model, "part": "difference", **numbers})
    common: dict[str, Any] = {"seed": 0, "data": MNIST, "device": device, "cpu_seconds": 60.0}
    return pd.DataFrame(rows).assign(**common)


def test_shares_are_weighted_by_their_images() -> None:
    rows = made_up()
    bounds = (rows["model"] == "vae") & (rows["part"] == "bound")
    values = np.random.default_rng(0).normal(-90, 3, int(bounds.sum()))
    sizes = np.array([1000.0] * 9 + [500.0])
    rows.loc[bounds, "value"], rows.loc[bounds, "test_rows"] = values, sizes
    row = next(row for row in standings(rows) if row.model == "vae")
    assert row.bound.mean == pytest.approx(np.average(values, weights=sizes), rel=1e-12)
    # Of shares of equal size and error, the error of the mean is theirs / √10.
    assert standings(made_up())[0].bound.error == pytest.approx(0.8 / math.sqrt(10), rel=1e-12)
    assert row.images == 9500


def test_a_model_judged_on_a_share_borrows_the_other_images_from_the_vae() -> None:
    """Bound of the VAE over all images + paired difference, their errors independent."""
    row = next(row for row in standings(made_up()) if row.model == "flow-both")
    assert row.images == 1000
    assert row.whole.mean == pytest.approx(-91.5 + 0.2)
    assert row.whole.error == pytest.approx(math.hypot(0.8 / math.sqrt(10), 0.1))
    assert all(row.whole is row.bound for row in standings(made_up()) if row.images == 10_000)


def test_claims_are_decided_by_the_numbers() -> None:
    def failed(rows: pd.DataFrame) -> list[str]:
        return [check.claim for check in checks(rows) if not check.passed and "published" not in check.claim]

    assert failed(made_up()) == []
    assert any(f"at least {BAR}" in claim for claim in failed(made_up(bound=-91.1)))
    assert any(f"at least {BAR}" in claim for claim in failed(made_up(shares=9)))  # not the whole test set
    rows = made_up()
    rows.loc[(rows["model"] == "flow-both") & (rows["part"] == "difference"), "gap"] = -0.09
    assert any("gap below the VAE's" in claim for claim in failed(rows))
    rows = made_up()
    rows.loc[(rows["model"] == "iwae-5") & (rows["part"] == "difference"), "value"] = 0.1
    assert any("bound above the VAE's" in claim for claim in failed(rows))
    rows = made_up()
    rows.loc[rows["part"] == "sandwich", "annealed"] = -0.4
    assert any("upper bound not below the annealed one" in claim for claim in failed(rows))


def test_a_gpu_run_is_held_to_the_published_numbers() -> None:
    far = checks(made_up(device="cuda"))
    assert [check.claim for check in far if not check.passed and "published" in check.claim]
    near = checks(made_up(bound=PUBLISHED["iwae-5"] - 0.2, device="cuda"))
    assert all(check.passed for check in near if "published" in check.claim and "IWAE" in check.claim)


def test_the_full_preset_changes_what_was_not_chosen() -> None:
    full = Settings(preset="full", batch_size=250).quickened()
    assert full.device == "cuda"
    assert full.batch_size == 250
    assert "iwae-50" in full.models
    assert full.start_epochs > Settings().start_epochs
    assert Settings().quickened() == Settings()
    assert Settings(preset="full", quick=True).quickened().start_epochs == Settings(quick=True).quickened().start_epochs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    main(STUDY, [*TINY, "--models", "vae", "iwae-5", "flow-both", "--output", str(folder)])
    return folder


def test_the_whole_study_runs_and_goes_on_from_its_rows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = results / "mnist" / "digits-quick"
    rows = frame(Rows(folder / "rows.csv", Study(STUDY).key))
    assert rows["part"].value_counts().to_dict() == {"fit": 4, "bound": 7, "sandwich": 3, "difference": 2}
    fits = rows[rows["part"] == "fit"].set_index("model")
    assert fits["epochs"].to_dict() == {"start": 2, "vae": 1, "iwae-5": 1, "flow-both": 1}
    for name in ("figure.png", "table.txt", "manifest.json"):
        assert (folder / name).exists()
    bounds = rows[(rows["part"] == "bound") & (rows["model"] == "iwae-5")]
    assert bounds["test_rows"].tolist() == [150, 150, 59]
    assert bounds["kind"].eq("lower bound").all()
    files = sorted((folder / "points").glob("iwae-5-*.npz"))
    values = np.concatenate([np.load(path)["value"] for path in files])
    found = next(row for row in standings(rows) if row.model == "iwae-5")
    assert found.bound.mean == pytest.approx(values.mean(), rel=1e-12)
    # The shares are strata of the whole: their error is at most that of one sample of 359, and not much less.
    assert found.bound.error == pytest.approx(values.std(ddof=1) / math.sqrt(359), rel=0.05)

    before = (folder / "rows.csv").read_bytes()
    (folder / "points" / "iwae-5-0-1-nonsense.npz").write_bytes(b"")
    main(STUDY, [*TINY, "--models", "vae", "iwae-5", "flow-both", "--output", str(results)])
    assert (folder / "rows.csv").read_bytes() == before
    main(STUDY, [*TINY, "--models", "vae", "--replot", "--output", str(results)])
    assert "IWAE" not in capsys.readouterr().out.splitlines()[-3]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "wine"],
        ["--models", "vae", "vae"],
        ["--whole", "vae", "vae"],
        ["--draws", "1"],
        ["--epochs", "0"],
        ["--hidden", "0"],
        ["--hidden"],
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
