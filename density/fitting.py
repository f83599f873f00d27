"""Maximise an objective over data by stochastic gradient steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from density.contract import check_count
from density.history import History

Objective = Callable[[tuple[Tensor, ...], Generator | None], Tensor]
OptimiserOf = Callable[[list[nn.Parameter], float], Optimizer]
Schedule = Callable[[float], float]


def adam(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    """Adam (Kingma & Ba 2015), all parameters in one fused step where the device has one."""
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=fused)


def lbfgs(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    """L-BFGS with a strong-Wolfe line search: for full batches and objectives without sampling noise."""
    return torch.optim.LBFGS(
        parameters, lr=learning_rate, max_iter=20, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-12
    )


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Training:
    """Settings of a gradient fit.

    Args:
        epochs: passes over the training rows, at most.
        batch_size: rows in a step; None for all of them.
        learning_rate: at the start of the schedule.
        optimiser: makes the optimiser from parameters and learning rate: :func:`adam`, :func:`lbfgs`, or your own.
        schedule: factor of the learning rate by the share of steps done: :func:`cosine`, :func:`constant`.
        clip: the gradient's norm is scaled down to at most this; None for no clipping. L-BFGS is never clipped: its
            line search needs the gradient itself.
        validation: share of rows held out; the weights that do best on them are kept. 0 to train on all rows and keep
            the last weights.
        patience: epochs without improvement on the held-out rows before stopping early; None never to stop early.
        progress: show a progress bar, if there is a terminal to show it on.

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int = 200
    batch_size: int | None = 128
    learning_rate: float = 1e-3
    optimiser: OptimiserOf = adam
    schedule: Schedule = cosine
    clip: float | None = 100.0
    validation: float = 0.1
    patience: int | None = 20
    progress: bool = True

    def __post_init__(self) -> None:
        for name, count in (("epochs", self.epochs), ("batch_size", self.batch_size), ("patience", self.patience)):
            if count is not None:
                check_count(count, name)
        for name, value in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is a share of the rows, in [0, 1); got {self.validation}")


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
        NonFiniteObjective: the objective became nan or infinite. The weights kept are the best by the held-out rows
            so far or, without held-out rows, those of the last epoch after which the objective was still finite.
    """
    started = time.perf_counter()
    if not isinstance(training, Training):
        raise TypeError(f"a gradient fit takes its settings as density.Training(...); got {type(training).__name__}")
    data = tuple(t.detach() for t in data)  # drawn from a model, it would bring that model's graph along
    n = data[0].shape[0]
    order = torch.randperm(n, generator=generator, device=data[0].device)
    held_out = int(n * training.validation)
    valid = tuple(t[order[:held_out]] for t in data)
    train = tuple(t[order[held_out:]] for t in data)
    rows = n - held_out
    batch_size = min(training.batch_size or rows, rows)
    total_steps = training.epochs * math.ceil(rows / batch_size)

    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(module).__name__} has no trainable parameters to fit")
    optimiser = training.optimiser(parameters, training.learning_rate)
    clip = None if isinstance(optimiser, torch.optim.LBFGS) else training.clip
    keeper = _Keeper(module)
    history = History(stopped=f"{training.epochs} epochs done")
    was_training = module.training
    step = 0
    bar = tqdm(
        range(training.epochs), desc="fit", unit="epoch", leave=False, disable=None if training.progress else True
    )
    try:
        for epoch in bar:
            module.train()
            total = torch.zeros((), device=train[0].device)
            shuffled = torch.randperm(rows, generator=generator, device=train[0].device)
            for start in range(0, rows, batch_size):
                batch = tuple(t[shuffled[start : start + batch_size]] for t in train)
                for group in optimiser.param_groups:
                    group["lr"] = training.learning_rate * training.schedule(step / total_steps)
                loss = _step(optimiser, objective, batch, parameters, clip, generator)
                total = total + loss * batch[0].shape[0]
                step += 1
                # On an accelerator a look at the loss waits for the device, so there we look once an epoch.
                if loss.device.type == "cpu":
                    _require_finite(loss, "objective", epoch, history)
            mean_loss = total / rows
            _require_finite(mean_loss, "objective", epoch, history)
            keeper.confirm()
            history.objective.append(-mean_loss.item())
            if held_out:
                value = _evaluate(module, objective, valid)
                _require_finite(value, "held-out objective", epoch, history)
                history.validation.append(value.item())
                if value > keeper.best:
                    history.best = epoch
                    keeper.keep(value.item())
                bar.set_postfix(train=f"{history.objective[-1]:.3f}", valid=f"{history.validation[-1]:.3f}")
                if training.patience is not None and epoch - history.best >= training.patience:
                    history.converged = True
                    history.stopped = f"no improvement on held-out rows for {training.patience} epochs"
                    break
            else:
                history.best = epoch
                keeper.propose()
                bar.set_postfix(train=f"{history.objective[-1]:.3f}")
        if not held_out:  # nothing has looked at what the last step made of the weights
            _require_finite(_evaluate(module, objective, train), "objective", len(history.objective) - 1, history)
    except NonFiniteObjective:
        keeper.restore()
        raise
    finally:
        bar.close()
        module.train(was_training)
        optimiser.zero_grad(set_to_none=True)
        history.seconds = time.perf_counter() - started
    if held_out:
        keeper.restore()
    return history


def _step(
    optimiser: Optimizer,
    objective: Objective,
    batch: tuple[Tensor, ...],
    parameters: list[nn.Parameter],
    clip: float | None,
    generator: Generator | None,
) -> Tensor:
    def closure() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = -objective(batch, generator).mean()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        return loss

    loss = optimiser.step(closure)  # type: ignore[arg-type]  # a closure that returns the loss as a tensor
    return torch.as_tensor(loss).detach()


def _evaluate(module: nn.Module, objective: Objective, data: tuple[Tensor, ...]) -> Tensor:
    module.eval()
    generator = Generator(data[0].device).manual_seed(0)
    with torch.no_grad():
        total = sum(
            objective(batch, generator).double().sum() for batch in zip(*(t.split(4096) for t in data), strict=True)
        )
    return torch.as_tensor(total) / data[0].shape[0]


def _require_finite(value: Tensor, name: str, epoch: int, history: History) -> None:
    if not bool(value.isfinite()):
        history.stopped = "non-finite objective"
        raise NonFiniteObjective(
            f"the {name} became {value.item()} in epoch {epoch + 1}; the last good weights were kept. Lower the "
            "learning rate, clip gradients harder, or standardise the data",
            history,
        )


class _Keeper:
    """Copies of a module's state: the good one, and one that is good if the next objective is finite."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.best = -math.inf
        self.good = self._copy()
        self.proposed: dict[str, Tensor] | None = None

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def keep(self, value: float) -> None:
        self.best = value
        self.good = self._copy()

    def propose(self) -> None:
        self.proposed = self._copy()

    def confirm(self) -> None:
        if self.proposed is not None:
            self.good, self.proposed = self.proposed, None

    def restore(self) -> None:
        self.module.load_state_dict(self.good)
