"""Rows that come in chunks: the same batches whatever the chunks, all of them, cut and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

from density import Checkpoint, CheckpointMismatch, Gaussian, History, Training, maximise
from density.data.chunks import Chunks
from density.data.digest import row_digests, unordered_in_words
from density.data.reader import Reader
from density.data.stream import MOST_HELD_OUT, Stream
from density.fitting.rows import TrainingRows
from density.fitting.streamed import StreamedRows
from density.parallel.random_streams import Randomness
from flows import Flow, LULinear, maf, real_nvp
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


def stream(source: object, weights: Tensor | None = None, share: float = 0.0) -> Stream:
    return Stream(source, Reader("a flow", 2), weights, share=share)  # type: ignore[arg-type]


def loader(*data: Tensor, own: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*data), batch_size=7, shuffle=True, generator=seeded(8) if own else None)


def rows_of(source: Stream, training: Training = SHORT) -> StreamedRows:
    return StreamedRows(source, training, Randomness(seeded(), source.device))


@pytest.mark.parametrize("chunk", [1, 7, 16, 40, 90])
@pytest.mark.parametrize("batch_size", [1, 13, 16, 89, 90, 200])
def test_every_epoch_has_every_row_once(batch_size: int, chunk: int, x: Tensor) -> None:
    """In as many batches of the same sizes as of data in memory."""
    training = replace(SHORT, batch_size=batch_size)
    rows = rows_of(stream(list(x.split(chunk))), training)
    expected = TrainingRows((x,), training, Randomness(seeded(), x.device))
    assert (rows.steps, rows.count, rows.batch_size) == (expected.steps, expected.count, expected.batch_size)
    for _ in range(2):
        batches = [batch for (batch,) in rows.epoch()]
        assert [len(batch) for batch in batches] == [len(batch) for (batch,) in expected.epoch()]
        assert torch.cat(batches).sort(0).values.equal(x.sort(0).values)
        assert rows.done == 0


def test_data_in_memory_is_not_copied(x: Tensor) -> None:
    read = Reader("a flow", 2).read(x, weights=torch.ones(90))
    assert [t.data_ptr() for t in TrainingRows(read[:1], SHORT, Randomness(seeded(), x.device)).train.data] == [
        x.data_ptr()
    ]


def test_chunks_are_shuffled_within(x: Tensor) -> None:
    rows = rows_of(stream([x[:45], x[45:]]), replace(SHORT, batch_size=45))
    first, second = ([batch for (batch,) in rows.epoch()] for _ in range(2))
    assert not first[0].equal(second[0])
    assert first[0].sort(0).values.equal(x[:45].sort(0).values)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 90), (10, 40), (44, 46), (89, 90), (5, 5)])
def test_blocks_are_rows_in_their_order(start: int, stop: int | None, x: Tensor) -> None:
    blocks = [block for (block,) in stream(list(x.split(7))).blocks(start, stop)]
    assert torch.cat([x[:0], *blocks]).equal(x[start:stop])


def test_the_sample_is_evenly_spaced() -> None:
    x = torch.arange(50_000.0).reshape(-1, 1).expand(-1, 2)
    (sample,) = stream(list(x.split(777))).sample
    assert 4096 < len(sample) <= 8192
    assert sample[:, 0].equal(torch.arange(0.0, 50_000, sample[1, 0].item()))


def test_a_pass_moves_no_generator(x: Tensor) -> None:
    source = loader(x, own=True)
    before = torch.get_rng_state(), source.generator.get_state()
    found = stream(source)
    first, again = (torch.cat([rows for (rows,) in found.blocks()]) for _ in range(2))
    assert first.equal(again)
    assert found.in_words() == stream(list(x.flip(0).split(11))).in_words()
    assert torch.get_rng_state().equal(before[0])
    assert source.generator.get_state().equal(before[1])


def test_digests_know_rows_in_any_order(x: Tensor) -> None:
    words = unordered_in_words([[x]])
    assert words == unordered_in_words([rows] for rows in x[torch.randperm(90, generator=seeded())].split(13))
    changed = x.clone()
    changed[3, 1] += 1e-12
    for other in (changed, x.flip(1), x[:-1], torch.cat([x[:-1], x[:1]]), x.float()):
        assert words != unordered_in_words([[other]])
    assert unordered_in_words([[x, x[:, :1]]]) != unordered_in_words([[x, x[:, 1:]]])


@pytest.mark.parametrize("kind", ["normal", "grid"])
def test_a_share_is_held_out_whatever_the_order(kind: str, generator: Generator) -> None:
    """A binomial number of rows, in tenths of all places of the hash; the rest is trained on, and both with refit."""
    grid = torch.cartesian_prod(torch.arange(200.0), torch.arange(100.0))
    x = torch.randn(20_000, 2, generator=generator) if kind == "normal" else grid
    found = stream(list(x.split(999)), share=0.1)
    again = stream(list(x[torch.randperm(20_000, generator=generator)].split(500)), share=0.1)
    assert found.held_out is not None
    assert again.held_out is not None
    (rows,) = found.held_out
    assert abs(len(rows) - 2000) < 5 * (20_000 * 0.09) ** 0.5
    assert rows.sort(0).values.equal(again.held_out[0].sort(0).values)
    assert (row_digests([x]).double() / 2.0**64 + 0.5).histc(10, 0, 1).sub(2000).abs().max() < 5 * 1800**0.5
    trained = torch.cat([rows for (rows,) in found.batches(0)])
    assert len(trained) == len(found) == 20_000 - len(rows)
    assert torch.cat([trained, rows]).sort(0).values.equal(x.sort(0).values)
    found.release()
    assert sum(len(rows) for (rows,) in found.batches(0)) == len(found) == 20_000


def test_no_more_is_held_out_than_memory_is_for() -> None:
    found = stream([torch.arange(200_000.0).reshape(100_000, 2)] * 2, share=0.9)
    assert found.held_out is not None
    assert MOST_HELD_OUT // 4 < len(found.held_out[0]) <= MOST_HELD_OUT


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_from_a_loader_learns(name: str, generator: Generator) -> None:
    """As well as from memory, within what two orders of the rows differ by; labels beside the rows are left alone."""
    x = torch.randn(600, 2, generator=generator, dtype=torch.float64) @ torch.tensor([[2.0, 1.0], [0, 0.3]]).double()
    values = []
    for data in (x[:400], loader(x[:400], torch.arange(400))):
        torch.manual_seed(0)
        model, settings = MODELS[name](), replace(SHORT, epochs=8, batch_size=50)
        history = model.fit(data, settings, validation=x[400:], generator=seeded())
        values.append(history.validation[history.best])
    assert values[0] == pytest.approx(values[1], abs=0.1)
    gaussian = Gaussian(2)
    gaussian.fit(x[:400])
    if name == "flow":
        assert values[1] > gaussian.log_density(x[400:]).mean - 0.1


@pytest.mark.parametrize(("parts", "own", "refit"), [(None, True, False), (2, False, False), (None, False, True)])
def test_a_fit_from_a_loader_is_cut_at_any_step(
    own: bool, parts: int | None, refit: bool, x: Tensor, tmp_path: Path
) -> None:
    """The loader shuffles by torch's own generator, or by one of its own; the objective draws from both, too; and
    chunks are changed by draws as they come, after the loader has shuffled."""
    share = 0.2 if refit else 0.0
    training = replace(SHORT, epochs=2, parts=parts, averaging=0.9, refit=refit, validation=share)

    class Source:
        generator = None

        def __init__(self) -> None:
            self.loader = loader(x, torch.ones(90), own=own)
            self.generator = self.loader.generator

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for rows, weights in self.loader:
                yield rows, weights + torch.rand(len(rows)) * (not refit)

    def fit(module: Noisy, training: Training) -> History:
        torch.manual_seed(5)
        data = stream(Chunks(Source(), weighted=True), share=share)
        validation = None if refit else (x[:20],)
        return maximise(module, module.objective, data, training, validation=validation, generator=seeded())

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
        maximise(Noisy(), Noisy().objective, stream([x[1:]], share=share), cut, generator=seeded())


def test_weights_come_in_the_chunks_or_beside_them(x: Tensor) -> None:
    """One full batch: the weighted mean of the objective, whichever way."""
    weights = torch.rand(90, generator=seeded(), dtype=torch.float64) + 0.1
    weights[20:30] = 0
    flow = Flow(Gaussian(2), LULinear(2)).double()
    value = (weights @ flow.log_prob(x) / weights.sum()).item()
    chunks = Chunks(list(zip(x.split(7), weights.split(7), strict=True)), weighted=True)
    settings = replace(SHORT, epochs=1, batch_size=90, learning_rate=1e-12)
    for data, own in ((chunks, None), (list(x.split(7)), weights)):
        found = stream(data, own)
        assert len(found) == 80
        history = maximise(flow, lambda batch, _: flow.log_prob(batch[0]), found, settings)
        assert history.objective[0] == pytest.approx(value, rel=1e-9)
    with pytest.raises(ValueError, match="in another order than in the first pass"):
        flow.fit(loader(x), SHORT, weights=weights)


def test_contexts_come_in_the_chunks(x: Tensor) -> None:
    """Where a flow takes some, and only there: one batch has the mean log p(x|c) of all rows as its objective."""
    flow = maf(1, 1, (8,), context_features=1).double()
    points, contexts = x[:, :1], x[:, 1:]
    flow.initialise(points, contexts)
    settings = replace(SHORT, epochs=1, batch_size=90, learning_rate=1e-12)
    value = flow.log_prob(points, contexts).mean().item()
    held_out = flow.log_prob(points[:30], contexts[:30]).mean().item()
    history = flow.fit(loader(points, contexts), settings, validation=[(points[:30], contexts[:30])])
    assert history.objective[0] == pytest.approx(value, rel=1e-9)
    assert history.validation[0] == pytest.approx(held_out, rel=1e-9)
    for data, error, message in (
        ([points], TypeError, r"MAF|Flow: a chunk of a model that takes contexts is a tuple \(rows, contexts\)"),
        (loader(points, torch.arange(90)), TypeError, "context to be floating point; got torch.int64.*in a chunk"),
        (loader(points, x), ValueError, r"context of shape \[\*batch, 1\]"),
    ):
        with pytest.raises(error, match=message):
            flow.fit(data, SHORT)
    with pytest.raises(ValueError, match=r"from the chunks, \(rows, contexts\)"):
        flow.fit([points], SHORT, context=contexts)


def test_what_a_stream_cannot_do(x: Tensor) -> None:
    flow = real_nvp(2, 2, (8,))
    before = flow.reference.dtype
    with pytest.raises(ValueError, match=r"finite data.*in a chunk that begins with row 40"):
        flow.fit([x[:40], x[40:] * torch.nan], SHORT)
    assert flow.reference.dtype is before
    with pytest.raises(ValueError, match="give a batch_size"):
        flow.fit([x], replace(SHORT, batch_size=None))
    with pytest.raises(TypeError, match="an iterator is spent"):
        flow.fit(iter([x]), SHORT)
    with pytest.raises(ValueError, match="equal rows are held out together"):
        flow.fit([x[:1].expand(90, 2)], replace(SHORT, validation=0.1))

    class Shrinking:
        passes = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.passes += 1
            return iter([x[: 90 - (self.passes > 1)]])

    with pytest.raises(ValueError, match="90 rows to train on in the first pass and 89 in a later one"):
        flow.fit(Shrinking(), SHORT)
