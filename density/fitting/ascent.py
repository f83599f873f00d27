"""Maximise an objective over data by stochastic gradient steps."""

from __future__ import annotations

import math
import time
from dataclasses import asdict

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from density.data.digest import data_in_words, parameters_in_words
from density.fitting.autocast import lowered
from density.fitting.batches import Objective, PartedBatches, WholeBatches
from density.fitting.best_weights import Keeper, weights_of
from density.fitting.checkpoint import CheckpointMismatch, Entry, Logbook, State, Task, differences
from density.fitting.optimisers import adam, constant, cosine, lbfgs
from density.fitting.training import Training
from density.history import History
from density.parallel import processes
from density.parallel.random_streams import Randomness, Streams

__all__ = ["NonFiniteObjective", "Training", "adam", "constant", "cosine", "lbfgs", "maximise"]

ROWS_OF_PROBE = 16


class NonFiniteObjective(ArithmeticError):
    """The objective became nan or infinite; the model holds the last weights that were known to be good.

    Attributes:
        history: what happened until then.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


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
    return _Fit(module, objective, data, training, generator).run()


class _Fit:
    """One call of :func:`maximise`: what it was given, and where it stands between two steps."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        data: tuple[Tensor, ...],
        training: Training,
        generator: Generator | None,
    ) -> None:
        self.module, self.objective, self.data, self.training = module, objective, data, training
        self.rows = data[0].shape[0] - int(data[0].shape[0] * training.validation)
        self.batch_size = min(training.batch_size or self.rows, self.rows)
        self.parts = training.parts or processes.world()
        if self.parts < processes.world():
            raise ValueError(f"{processes.world()} processes need a part of each batch; got parts={self.parts}")
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(module).__name__} has no trainable parameters to fit")
        self.optimiser = training.optimiser(self.parameters, training.learning_rate)
        self.clip = None if isinstance(self.optimiser, torch.optim.LBFGS) else training.clip
        self.randomness = Randomness(generator, data[0].device)
        self.history = History(stopped=f"{training.epochs} epochs done")
        self.seconds, self.started = 0.0, time.perf_counter()
        self.epoch = self.row = self.step = 0
        self.total = torch.zeros((), device=data[0].device)
        self.arrived = self.shuffling = self.randomness.state()  # the latter: when this epoch's rows were shuffled

    def run(self) -> History:
        task = self._task()
        self._join(task)
        self.keeper = Keeper(self.module)
        self.log = Logbook(self.training.checkpoint, "gradient fit", task, self.randomness)
        entry = self.log.read()
        if entry is not None:
            self.randomness.restore(self.log.begun)
        order = self._permutation(self.data[0].shape[0])
        held_out = len(order) - self.rows
        self.valid = tuple(t[order[:held_out]] for t in self.data)
        self.train = tuple(t[order[held_out:]] for t in self.data)
        if self.parts == 1:
            self.batches: WholeBatches | PartedBatches = WholeBatches(self.objective, self.randomness.generator)
        else:
            before = self.randomness.state()
            streams = Streams(self.randomness.generator, self.data[0].device)
            self.randomness.restore(before)  # rows are shuffled as they are without parts
            self.batches = PartedBatches(self.objective, self.parameters, self.parts, streams)
        if entry is not None:
            self._restore(entry)
            if entry.finished:
                return self.history
        was_training = self.module.training
        epochs = self.training.epochs
        hidden = None if self.training.progress and processes.is_main() else True
        bar = tqdm(desc="fit", total=epochs, initial=self.epoch, unit="epoch", leave=False, disable=hidden)
        try:
            while self.epoch < epochs and not self.history.converged:
                self._steps()
                self._look()
                last = {"train": self.history.objective} | ({"valid": self.history.validation} if held_out else {})
                bar.set_postfix({name: f"{values[-1]:.3f}" for name, values in last.items()}, refresh=False)
                bar.update()
                self.epoch += 1
            if not held_out:  # nothing has looked at what the last step made of the weights
                self._require_finite(self._mean(self.train), "objective", len(self.history.objective) - 1)
        except NonFiniteObjective:
            self.keeper.restore()
            raise
        finally:
            bar.close()
            self.module.train(was_training)
            self.optimiser.zero_grad(set_to_none=True)
            self.history.seconds = self._elapsed()
        if held_out:
            self.keeper.restore()
        self.log.finish(lambda: {"module": weights_of(self.module), "history": asdict(self.history)})
        return self.history

    def _steps(self) -> None:
        """The steps of one epoch, or those that are left of it."""
        self.module.train()
        if self.row == 0:
            self.total = torch.zeros((), device=self.data[0].device)
            self.shuffling = self.randomness.state()
            shuffled = self._permutation(self.rows)
        else:
            now = self.randomness.state()
            self.randomness.restore(self.shuffling)
            shuffled = self._permutation(self.rows)
            self.randomness.restore(now)
        training, total_steps = self.training, self.training.epochs * math.ceil(self.rows / self.batch_size)
        while self.row < self.rows:
            batch = tuple(t[shuffled[self.row : self.row + self.batch_size]] for t in self.train)
            for group in self.optimiser.param_groups:
                group["lr"] = training.learning_rate * training.schedule(self.step / total_steps)
            loss = self._climb(batch)
            self.total = self.total + loss * batch[0].shape[0]
            self.step += 1
            self.row += batch[0].shape[0]
            # On an accelerator a look at the loss waits for the device, so there we look once an epoch.
            if loss.device.type == "cpu":
                self._require_finite(loss, "objective", self.epoch)
            self.log.step(self._state)
        self.row = 0

    def _climb(self, batch: tuple[Tensor, ...]) -> Tensor:
        """One step of the optimiser; −(mean objective) of the batch before it."""

        def closure() -> Tensor:
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.batches.backward(batch, self.step)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            return loss

        with lowered(self.module, self.training.autocast):
            loss = self.optimiser.step(closure)  # type: ignore[arg-type]  # a closure that returns the loss as a tensor
        return torch.as_tensor(loss).detach()

    def _look(self) -> None:
        """What the epoch came to, and whether to stop."""
        history, patience = self.history, self.training.patience
        mean_loss = self.total / self.rows
        self._require_finite(mean_loss, "objective", self.epoch)
        self.keeper.confirm()
        history.objective.append(-mean_loss.item())
        if not len(self.valid[0]):
            history.best = self.epoch
            self.keeper.propose()
            return
        value = self._mean(self.valid)
        self._require_finite(value, "held-out objective", self.epoch)
        history.validation.append(value.item())
        if value > self.keeper.best:
            history.best = self.epoch
            self.keeper.keep(value.item())
        if patience is not None and self.epoch - history.best >= patience:
            history.converged = True
            history.stopped = f"no improvement on held-out rows for {patience} epochs"

    def _mean(self, data: tuple[Tensor, ...]) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            return self.batches.total(data) / data[0].shape[0]

    def _require_finite(self, value: Tensor, name: str, epoch: int) -> None:
        if not bool(value.isfinite()):
            self.history.stopped = "non-finite objective"
            raise NonFiniteObjective(
                f"the {name} became {value.item()} in epoch {epoch + 1}; the last good weights were kept. Lower the "
                "learning rate, clip gradients harder, or standardise the data",
                self.history,
            )

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.randomness.generator, device=self.data[0].device)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _task(self) -> Task:
        if self.training.checkpoint is None and processes.world() == 1:
            return {}
        groups = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in self.optimiser.param_groups]
        return {
            "model": parameters_in_words(self.module),
            "data": data_in_words(self.data),
            **self.training.task(),
            "optimiser": f"{type(self.optimiser).__name__} {groups}",
            "parts": self.parts,
            "generator": "torch's own" if self.randomness.generator is None else "given",
        }

    def _join(self, task: Task) -> None:
        """Start from the weights and the random state of the first process."""
        if processes.world() == 1:
            return
        first, *others = processes.collected(task)
        for number, other in enumerate(others, start=1):
            if found := differences(first, other, "in process 0", f"in process {number}"):
                raise ValueError(f"every process must be given the same fit and the same data; {'; '.join(found)}")
        weights, random = processes.from_main(
            lambda: ({name: t.cpu() for name, t in weights_of(self.module).items()}, self.randomness.state())
        )
        self.module.load_state_dict(weights)
        self.randomness.restore(random)

    def _state(self) -> State:
        return {
            "module": weights_of(self.module),
            "optimiser": self.optimiser.state_dict(),
            "keeper": self.keeper.state(),
            "history": {**asdict(self.history), "seconds": self._elapsed()},
            "shuffling": self.shuffling,
            "total": self.total,
            **{name: getattr(self, name) for name in ("epoch", "row", "step")},
            "probe": self._probe(),
        }

    def _restore(self, entry: Entry) -> None:
        state = entry.state
        self.module.load_state_dict(state["module"])
        self.randomness.restore(entry.random)
        if not entry.finished:
            there, here = state["probe"], self._probe()
            if not math.isclose(there, here, rel_tol=1e-3, abs_tol=1e-6) and math.isfinite(there):
                self.keeper.restore()
                self.randomness.restore(self.arrived)
                raise CheckpointMismatch(
                    f"the checkpoint is of another objective: with the same weights and rows its mean is {there} there "
                    f"and {here} here. Fit as before, give this fit another path, or delete the file to fit anew"
                )
            self.optimiser.load_state_dict(state["optimiser"])
            self.keeper.load(state["keeper"])
            self.shuffling, self.total = state["shuffling"], state["total"].to(self.total.device)
            self.epoch, self.row, self.step = state["epoch"], state["row"], state["step"]
        self.history = History(**state["history"])
        self.seconds = self.history.seconds

    def _probe(self) -> float:
        """The mean objective of a few rows, by draws that are always the same: what no name of a function can tell."""
        rows = tuple(t[:ROWS_OF_PROBE] for t in self.train)
        was_training, random = self.module.training, self.randomness.state()
        self.module.eval()
        with torch.no_grad():
            value = self.objective(rows, Generator(rows[0].device).manual_seed(0)).double().mean().item()
        self.module.train(was_training)
        self.randomness.restore(random)
        return value
