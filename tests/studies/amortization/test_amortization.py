"""The parts of the gap where they are known, the verdicts on made-up numbers, and the study from its command line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from density.families.kl import kl
from density.saving import files
from significance import Verdict
from studies.amortization.measure import CAPACITIES, built, judge
from studies.amortization.report import asked, checks, claims, number, selected
from studies.amortization.settings import Key, Settings
from studies.data.binary_images import BinaryImages
from studies.kit.binary_vae import KIND
from studies.kit.rows import Rows
from studies.kit.run import main
from studies.kit.study import Study
from studies.kit.tables import Number, frame
from tests.studies.running import Refused

STUDY = "studies.amortization"
SMALL = Settings(
    latents=2, small=(4,), medium=(6,), large=(12, 12), flow_hidden=(4,), local_hidden=(4,), layers=2, points=8,
    local_steps=150, local_draws=8, draws=400, annealing_steps=30, dtype="float64",
)  # fmt: skip


@pytest.fixture
def data() -> BinaryImages:
    bits = np.random.default_rng(0).integers(0, 2, (28, 5), np.uint8)  # eight to test: all of them are asked for
    return BinaryImages("made up", "h", bits[:20], bits[20:])


def test_parts_of_the_gap_where_the_latent_means_nothing(data: BinaryImages, tmp_path: Path) -> None:
    """A decoder that ignores z: log p(x) is Bernoulli's, the posterior the prior, and all of the gap is amortisation.

    The encoder's KL to the prior is then the amortisation gap, and a local Gaussian closes it.
    """
    model = built("baseline", 5, SMALL).double()
    *_, last = (m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    odds = torch.tensor([-1.0, 0.5, 2.0, 0.0, -0.3], dtype=torch.float64)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(odds)
        *_, head = (m for m in model.encoder.modules() if isinstance(m, torch.nn.Linear))
        head.bias.copy_(torch.tensor([0.7, -0.4, -0.5, 0.3]))  # mean and log σ: away from the prior
    files.write(tmp_path / "w", KIND, dict(model.state_dict()))
    row = judge(SMALL, data, Key(data.name, data.hash, 0, "baseline", "test"), tmp_path / "w")
    x = torch.as_tensor(data.test).double()
    divergence = kl(model.encoder, model.prior, x)
    assert divergence is not None
    expected = divergence.mean().item()
    log_p = stats.bernoulli.logpmf(data.test, odds.sigmoid().numpy()).sum(1).mean()
    # Standard errors: of annealing 0.01; of 400 draws of log-weights that spread by about 1, for eight images, 0.02.
    assert float(str(row["log_p"])) == pytest.approx(log_p, abs=0.05)
    assert float(str(row["gap"])) == pytest.approx(expected, abs=0.1)
    assert float(str(row["amortisation"])) == pytest.approx(expected, abs=0.1)
    for family in ("gaussian", "flow"):
        assert float(str(row[f"approximation_{family}"])) == pytest.approx(0, abs=0.06)
    parts = float(str(row["approximation"])) + float(str(row["amortisation"]))
    assert float(str(row["gap"])) == pytest.approx(parts, abs=1e-9)
    assert row["log_p_kind"] == "lower bound"


def test_capacities_are_what_their_names_say() -> None:
    def size(name: str, part: str) -> int:
        model = built(name, 5, SMALL)  # type: ignore[arg-type]
        return sum(p.numel() for p in getattr(model, part).parameters())

    for part in ("encoder", "decoder"):
        other = "decoder" if part == "encoder" else "encoder"
        sizes = [size(name, part) for name in (f"small-{part}", "baseline", f"large-{part}")]
        assert sizes == sorted(set(sizes))
        assert size(f"small-{part}", other) == size(f"large-{part}", other) == size("baseline", other)
    assert size("flow-posterior", "decoder") == size("baseline", "decoder")
    assert size("flow-posterior", "encoder") > size("baseline", "encoder")
    assert [name for name, capacity in CAPACITIES.items() if capacity.flow] == ["flow-posterior"]


def made_up(seeds: int = 1, **changes: float) -> pd.DataFrame:
    """Rows in which every claim holds; changes as ``model__column=value``."""
    columns = {"log_p": -20.0, "elbo": -21.0, "gap": 1.0, "amortisation": 0.5, "approximation": 0.5}
    columns |= {"approximation_gaussian": 0.5, "approximation_flow": 0.3, "converged_gaussian": 1.0}
    columns |= {"converged_flow": 1.0}
    rows = []
    for seed in range(seeds):
        for model in CAPACITIES:
            for part in ("train", "test"):
                row: dict[str, object] = {"model": model, "part": part, "seed": seed, "data": "digits"}
                row |= columns | {f"{name}_error": 0.05 for name in columns}
                row["amortisation"] = {"small-encoder": 0.9, "large-encoder": 0.2}.get(model, 0.5)
                row["approximation"] = {"small-decoder": 0.9, "large-decoder": 0.2, "flow-posterior": 0.1}.get(
                    model, 0.5
                )
                row["gap"] = 0.6 if model == "flow-posterior" else 1.0
                chosen = {
                    k.split("__")[1]: v for k, v in changes.items() if k.split("__")[0] == model.replace("-", "_")
                }
                rows.append(row | chosen)
    return pd.DataFrame(rows)


def test_verdicts_follow_the_numbers() -> None:
    def verdict(rows: pd.DataFrame, words: str) -> Verdict:
        return {claim.words: claim.decision.of_all for claim in claims(rows)}[words]

    assert [claim.decision.verdict for claim in claims(made_up())] == [Verdict.FIRST] * 8
    equal = made_up(large_encoder__amortisation=0.85)
    assert verdict(equal, "test images: a larger encoder narrows the amortisation gap") is Verdict.OPEN
    worse = made_up(large_decoder__approximation=1.5)
    assert verdict(worse, "training images: a larger decoder narrows the approximation gap") is Verdict.SECOND
    assert "the opposite holds" in " ".join(map(str, claims(worse)))
    apart = made_up(seeds=2)  # two fits of each model prove nothing where their difference varies
    apart.loc[(apart["model"] == "large-encoder") & (apart["seed"] == 1), "amortisation"] = 0.6
    (claim,) = (each for each in claims(apart) if each.words.startswith("test images: a larger encoder"))
    assert (claim.decision.verdict, claim.decision.verdict_anew) == (Verdict.FIRST, Verdict.OPEN)
    assert "of these fits holds, of models trained anew not decided" in str(claim)
    every = made_up()
    assert len(claims(selected(Settings(models=("baseline", "small-encoder", "large-encoder")), every))) == 2
    assert len(claims(every[every["part"] == "test"])) == 4


def test_checks_catch_a_search_that_fails() -> None:
    assert not any(check.failed for check in checks(made_up()))
    for rows in (made_up(baseline__approximation_flow=100.0), made_up(baseline__amortisation=-1.0)):
        assert any(check.failed for check in checks(rows))


def test_errors_are_of_images_and_of_seeds() -> None:
    assert number(asked(made_up())["test", "baseline"], "gap") == Number(1.0, 0.05)
    rows = asked(made_up(seeds=3))["test", "baseline"]
    assert number(rows, "gap").error == pytest.approx(0.05)
    spread = rows.assign(gap=rows["gap"] + rows["seed"])  # fits that differ by more than their images do
    assert number(spread, "gap").error == pytest.approx(1 / math.sqrt(3))


def test_large_images_bring_their_own_sizes() -> None:
    chosen = Settings(data="mnist-binary", latents=10).quickened()
    assert chosen.latents == 10
    assert chosen.medium == (200, 200)
    assert Settings().quickened() == Settings()


def test_the_whole_study_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--models", "baseline", "flow-posterior", "--epochs", "1", "--points", "4"]
    arguments += ["--latents", "2", "--local-steps", "4", "--annealing-steps", "4", "--draws", "20", "--medium", "6"]
    arguments += ["--flow-hidden", "4", "--local-hidden", "3", "--layers", "2", "--output", str(tmp_path)]
    main(STUDY, arguments)
    folder = tmp_path / "amortization" / "digits-quick"
    rows = frame(Rows(folder / "rows.csv", Study(STUDY).key))
    assert rows["part"].value_counts().to_dict() == {"fit": 2, "train": 2, "test": 2}
    asked = rows[rows["part"] != "fit"]
    np.testing.assert_allclose(asked["gap"], asked["approximation"] + asked["amortisation"], atol=1e-4)
    own = asked["approximation_flow"].where(asked["model"] == "flow-posterior", asked["approximation_gaussian"])
    np.testing.assert_array_equal(asked["approximation"], own)
    for name in ("figure.png", "table.txt", "manifest.json"):
        assert (folder / name).exists()
    assert "flow posterior" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--data", "wine"], ["--points", "1"], ["--epochs", "0"], ["--small", "0"], ["--small"], ["--models"]]
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
