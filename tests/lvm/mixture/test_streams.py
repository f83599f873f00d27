"""Mixtures of data in chunks: the same fit as of a tensor, in memory that does not grow with the data."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

import lvm.mixture.starts
from density.data.chunks import Chunks, Source
from density.data.rows import Rows
from lvm import EM, Full, GaussianMixture, Given, KMeansPlusPlus, Present, Tied
from lvm.mixture.covariance import Covariance
from lvm.mixture.starts import sample
from tests.lvm.mixture import mixture_memory
from tests.lvm.mixture.mixtures import STRUCTURES, UNREGULARISED, seed, separated

QUICK = EM(max_iterations=6, tolerance=0.0, progress=False)


def mapped(x: Tensor, path: Path) -> np.ndarray:
    np.save(path, x.numpy())
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def sources(x: Tensor, folder: Path) -> dict[str, Source]:
    return {
        "array": x.numpy(),
        "memory map": mapped(x, folder / "x.npy"),
        "part of a map": mapped(torch.cat([x + 1, x]), folder / "two.npy")[len(x) :],
        "list": [x[:7], x[7:7], x[7:200].numpy(), x[200:]],
        "loader": DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=64),
        "chunks": Chunks(x, rows=11),
    }


def same(one: GaussianMixture, other: GaussianMixture, tolerance: float) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_every_source_gives_the_fit_of_its_tensor(covariance: Covariance, generator: Generator, tmp_path: Path) -> None:
    x = separated(generator) + 100
    expected = GaussianMixture(3, 3, covariance)
    history = expected.fit(x, em=QUICK, generator=seed(0))
    for name, source in sources(x, tmp_path).items():
        model = GaussianMixture(3, 3, covariance)
        found = model.fit(source, em=QUICK, generator=seed(0))
        assert model.means.dtype == torch.float64, name
        # the order of summation differs: a few ulps, which six steps amplify little on separated components
        same(model, expected, 1e-10)
        np.testing.assert_allclose(found.objective, history.objective, rtol=1e-12, err_msg=name)
        one, other = model.summarise(source), model.summarise(x)
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-11, atol=0)


def test_weights_come_beside_the_rows_or_with_them(generator: Generator) -> None:
    x = separated(generator)
    weights = torch.rand(300, generator=generator, dtype=x.dtype) + 0.5
    models = [GaussianMixture(3, 3) for _ in range(4)]
    models[0].fit(x, em=QUICK, weights=weights, generator=seed(0))
    models[1].fit([x[:100], x[100:]], em=QUICK, weights=weights, generator=seed(0))
    loader = DataLoader(TensorDataset(x, weights), batch_size=50)
    models[2].fit(Chunks(loader, weighted=True), em=QUICK, generator=seed(0))
    models[3].fit(loader, em=QUICK, generator=seed(0))
    same(models[1], models[0], 1e-10)
    same(models[2], models[0], 1e-10)
    assert (models[3].means - models[0].means).abs().max() > 1e-3  # of an unweighted tuple the first entry counts
    with pytest.raises(TypeError, match="beside the rows or in their chunks; got both"):
        models[2].fit(Chunks(loader, weighted=True), weights=weights)
    with pytest.raises(TypeError, match=r"a weighted chunk is a tuple \(rows, weights\); got Tensor"):
        models[2].fit(Chunks([x], weighted=True))
    with pytest.raises(TypeError, match="weighted chunks are tuples"):
        Chunks(x, weighted=True)


def test_a_weight_of_three_is_the_row_three_times(generator: Generator) -> None:
    x = separated(generator)
    times = torch.randint(1, 4, (300,), generator=generator)
    repeated = x.repeat_interleave(times, 0)
    start = Given(x[:3])
    for structure in STRUCTURES:
        one, other = GaussianMixture(3, 3, structure), GaussianMixture(3, 3, structure)
        one.fit([x[:50], x[50:]], em=replace(QUICK, start=start), weights=times.double())
        other.fit([repeated[:500], repeated[500:]], em=replace(QUICK, start=start))
        same(one, other, 1e-10)


def test_what_is_wrong_with_a_chunk_is_said(generator: Generator) -> None:
    x = separated(generator, n=20)
    bad = x[5:].clone()
    bad[2, 1] = torch.nan
    model = GaussianMixture(3, 3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for source, error, match in (
        ([x[:5], bad], ValueError, r"row 2, column 1 is nan.*chunk that begins with row 5"),
        ([x[:5], x[5:, :2]], ValueError, r"got \[15, 2\].*chunk that begins with row 5"),
        ([x[:5], x[5]], ValueError, r"\[n, 3\]"),
        ([x[:5], x[5:].float()], TypeError, "float32"),
        ([x[:1], x[:1]], ValueError, "needs at least as many rows; got 2"),
        ([], ValueError, "at least one row"),
        ([x[:0]], ValueError, "at least one row"),
        (iter([x]), TypeError, "spent after one pass"),
        (5, TypeError, "must be a tensor, an array or an iterable"),
        (x.tolist(), TypeError, "got numbers"),
        (x.long().numpy(), TypeError, "floating point"),
        (Chunks([(x, torch.ones(19))], weighted=True), ValueError, "one for each row"),
        (Chunks([(x, -torch.ones(20))], weighted=True), ValueError, "none of them negative; got -1.0"),
    ):
        with pytest.raises(error, match=match):
            model.fit(source)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="19 weights for"):
        model.fit([x], weights=torch.ones(19))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_starts_of_long_streams_are_made_from_a_sample(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvm.mixture.starts, "MOST_ROWS", 500)
    monkeypatch.setattr(lvm.mixture.starts, "MOST_ROWS_OF_A_COMPONENT", 1)
    x = torch.arange(20_000.0, dtype=torch.float64).unsqueeze(1)
    rows = Rows(list(x.split(777)), 1, "", weights=x.squeeze(1) + 1)
    kept, weights = sample(rows, len(x), 3, generator)
    assert kept.shape == (500, 1)
    assert weights is not None
    assert torch.equal(weights, kept.squeeze(1) + 1)
    assert kept.unique().numel() == 500
    # uniform on 0..19999: mean 10⁴ with standard error 20000/√12/√500 = 258, and as many from each quarter
    assert abs(kept.mean().item() - 1e4) < 4 * 258
    assert (kept.squeeze(1) / 5000).long().bincount(minlength=4).min() > 125 - 4 * 9.7
    short, _ = sample(Rows([x[:300], x[300:400]], 1, ""), 400, 3, generator)
    assert torch.equal(short, x[:400])
    model = GaussianMixture(3, 3)
    data = separated(generator, n=5000)
    history = model.fit(list(data.split(640)), em=EM(start=KMeansPlusPlus(), progress=False), generator=seed(0))
    assert history.converged
    best = GaussianMixture(3, 3).fit(data, em=EM(restarts=5, progress=False), generator=seed(0)).objective[-1]
    assert history.objective[-1] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("covariance", [Full(), Tied()], ids=repr)
def test_a_fit_goes_on_from_the_present_parameters(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    whole, halves = GaussianMixture(3, 3, covariance), GaussianMixture(3, 3, covariance)
    start = Given(x[:3])
    first = whole.fit(x, em=replace(UNREGULARISED, max_iterations=9, tolerance=0.0, start=start)).objective
    halves.fit(x, em=replace(UNREGULARISED, max_iterations=4, tolerance=0.0, start=start))
    rest = halves.fit(x, em=replace(UNREGULARISED, max_iterations=5, tolerance=0.0, start=Present())).objective
    assert rest == first[4:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
    with pytest.raises(ValueError, match="starts alike every time"):
        EM(start=Present(), restarts=2)
    with pytest.raises(TypeError, match="start must be"):
        EM(start=Present)  # type: ignore[arg-type]


def test_pages_of_a_map_are_given_back_and_unwritten_ones_kept(tmp_path: Path) -> None:
    x = np.arange(8 * 40_000, dtype=np.float64).reshape(-1, 8)
    np.save(tmp_path / "x.npy", x)
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[3] = -1.0
    assert sum(float((chunk == -1).sum()) for _ in range(2) for chunk in Chunks(changed, rows=1000)) == 16
    written = np.load(tmp_path / "x.npy", mmap_mode="r+")
    written[5] = -1.0
    assert sum(float((chunk == -1).sum()) for _ in range(2) for chunk in Chunks(written[:, ::2], rows=1000)) == 8
    big_endian = x.astype(">f4")
    torch.testing.assert_close(torch.cat(list(Chunks(big_endian, rows=777))), torch.from_numpy(x.astype("f4")))


def resident(rows: int, folder: Path) -> dict[str, float]:
    """Peak resident MiB, and its growth by the fit, and seconds an iteration, in a process of its own."""
    script = Path(mixture_memory.__file__)
    command = [sys.executable, str(script), str(rows), str(folder / f"{rows}.f4")]
    root = script.parent.parent.parent
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("peak", "growth", "seconds"), map(float, out), strict=True))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """12 MiB and 122 MiB of rows in a file, of which no page stays."""
    few, many = resident(200_000, tmp_path), resident(2_000_000, tmp_path)
    # 16 features in float32: 64 bytes a row. A chunk has 4 MiB, the sample 4, their copies in float64 8 each.
    assert many["growth"] < few["growth"] + 20
    assert many["growth"] < 100


@pytest.mark.slow
def test_ten_million_rows_in_a_gigabyte_and_in_linear_time(tmp_path: Path) -> None:
    found = {n: resident(n, tmp_path) for n in (1_000_000, 3_000_000, 10_000_000)}
    print(found)
    assert found[10_000_000]["peak"] < 1024
    a_row = {n: one["seconds"] / n for n, one in found.items()}
    assert max(a_row.values()) < 1.3 * min(a_row.values())
