"""A file of models is run and asked; stored rows say what ``compare`` says of the claims; errors have file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bridge import Comparison, Verdict, compare
from density import Gaussian, save
from studies.data.load import load
from studies.judge.own_models import named
from studies.judge.report import checks, table
from studies.judge.settings import Settings, tasks
from studies.judge.stored import comparison
from studies.kit.claims import load_claim
from studies.kit.run import compute, parsed
from studies.kit.study import Study
from studies.kit.tables import frame
from studies.report.page import rendered
from tests.studies.running import Refused, run

STUDY = "studies.judge"
QUICK = ["--quick", "--data", "gaussian", "--dtype", "float64"]
MODELS = """
from functools import partial
import torch
from density import Bound, Gaussian, Measure
from lvm import PPCA

normal = torch.distributions.Normal(0.0, 1.0)

class Chain(Bound):  # z ~ N(0, 1), x ~ N(z, 1), q(z|x) = N(x/2, 1): nothing but log-weights
    features, measure = 4, Measure.LEBESGUE
    fit = sample = log_density = None

    def log_weights(self, x, draws, *, generator=None):
        z = x / 2 + torch.randn(draws, *x.shape, generator=generator, dtype=x.dtype)
        return (normal.log_prob(z) + normal.log_prob(x - z) - normal.log_prob(z - x / 2)).sum(-1)

def by_hand(train):
    model = Gaussian(train.shape[1])
    model.fit(train[torch.randperm(len(train))[:300]])  # by torch's own random state
    return model

def absent(features):
    import no_such_library

to_fit = {
    "PPCA": partial(PPCA, latent_features=2),
    "absent": absent,
}
fitted = {"chain": lambda train: Chain(), "by hand": by_hand, "twice": [by_hand, by_hand]}
"""


def written(folder: Path, text: str) -> str:
    path = folder / "models.py"
    path.write_text(text)
    return str(path)


def computed(arguments: list[str], output: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows and failures of a run that shows nothing."""
    study = Study(STUDY)
    outcome = compute(study, parsed(study, [*arguments, "--output", str(output)]), output / "rows")
    return frame(outcome.rows), outcome.failures


def words(rows: pd.DataFrame) -> str:
    return " ".join(
        part for block in rendered(table(rows)) for part in (block.text, *(cell for row in block.rows for cell in row))
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("judge")
    arguments = [written(folder, MODELS), *QUICK, "--seeds", "0", "1"]
    status, rows = run(STUDY, arguments, folder)
    assert status == 0
    settings = Settings(
        file=folder / "models.py", quick=True, data="gaussian", dtype="float64", seeds=(0, 1), output=folder
    )
    return settings.quickened(), rows


def agree(ours: Comparison, theirs: Comparison) -> None:
    for each in theirs.standings:
        (stored,) = (other for other in ours.standings if other.name == each.name)
        assert (stored.kind, stored.fits) == (each.kind, each.fits)
        for one, other in ((stored.fitted, each.fitted), (stored.anew, each.anew)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert (one.mean, one.error, one.freedom) == pytest.approx((other.mean, other.error, other.freedom))
    assert len(ours.pairs) == len(theirs.pairs)
    for pair in theirs.pairs:
        stored_pair = ours.pair(pair.first, pair.second)
        assert (stored_pair.verdict, stored_pair.verdict_anew) == (pair.verdict, pair.verdict_anew)
        assert (stored_pair.fitted is None, stored_pair.loose) == (pair.fitted is None, pair.loose)
        assert ours.settled_by(stored_pair) == theirs.settled_by(pair)
        for one, other in ((stored_pair.fitted, pair.fitted), (stored_pair.anew, pair.anew)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert (one.mean, one.error, one.freedom) == pytest.approx((other.mean, other.error, other.freedom))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_stored_rows_say_what_compare_says_of_the_claims(
    ran: tuple[Settings, pd.DataFrame], seeds: tuple[int, ...]
) -> None:
    """Of one seed, with a model that has two fits at the same points; of two seeds, at points of their own."""
    settings, rows = ran
    single = ("PPCA", "chain", "by hand", *(["twice"] if seeds == (0,) else []))
    paths: dict[str, list[Path]] = {name: [] for name in single}
    for task in tasks(settings):
        if not task.key.versus and task.key.model in paths and task.key.seed in seeds:
            paths[task.key.model] += task.makes
    claims = {name: [load_claim(path) for path in found] for name, found in paths.items()}
    kept = rows["seed"].isin(seeds) & rows["model"].isin(single) & (rows["versus"].isna() | rows["versus"].isin(single))
    agree(comparison(rows[kept]), compare(claims))


def test_a_model_whose_library_is_missing_sits_out_and_is_named(ran: tuple[Settings, pd.DataFrame]) -> None:
    _, rows = ran
    assert set(rows.loc[rows["missing"].notna(), "missing"]) == {"no_such_library"}
    assert "absent" not in {each.name for each in comparison(rows).standings}
    assert "Sat out: absent, which needs the package no_such_library" in words(rows)


def test_missing_values_go_to_the_models_that_take_them(tmp_path: Path) -> None:
    text = """
from lvm import PPCA, GaussianMixture
from flows import maf

def own(train):
    model = PPCA(train.shape[1], 1)
    model.observed.fit(train)
    return model

to_fit = {
    "PPCA": lambda features: PPCA(features, 1),
    "mixture": lambda features: GaussianMixture(features, 2),
    "flow": lambda features: maf(features, 1, (4,)),
}
fitted = {"own": own}
"""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 3)).cumsum(1)
    x[generator.random(x.shape) < 0.1] = np.nan
    pd.DataFrame(x, columns=list("abc")).to_csv(tmp_path / "holes.csv", index=False)
    arguments = [written(tmp_path, text), "--quick", "--data", str(tmp_path / "holes.csv"), "--dtype", "float64"]
    rows, failures = computed(arguments, tmp_path / "out")
    assert failures == ()
    found = comparison(rows)
    assert {each.name for each in found.standings} == {"PPCA", "mixture", "own"}
    assert found.pair("PPCA", "own").verdict is Verdict.EQUAL
    said = words(rows)
    assert "Sat out: flow, which takes no missing values." in said
    assert "Values are missing: log p(x) is that of those which a row has" in said


def test_a_fit_of_the_file_s_own_is_of_its_seed_and_not_of_what_was_fitted_before(
    ran: tuple[Settings, pd.DataFrame], tmp_path: Path
) -> None:
    _, rows = ran
    alone = MODELS.partition("to_fit =")[0] + "fitted = {'by hand': by_hand}"
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    again, _ = computed([written(tmp_path, alone), *QUICK], tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    (one,) = rows.loc[(rows["model"] == "by hand") & (rows["seed"] == 0) & rows["versus"].isna(), "value"]
    assert again["value"].tolist() == [one]


def test_claims_are_in_the_units_of_the_data_whoever_fitted(tmp_path: Path) -> None:
    """A full Gaussian follows its data through every affine map, so that both fits are one density."""
    x = np.random.default_rng(0).normal(size=(400, 3)) @ np.diag([1.0, 50.0, 0.02]) + [3.0, -900.0, 0.1]
    np.savetxt(tmp_path / "data.csv", x, delimiter=",")
    data = load(str(tmp_path / "data.csv"), seed=0)
    assert data.preprocessing.shift is not None
    raw = Gaussian(3)
    raw.fit(torch.as_tensor(data.train * data.preprocessing.scale + data.preprocessing.shift))
    save(raw, tmp_path / "raw.pt")
    text = f"""
from density import Gaussian, load
to_fit = {{"here": Gaussian}}
fitted = {{"before": load({str(tmp_path / "raw.pt")!r})}}
"""
    arguments = [written(tmp_path, text), "--data", str(tmp_path / "data.csv"), "--dtype", "float64", "--trust"]
    rows, _ = computed(arguments, tmp_path)
    here, before = rows.loc[rows["versus"].isna()].set_index("model")["value"][["here", "before"]]
    assert here == pytest.approx(before, abs=1e-9)
    assert abs(here) > 1


def test_what_is_said_to_be_exact_is_tried_and_measures_are_kept_apart(tmp_path: Path) -> None:
    text = """
import torch
from bridge import from_distribution, from_log_prob
from density import Measure
normal = torch.distributions.Normal(0.0, 1.0)
sample = lambda n: torch.randn(n, 4)
fitted = {
    "right": lambda train: from_log_prob(lambda x: normal.log_prob(x).sum(-1), 4, sample),
    "wrong": lambda train: from_log_prob(lambda x: normal.log_prob(x).sum(-1) + 0.3, 4, sample),
    "mass": lambda train: from_distribution(normal.expand([4]), 4, measure=Measure.COUNTING),
}
"""
    arguments = [written(tmp_path, text), "--data", "gaussian", "--train-rows", "50", "--test-rows", "50"]
    rows, _ = computed(arguments, tmp_path)
    tried = rows[rows["versus"].isna()].set_index("model")
    assert tried["tried"][["right", "wrong"]].tolist() == ["holds", "FAILS"]
    assert pd.isna(tried["tried"]["mass"])
    assert abs(tried["mass"]["wrong"] - np.exp(0.3)) < 5 * tried["mass_error"]["wrong"] + 1e-3
    (failed,) = (check.claim for check in checks(rows) if check.failed)
    assert failed.startswith("wrong: exact, as it says (mass 1.3")
    (pair,) = comparison(rows).pairs
    assert {pair.first, pair.second} == {"right", "wrong"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nto_fit = {", "models.py, line 2: SyntaxError: '{' was never closed"),
        ("x = 1\n\nx.nothing\n", "models.py, line 3: AttributeError: 'int' object has no attribute 'nothing'"),
        ("import no_such_library", "line 1: ModuleNotFoundError: No module named 'no_such_library'. Install no_such"),
        ("models = {}", "names no models. Define to_fit"),
        ("to_fit = [1]", "to_fit must be a dictionary of models by their names"),
        ("to_fit = fitted = {'a': print}", "'a' is in to_fit and in fitted"),
        ("fitted = {'a': []}", "'a' is an empty list"),
        ("import torch\nfitted = {'a': torch.nn.Linear(1, 1)}", "'a' of models.py is a model already"),
    ],
)
def test_an_error_of_the_file_is_one_line(refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(STUDY, [written(tmp_path, text), "--seeds", "0", "1"])


def test_no_file_is_one_line(refused: Refused) -> None:
    assert "no Python file 'nothing.py'" in refused(STUDY, ["nothing.py"])
    assert "no Python file 'README.md'" in refused(STUDY, ["README.md"])


def test_a_model_that_fails_is_named_with_its_line_and_the_others_go_on(tmp_path: Path) -> None:
    text = """
import torch
from density import Gaussian
def broken(train):
    return train @ torch.ones(99)
to_fit = {"sound": Gaussian, "narrow": lambda features: Gaussian(1), "linear": lambda d: torch.nn.Linear(d, 1)}
fitted = {"broken": broken}
"""
    path = written(tmp_path, text)
    rows, (narrow, linear, broken) = computed([path, *QUICK], tmp_path)
    assert set(rows["model"]) == {"sound"}
    assert broken.startswith(f"broken: {path}, line 5: RuntimeError")
    assert "'narrow' is a model of 1 features; the data has 4" in narrow
    assert (
        "'linear' is of Linear, which is no model that knows log p(x); an adapter of bridge makes one of it" in linear
    )


def test_a_file_that_changed_is_another_run(tmp_path: Path) -> None:
    digests = []
    for text in ("to_fit = {'a': print}", "to_fit = {'b': print}"):
        digests.append(Settings(file=Path(written(tmp_path, text))).digest)
    assert digests[0] != digests[1]
    assert Settings().options() == ""
    assert Settings(file=tmp_path / "models.py", trust=True).options() == f"{tmp_path / 'models.py'} --trust"


def test_the_example_names_six_models() -> None:
    models = named(Settings().file)
    assert len(models) == 6
    assert sum(model.to_fit for model in models.values()) == 5
