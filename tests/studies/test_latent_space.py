"""What projections keep is measured as its definitions say; the study runs on data without classes, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.manifold import trustworthiness as reference
from sklearn.neighbors import KNeighborsClassifier

from studies import latent_space
from studies.latent_space_models import trustworthiness, voted


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_trustworthiness_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    data = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    embedded = data[:, :2] + 0.3 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    for k in (1, 5, 20):
        ours = trustworthiness(data, embedded, k).mean().item()
        assert ours == pytest.approx(reference(data.numpy(), embedded.numpy(), n_neighbors=k), abs=1e-12)
    assert trustworthiness(data, data, 5).min() == 1


def test_votes_are_those_of_scikit_learn(generator: torch.Generator) -> None:
    train, test = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (80, 40))
    labels = torch.randint(10, 14, (80,), generator=generator)
    theirs = KNeighborsClassifier(7).fit(train.numpy(), labels.numpy()).predict(test.numpy())
    assert voted(train, labels, test, 7).tolist() == theirs.tolist()


def test_the_study_runs_on_a_csv_without_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).standard_normal((120, 4)) @ np.diag([3, 1, 1, 1])
    pd.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "mine.csv", index=False)
    arguments = ["--quick", "--data", str(tmp_path / "mine.csv"), "--epochs", "1", "--flow-layers", "2"]
    arguments += ["--dimensions", "1", "2", "--output", str(tmp_path / "results")]
    assert latent_space.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "no labels" in printed
    assert "FAILED" not in printed
    assert list((tmp_path / "results").rglob("figure.png"))
    assert latent_space.main([*arguments, "--replot"]) == 0


def test_as_many_dimensions_as_columns_is_one_clear_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert latent_space.main(["--dimensions", "64", "--output", str(tmp_path)]) == 2
    assert "has 64 columns; choose fewer --dimensions" in capsys.readouterr().err
