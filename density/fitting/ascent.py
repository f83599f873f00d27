"""Maximise an objective over data by stochastic gradient steps."""

from __future__ import annotations

import math
import time
from dataclasses import asdict

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from density.data.digest import data_in_words, parameters_in_words
from density.evaluating import evaluating, mode_kept
from density.fitting.autocast import lowered
from density.fitting.batches import Batch, Objective, batches_of, join
from density.fitting.best_weights import NonFiniteObjective, Watch, weights_of
from density.fitting.checkpoint import CheckpointMismatch, Entry, Logbook, State, Task
from density.fitting.rows import LEAST_ROWS, TrainingRows
from density.fitting.training import Training
from density.history import History
from density.parallel import processes
from density.parallel.random_streams import Randomness

ROWS_OF_PROBE = 16


def maximise(
    module: nn.Module,
    objective: Objective,
    data: tuple[Tensor, ...],
    training: Training,
    *,
    generator: Generator | None = None,
) -> History:
    """Maximise the mean of an objective over data in the parameters of a module.

    A fit that was cut and has a checkpoint goes on from it: call the same fit again. Where several processes were
    started (see :mod:`density.parallel.processes`), all of them call this with the same data, and it starts from the
    weights and the random state of the first of them. Buffers that the objective itself changes in training, as batch
    normalisation does, stay those of each process.

    Args:
        module: whose parameters with ``requires_grad`` are trained, in place.
        objective: maps a batch (one slice of every data tensor) and a generator to nats per point, ``[batch]``.
        data: tensors that share their first dimension n, on the module's device.
        training: see :class:`Training`.
        generator: of the row order and of the objective's draws, on the data's device. Held-out rows are always
            judged by the same draws, so that their value changes by the weights alone.

    Returns:
        The :class:`~density.history.History`; the module holds the best weights by the held-out rows, or the last.

    Raises:
        TypeError: training is not a :class:`Training`.
        ValueError: nothing to train; fewer parts than processes; processes that were given different fits; autocast of
            data that is not float32.
        NonFiniteObjective: the objective became nan or infinite. The weights kept are the best by the held-out rows
            so far or, without held-out rows, those of the last epoch after which the objective was still finite.
        CheckpointMismatch, UnusableFile: the checkpoint is of another fit, or is none; the module was not changed.
        ProcessLost: another process has ended.
    """
    if not isinstance(training, Training):
        raise TypeError(f"a gradient fit takes its settings as density.Training(...); got {type(training).__name__}")
    data = tuple(t.detach() for t in data)  # drawn from a model, it would bring that model's graph along
    if training.autocast is not None and data[0].dtype != torch.float32:
        raise ValueError(
            f"autocast lowers the precision of float32; the data is {data[0].dtype}. Convert with x.float()"
        )
    with mode_kept(module):
        return _Ascent(module, objective, data, training, generator).run()


class _Ascent:
    """One call of :func:`maximise`: what it was given, and where it stands between two steps."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch,
        training: Training,
        generator: Generator | None,
    ) -> None:
        self.module, self.objective, self.training = module, objective, training
        self.started = time.perf_counter()
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(module).__name__} has no trainable parameters to fit")
        self.optimiser = training.optimiser(self.parameters, training.learning_rate)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.clip = None if isinstance(self.optimiser, torch.optim.LBFGS) else training.clip
        self.randomness = Randomness(generator, data[0].device)
        self.arrived = self.randomness.state()
        parts = training.parts or processes.world()
        task = _task(module, self.optimiser, data, training, parts, generator)
        join(module, task, self.randomness)
        self.log = Logbook(training.checkpoint, "gradient fit", task, self.randomness)
        self.entry = self.log.read()
        if self.entry is not None:
            self.randomness.restore(self.log.begun)
        self.rows = TrainingRows(data, training, self.randomness)
        least = max(1, min(LEAST_ROWS, self.rows.batch_size // parts))
        self.batches = batches_of(objective, self.parameters, parts, self.randomness, least)
        self.watch = Watch(module, training.patience, History(stopped=f"{training.epochs} epochs done"))
        self.steps = 0

    def run(self) -> History:
        """The steps that are left, with a look at the held-out rows after every epoch."""
        if self.entry is not None:
            self._restore(self.entry)
            if self.entry.finished:
                return self.watch.history
        training, rows, watch = self.training, self.rows, self.watch
        hidden = None if training.progress and processes.is_main() else True
        bar = tqdm(desc="fit", total=training.epochs, initial=watch.epoch, unit="epoch", leave=False, disable=hidden)
        try:
            while watch.epoch < training.epochs and not watch.history.converged:
                self.module.train()
                for batch in rows.epoch():
                    watch.step(self._step(batch), len(batch[0]))
                    self.log.step(self._state)
                watch.trained(rows.count)
                watch.judged(self._mean(rows.valid) if len(rows.valid[0]) else None)
                bar.set_postfix(watch.last(), refresh=False)
                bar.update()
            if not len(rows.valid[0]):
                watch.ended(self._mean(rows.train))
        except NonFiniteObjective:
            watch.restore()
            raise
        finally:
            bar.close()
            self.optimiser.zero_grad(set_to_none=True)
            watch.history.seconds = self._seconds()
        if len(rows.valid[0]):
            watch.restore()
        self.log.finish(lambda: {"module": weights_of(self.module), "history": asdict(watch.history)})
        return watch.history

    def _step(self, batch: Batch) -> Tensor:
        """One step of the optimiser, each group's own rate scaled; −(mean objective) of the batch before it."""
        training = self.training
        factor = training.schedule(self.steps / (training.epochs * self.rows.steps))
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

        def closure() -> Tensor:
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.batches.backward(batch, self.steps)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            return loss

        with lowered(self.module, training.autocast):
            loss = self.optimiser.step(closure)  # type: ignore[arg-type]  # a closure that returns the loss as a tensor
        self.steps += 1
        return torch.as_tensor(loss).detach()

    def _mean(self, data: Batch) -> Tensor:
        """Mean objective of rows, in evaluation mode, always by the same draws."""
        with evaluating(self.module), torch.no_grad():
            return self.batches.total(data) / data[0].shape[0]

    def _seconds(self) -> float:
        return time.perf_counter() - self.started

    def _state(self) -> State:
        self.watch.history.seconds = self._seconds()
        return {
            "module": weights_of(self.module),
            "optimiser": self.optimiser.state_dict(),
            "watch": self.watch.state(),
            "rows": self.rows.state(),
            "steps": self.steps,
            "probe": self._probe(),
        }

    def _restore(self, entry: Entry) -> None:
        state = entry.state
        self.module.load_state_dict(state["module"])
        self.randomness.restore(entry.random)
        if entry.finished:
            self.watch.history = History(**state["history"])
        else:
            there, here = state["probe"], self._probe()
            if not math.isclose(there, here, rel_tol=1e-3, abs_tol=1e-6) and math.isfinite(there):
                self.watch.restore()
                self.randomness.restore(self.arrived)
                raise CheckpointMismatch(
                    f"the checkpoint is of another objective: with the same weights and rows its mean is {there} there "
                    f"and {here} here. Fit as before, give this fit another path, or delete the file to fit anew"
                )
            self.optimiser.load_state_dict(state["optimiser"])
            self.rows.load(state["rows"])
            self.watch.load(state["watch"], self.parameters[0].device)
            self.steps = state["steps"]
        self.started -= self.watch.history.seconds

    def _probe(self) -> float:
        """The mean objective of a few rows, by draws that are always the same: what no name of a function can tell."""
        rows = tuple(t[:ROWS_OF_PROBE] for t in self.rows.train)
        random = self.randomness.state()
        with evaluating(self.module), torch.no_grad():
            value = self.objective(rows, Generator(rows[0].device).manual_seed(0)).double().mean().item()
        self.randomness.restore(random)
        return value


def _task(
    module: nn.Module,
    optimiser: Optimizer,
    data: Batch,
    training: Training,
    parts: int,
    generator: Generator | None,
) -> Task:
    """The identity of a fit: all that its checkpoint and its processes must agree on."""
    if training.checkpoint is None and processes.world() == 1:
        return {}
    usual = ("lr", training.learning_rate)  # said already
    groups = [
        {name: value for name, value in group.items() if name != "params" and (name, value) != usual}
        for group in optimiser.param_groups
    ]
    return {
        "model": parameters_in_words(module),
        "data": data_in_words(data),
        **training.task(),
        "optimiser": f"{type(optimiser).__name__} {groups}",
        "parts": parts,
        "generator": "torch's own" if generator is None else "given",
    }
