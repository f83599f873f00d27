"""Rows that come in chunks: the same batches whatever the chunks, all of them, cut and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

from density import Checkpoint, CheckpointMismatch, Gaussian, History, Training, maximise
from density.data.chunks import Chunks
from density.data.digest import unordered_in_words
from density.fitting.rows import TrainingRows
from density.fitting.stream import Stream, StreamedRows
from density.parallel.random_streams import Randomness
from flows import Flow, LULinear, real_nvp
from lvm import VAE
from tests.density.fitting.test_checkpoint import Cut, Noisy

SHORT = Training(epochs=4, batch_size=16, validation=0, learning_rate=1e-2, progress=False)
MODELS: dict[str, Callable[[], Flow | VAE]] = {
    "flow": lambda: real_nvp(2, 2, (8,)),
    "vae": lambda: VAE.gaussian(2, 1, hidden=(8,)),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(90, 2, generator=generator, dtype=torch.float64).cumsum(1)


def seeded(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def stream(source: object, weights: Tensor | None = None) -> Stream:
    return Stream(source, 2, "a flow", weights)  # type: ignore[arg-type]


def loader(x: Tensor, own: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(x), batch_size=7, shuffle=True, generator=seeded(8) if own else None)


@pytest.mark.parametrize("chunk", [1, 7, 16, 40, 90])
@pytest.mark.parametrize("batch_size", [1, 13, 16, 89, 90, 200])
def test_every_epoch_has_every_row_once(batch_size: int, chunk: int, x: Tensor) -> None:
    """In as many batches of the same sizes as of data in memory."""
    training = replace(SHORT, batch_size=batch_size)
    rows = StreamedRows(stream(list(x.split(chunk))), training, Randomness(seeded(), x.device))
    expected = TrainingRows((x,), training, Randomness(seeded(), x.device))
    assert (rows.steps, rows.count, rows.batch_size) == (expected.steps, expected.count, expected.batch_size)
    for _ in range(2):
        batches = [batch for (batch,) in rows.epoch()]
        assert [len(batch) for batch in batches] == [len(batch) for (batch,) in expected.epoch()]
        assert torch.cat(batches).sort(0).values.equal(x.sort(0).values)
        assert rows.done == 0


def test_chunks_are_shuffled_within(x: Tensor) -> None:
    rows = StreamedRows(stream([x[:45], x[45:]]), replace(SHORT, batch_size=45), Randomness(seeded(), x.device))
    first, second = ([batch for (batch,) in rows.epoch()] for _ in range(2))
    assert not first[0].equal(second[0])
    assert first[0].sort(0).values.equal(x[:45].sort(0).values)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 90), (10, 40), (44, 46), (89, 90), (5, 5)])
def test_blocks_are_rows_in_their_order(start: int, stop: int | None, x: Tensor) -> None:
    blocks = [block for (block,) in stream(list(x.split(7))).blocks(start, stop)]
    assert torch.cat([x[:0], *blocks]).equal(x[start:stop])


def test_the_sample_is_evenly_spaced() -> None:
    x = torch.arange(50_000.0).reshape(-1, 1).expand(-1, 2)
    sample = stream(list(x.split(777))).sample
    assert 4096 < len(sample) <= 8192
    assert sample[:, 0].equal(torch.arange(0.0, 50_000, sample[1, 0].item()))


def test_a_pass_moves_no_generator(x: Tensor) -> None:
    source = loader(x, own=True)
    before = torch.get_rng_state(), source.generator.get_state()
    found = stream(source)
    assert len(list(found.blocks())) > 0
    assert found.in_words() == stream(list(x.flip(0).split(11))).in_words()
    assert torch.get_rng_state().equal(before[0])
    assert source.generator.get_state().equal(before[1])


def test_digests_know_rows_in_any_order(x: Tensor) -> None:
    words = unordered_in_words([x])
    assert words == unordered_in_words(x[torch.randperm(90, generator=seeded())].split(13))
    changed = x.clone()
    changed[3, 1] += 1e-12
    for other in (changed, x.flip(1), x[:-1], torch.cat([x[:-1], x[:1]]), x.float()):
        assert words != unordered_in_words([other])


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_from_a_loader_learns(name: str, generator: Generator) -> None:
    """As well as from memory, within what two orders of the rows differ by."""
    x = torch.randn(2000, 2, generator=generator, dtype=torch.float64) @ torch.tensor([[2.0, 1.0], [0, 0.3]]).double()
    values = []
    for data in (x[:1500], loader(x[:1500])):
        torch.manual_seed(0)
        model, settings = MODELS[name](), replace(SHORT, epochs=15, batch_size=64)
        history = model.fit(data, settings, validation=x[1500:], generator=seeded())  # type: ignore[arg-type]
        values.append(history.validation[history.best])
    assert values[0] == pytest.approx(values[1], abs=0.1)
    gaussian = Gaussian(2)
    gaussian.fit(x[:1500])
    if name == "flow":
        assert values[1] > gaussian.log_density(x[1500:]).mean - 0.1


@pytest.mark.parametrize("parts", [None, 2])
@pytest.mark.parametrize("own", [True, False])
def test_a_fit_from_a_loader_is_cut_at_any_step(own: bool, parts: int | None, x: Tensor, tmp_path: Path) -> None:
    """The loader shuffles by torch's own generator, or by one of its own; the objective draws from both, too."""
    training = replace(SHORT, epochs=2, parts=parts, averaging=0.9)

    def fit(module: Noisy, training: Training) -> History:
        torch.manual_seed(5)
        data = stream(loader(x, own))
        return maximise(module, module.objective, data, training, validation=(x[:20],), generator=seeded())

    whole = Noisy()
    expected = fit(whole, training)
    cut, cuts = replace(training, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1)), 0
    for cut_at in range(1, 100):
        module = Noisy(cut_at)
        try:
            history = fit(module, cut)
            break
        except Cut:
            cuts += 1
    assert cuts >= 2
    assert all(p.equal(q) for p, q in zip(module.parameters(), whole.parameters(), strict=True))
    assert history.validation == expected.validation
    with pytest.raises(CheckpointMismatch, match="data is"):
        maximise(Noisy(), Noisy().objective, stream([x[1:]]), cut, validation=(x[:20],), generator=seeded())


def test_weights_come_in_the_chunks_or_beside_them(x: Tensor) -> None:
    """One full batch: the weighted mean of the objective, whichever way."""
    weights = torch.rand(90, generator=seeded(), dtype=torch.float64) + 0.1
    flow = Flow(Gaussian(2), LULinear(2)).double()
    value = (weights @ flow.log_prob(x) / weights.sum()).item()
    chunks = Chunks(list(zip(x.split(7), weights.split(7), strict=True)), weighted=True)
    settings = replace(SHORT, epochs=1, batch_size=90)
    for data, own in ((chunks, None), (list(x.split(7)), weights)):
        found = Stream(data, 2, "a flow", own)
        history = maximise(
            flow, lambda batch, _: flow.log_prob(batch[0]), found, replace(settings, learning_rate=1e-12)
        )
        assert history.objective[0] == pytest.approx(value, rel=1e-9)


def test_what_a_stream_cannot_do(x: Tensor) -> None:
    flow = real_nvp(2, 2, (8,))
    with pytest.raises(ValueError, match="no share of them is held out"):
        flow.fit([x])
    with pytest.raises(ValueError, match="give a batch_size"):
        flow.fit([x], replace(SHORT, batch_size=None))
    with pytest.raises(ValueError, match="not beside chunks"):
        flow.fit([x], SHORT, context=x)
    with pytest.raises(ValueError, match=r"finite data.*in a chunk that begins with row 40"):
        flow.fit([x[:40], x[40:] * torch.nan], SHORT)
    with pytest.raises(TypeError, match="an iterator is spent"):
        flow.fit(iter([x]), SHORT)  # type: ignore[arg-type]

    class Shrinking:
        passes = 0

        def __iter__(self) -> object:
            self.passes += 1
            return iter([x[: 90 - (self.passes > 2)]])

    with pytest.raises(ValueError, match="90 rows in the first pass and 89 in a later one"):
        flow.fit(Shrinking(), SHORT)  # type: ignore[arg-type]
