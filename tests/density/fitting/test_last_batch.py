"""What becomes of the rows of an epoch that are left over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Checkpoint, LastBatch, Training, maximise
from density.data.reader import Reader
from density.data.stream import Stream
from density.fitting.rows import TrainingRows
from density.fitting.streamed import StreamedRows
from density.parallel.random_streams import Randomness
from flows import real_nvp

TRAINING = Training(epochs=2, batch_size=16, validation=0.0, progress=False)
WHOLE = (LastBatch.DROPPED, LastBatch.FILLED)


def rows_of(n: int, training: Training, chunk: int | None = None) -> TrainingRows | StreamedRows:
    x = torch.arange(2.0 * n).unflatten(0, (n, 2))
    randomness = Randomness(Generator().manual_seed(3), x.device)
    if chunk is None:
        return TrainingRows((x,), training, randomness)
    return StreamedRows(Stream(list(x.split(chunk)), Reader("a flow", 2)), training, randomness)


@pytest.mark.parametrize("chunk", [None, 7, 40])
@pytest.mark.parametrize("n", [5, 16, 17, 40, 48])
@pytest.mark.parametrize("last", WHOLE)
def test_all_batches_are_whole(last: LastBatch, n: int, chunk: int | None) -> None:
    rows = rows_of(n, replace(TRAINING, last_batch=last), chunk)
    for _ in range(2):
        batches = [batch for (batch,) in rows.epoch()]
        assert len(batches) == rows.steps
        assert {len(batch) for batch in batches} == {rows.batch_size} == {min(16, n)}
        given = torch.cat(batches)[:, 0].tolist()
        assert len(given) == rows.given
        if last is LastBatch.DROPPED:
            assert len(set(given)) == len(given) > n - rows.batch_size
        else:
            assert set(given) == set(range(0, 2 * n, 2))
            assert given[n:] == given[: rows.given - n]  # the first of the epoch


@pytest.mark.parametrize("last", LastBatch)
def test_the_objective_of_an_epoch_is_the_mean_of_the_rows_given(last: LastBatch, generator: Generator) -> None:
    line, x, seen = (
        nn.Linear(1, 1).double(),
        torch.randn(40, 1, generator=generator, dtype=torch.float64),
        list[Tensor](),
    )

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        seen.append(batch[0][:, 0])
        return seen[-1] + 0 * line.weight.sum()

    history = maximise(line, objective, (x,), replace(TRAINING, epochs=1, last_batch=last), generator=generator)
    steps = torch.cat(seen[:-1])  # the last is the look at the end
    assert len(steps) == {"smaller": 40, "dropped": 32, "filled": 48}[last.value]
    torch.testing.assert_close(history.objective[0], steps.mean().item())


@pytest.mark.parametrize("last", WHOLE)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_cut_fit_goes_on(last: LastBatch, cut: int, generator: Generator, tmp_path: Path) -> None:
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    training = replace(TRAINING, last_batch=last)

    def fitted(training: Training) -> Tensor:
        torch.manual_seed(0)
        flow = real_nvp(2, 2, (4,))
        flow.fit(x, training, generator=Generator().manual_seed(1))
        return torch.cat([p.detach().flatten() for p in flow.parameters()])

    class Cut(Exception):
        pass

    steps = 0

    def stopping(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
        class Adam(torch.optim.Adam):
            def step(self, closure: object = None) -> object:  # type: ignore[override]
                nonlocal steps
                steps += 1
                if steps == cut + 1:
                    raise Cut
                return super().step(closure)  # type: ignore[call-overload]

        return Adam(parameters, lr=rate)

    checkpoint = Checkpoint(tmp_path / "fit", steps=1)
    with pytest.raises(Cut):
        fitted(replace(training, checkpoint=checkpoint, optimiser=stopping))
    again = fitted(replace(training, checkpoint=checkpoint, optimiser=stopping))
    steps = -100
    assert again.equal(fitted(replace(training, optimiser=stopping)))


def test_it_is_one_of_three() -> None:
    with pytest.raises(
        TypeError, match=r"last_batch must be density\.LastBatch\.SMALLER, DROPPED or FILLED; got 'drop'"
    ):
        Training(last_batch="drop")  # type: ignore[arg-type]
    assert "last_batch" not in TRAINING.task()  # files of before know nothing of it
    assert replace(TRAINING, last_batch=LastBatch.FILLED).task()["last_batch"] == "filled"
