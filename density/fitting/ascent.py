"""Maximise an objective over data by stochastic gradient steps."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from density.compilation.objectives import compiled_steps
from density.data.stream import Stream
from density.evaluating import evaluating, mode_kept
from density.fitting.autocast import Lowering, tensor_float_32
from density.fitting.averaging import Average
from density.fitting.batches import Batch, Blocks, Objective, Stepwise, batches_of, join, weighted, weighted_by_step
from density.fitting.best_weights import NonFiniteObjective, Watch, copied, weights_of
from density.fitting.checkpoint import CheckpointMismatch, Entry, Logbook, State
from density.fitting.course import Course
from density.fitting.identity import task_of
from density.fitting.network_weights import groups_of
from density.fitting.optimisers import Rates
from density.fitting.rows import LEAST_ROWS, TrainingRows
from density.fitting.streamed import StreamedRows
from density.fitting.training import Training, check_training
from density.history import History
from density.parallel import processes
from density.parallel.random_streams import Randomness

ROWS_OF_PROBE = 16


def maximise(
    module: nn.Module,
    objective: Objective,
    data: tuple[Tensor, ...] | Stream,
    training: Training,
    *,
    weights: Tensor | None = None,
    validation: tuple[Tensor, ...] | None = None,
    stepwise: Stepwise | None = None,
    period: int = 0,
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
        data: tensors that share their first dimension n, on the module's device; or a stream of chunks of one, which
            brings its own weights.
        training: see :class:`Training`.
        weights: of the rows ``[n]``, positive: what is maximised is the weighted mean, Σ w f / Σ w, over the rows
            trained on as over those held out. A row is drawn as often whatever its weight.
        validation: rows to hold out, of as many tensors as data, in place of a share of the data. They have no weights.
        stepwise: the objective of each step, from 0, where it is not the one by which held-out rows are judged.
        period: steps after which that has been all that it will be; patience lasts so many longer.
        generator: of the row order and of the objective's draws, on the data's device. Held-out rows are always
            judged by the same draws, so that their value changes by the weights alone.

    Returns:
        The :class:`~density.history.History`; the module holds the best weights by the held-out rows, or the last.

    Raises:
        TypeError: training is not a :class:`Training`.
        ValueError: nothing to train; a refit with validation rows that are none of the data; fewer parts than
            processes; processes that were given different fits; autocast of data that is not float32.
        NonFiniteObjective: the objective became nan or infinite. The weights kept are the best by the held-out rows
            so far or, without held-out rows, those of the last epoch after which the objective was still finite.
        CheckpointMismatch, UnusableFile: the checkpoint is of another fit, or is none; the module was not changed.
        ProcessLost: another process has ended.

    >>> line, x = nn.Linear(1, 1), torch.linspace(-1, 1, 100).unsqueeze(1)
    >>> fit = lambda batch, generator: -(line(batch[0]) - 3 * batch[0]).square()[:, 0]
    >>> history = maximise(line, fit, (x,), Training(epochs=60, learning_rate=0.1, progress=False))
    >>> round(line.weight.item())
    3
    """
    check_training(training, "maximise")
    if not isinstance(data, Stream):
        data = tuple(t.detach() for t in data)  # drawn from a model, it would bring that model's graph along
    validation = None if validation is None else tuple(t.detach() for t in validation)
    if validation is not None and training.refit:
        raise ValueError("refit trains on rows held out of the data; with validation rows of your own, there are none")
    dtype = data.dtype if isinstance(data, Stream) else data[0].dtype
    if training.autocast is not None and dtype != torch.float32:
        raise ValueError(f"autocast lowers the precision of float32; the data is {dtype}. Convert with x.float()")
    with mode_kept(module):
        return _Ascent(module, objective, data, training, weights, validation, stepwise, period, generator).run()


class _Ascent:
    """One call of :func:`maximise`: what it was given, and where it stands between two steps."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: Batch | Stream,
        training: Training,
        weights: Tensor | None,
        validation: Batch | None,
        stepwise: Stepwise | None,
        period: int,
        generator: Generator | None,
    ) -> None:
        self.module, self.training, self.started = module, training, time.perf_counter()
        self.lowering = Lowering(module, training.autocast)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(module).__name__} has no trainable parameters to fit")
        self._make_optimiser()
        self.clip = None if isinstance(self.optimiser, torch.optim.LBFGS) else training.clip
        stream, tensors = (data, ()) if isinstance(data, Stream) else (None, data)
        self.randomness = Randomness(generator, data.device if isinstance(data, Stream) else data[0].device)
        self.arrived = self.randomness.state()
        parts = training.parts or processes.world()
        given = (*tensors, *(() if weights is None else (weights,)), *(validation or ()))
        task = task_of(module, self.optimiser, given, stream, training, parts, generator)
        join(module, task, self.randomness)
        self.log = Logbook(training.checkpoint, "gradient fit", task, self.randomness)
        self.entry = self.log.read()
        if self.entry is not None:
            self.randomness.restore(self.log.begun)
        self.rows: TrainingRows | StreamedRows = (
            TrainingRows(tensors, training, self.randomness, weights=weights, validation=validation)
            if stream is None
            else StreamedRows(stream, training, self.randomness, validation)
        )
        if self.rows.weighted:
            objective, stepwise = weighted(objective), None if stepwise is None else weighted_by_step(stepwise)
        self.at: Stepwise = stepwise or (lambda step: objective)
        least = max(1, min(LEAST_ROWS, self.rows.batch_size // parts))
        at = compiled_steps(objective, stepwise, self.rows, parts, self.randomness) if training.compiled else self.at
        self.batches = batches_of(objective, self.parameters, parts, self.randomness, least, at)
        self.watch = Watch(module, History())
        self.course = Course(training, self.rows.count, self.rows.steps, held_out=self.held_out, period=period)
        self.average = None if training.averaging is None else Average(self.parameters, training.averaging)
        self.start = copied(module) if training.refit else None
        self.chosen: History | None = None  # of the fit that chose the steps, once all rows are fitted

    @property
    def held_out(self) -> bool:
        """Whether rows are held out."""
        return bool(len(self.rows.valid))

    def run(self) -> History:
        """The steps that are left, with a look at the held-out rows after every epoch."""
        if self.entry is not None:
            self._restore(self.entry)
            if self.entry.finished:
                return self.watch.history
        try:
            self._climb()
            if self.start is not None and self.held_out and not self.course.asked:
                self._release()
                self._climb()
        except NonFiniteObjective:
            self.watch.restore()
            raise
        finally:
            self.optimiser.zero_grad(set_to_none=True)
            self.watch.history.seconds = self._seconds()
        history = self.chosen or self.watch.history
        history.seconds = self._seconds()
        self.log.finish(lambda: {"module": weights_of(self.module), "history": asdict(history)})
        return history

    def _climb(self) -> None:
        """Follow the course to its end; the module then has the weights that are kept."""
        training, rows, watch, course = self.training, self.rows, self.watch, self.course
        hidden = None if training.progress and processes.is_main() else True
        bar = tqdm(desc="fit", total=course.end, initial=course.epoch, unit="epoch", leave=False, disable=hidden)
        try:
            while not course.ended:
                self.module.train()
                for batch in rows.epoch():
                    watch.step(self._step(batch), len(batch[0]))
                    self.log.step(self._state)
                with nullcontext() if self.average is None else self.average.shown():
                    improved = watch.judged(rows.given, self._mean(rows.valid) if self.held_out else None)
                if course.judged(improved):
                    self._return_to_best()
                if self._asked_to_stop():
                    course.stop()
                bar.total = course.end
                bar.set_postfix(watch.last(), refresh=False)
                bar.update()
        finally:
            bar.close()
        if self.held_out:
            watch.restore()
        else:
            if self.average is not None:
                self.average.keep()
            watch.ended(self._mean(rows.train))
        history = watch.history
        history.stopped, history.climbing, history.converged = course.stopped(), course.climbing, not course.patient

    def _asked_to_stop(self) -> bool:
        callback, history = self.training.callback, self.watch.history
        if callback is None:
            return False
        history.seconds = self._seconds()
        return processes.from_main(lambda: bool(callback(history)))

    def _return_to_best(self) -> None:
        """Go on from the best weights. The optimiser goes on as it is: what it knows of the slopes holds there, too."""
        self.watch.restore()
        if self.average is not None:
            self.average.restart()

    def _release(self) -> None:
        """Begin anew, with all rows and as many steps as did best."""
        assert self.start is not None
        self.chosen = self.watch.history
        self.module.load_state_dict(self.start)
        self.rows.release()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._make_optimiser()
        self.course = self.course.again(self.rows.count, self.rows.steps)
        self.watch = Watch(self.module, History())
        if self.average is not None:
            self.average.restart()

    def _make_optimiser(self) -> None:
        training = self.training
        self.optimiser = training.optimiser(self.parameters, training.learning_rate)
        searches = isinstance(self.optimiser, torch.optim.LBFGS)
        if searches and (training.weight_decay or training.averaging is not None):
            raise ValueError("L-BFGS takes no weight_decay or averaging: its line search needs the objective itself")
        if training.weight_decay:
            groups = groups_of(self.module, self.parameters, training.weight_decay)
            self.optimiser = training.optimiser(groups, training.learning_rate)
        self.rates = Rates(self.optimiser, captured=training.compiled)

    def _step(self, batch: Batch) -> Tensor:
        """One step of the optimiser at the course's rate; −(mean objective) of the batch before it."""
        self.rates.scale(self.course.factor)
        loss = self._climbed(batch)
        self.course.steps += 1
        if self.average is not None:
            self.average.update()
        return loss

    def _climbed(self, batch: Batch) -> Tensor:
        """Objective, gradient and update of a batch: nothing in it waits, and it is the same from batch to batch."""

        def closure() -> Tensor:
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.batches.backward(batch, self.course.steps)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            return loss

        with self.lowering.entered(), tensor_float_32(self.training.tf32):
            loss = self.optimiser.step(closure)  # type: ignore[arg-type]  # a closure that returns the loss as a tensor
        return torch.as_tensor(loss).detach()

    def _mean(self, rows: Blocks) -> Tensor:
        """Mean objective of rows, in evaluation mode, always by the same draws."""
        with evaluating(self.module), torch.no_grad():
            return self.batches.total(rows) / len(rows)

    def _seconds(self) -> float:
        return time.perf_counter() - self.started

    def _state(self) -> State:
        self.watch.history.seconds = self._seconds()
        return {
            "module": weights_of(self.module),
            "optimiser": self.optimiser.state_dict(),
            "watch": self.watch.state(),
            "rows": self.rows.state(),
            "course": self.course.state(),
            "average": None if self.average is None else self.average.state(),
            "start": self.start,
            "chosen": None if self.chosen is None else asdict(self.chosen),
            "probe": self._probe(self.course.steps),
        }

    def _restore(self, entry: Entry) -> None:
        state = entry.state
        self.module.load_state_dict(state["module"])
        self.randomness.restore(entry.random)
        if entry.finished:
            self.watch.history = History(**state["history"])
        else:
            if state["chosen"] is not None:
                self.rows.release()
            there, here = state["probe"], self._probe(state["course"]["steps"])
            if not math.isclose(there, here, rel_tol=1e-3, abs_tol=1e-6) and math.isfinite(there):
                self.watch.restore()
                self.randomness.restore(self.arrived)
                raise CheckpointMismatch(
                    f"the checkpoint is of another objective: with the same weights and rows its mean is {there} there "
                    f"and {here} here. Fit as before, give this fit another path, or delete the file to fit anew"
                )
            if state["chosen"] is not None:
                self.chosen = History(**state["chosen"])
                self._begin_anew()
            self.optimiser.load_state_dict(state["optimiser"])
            self.rows.load(state["rows"])
            self.watch.load(state["watch"], self.parameters[0].device)
            self.course.load(state["course"])
            self.start = state["start"]
            if self.average is not None:
                self.average.load(state["average"])
        self.started -= self.watch.history.seconds

    def _probe(self, step: int) -> float:
        """The mean objective of a few rows, by draws that are always the same: what no name of a function can tell."""
        rows = self.rows.probe(ROWS_OF_PROBE)
        if rows is None:
            return math.nan
        random = self.randomness.state()
        with evaluating(self.module), torch.no_grad():
            value = self.at(step)(rows, Generator(rows[0].device).manual_seed(0)).double().mean().item()
        self.randomness.restore(random)
        return value
