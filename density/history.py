"""What a fit did, as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(repr=False)
class History:
    """Record of one fit.

    Attributes:
        objective: mean objective per point after each epoch or EM iteration, nats where it is a log-density or a bound
            on one; one value for a closed form.
        validation: the same on held-out points, where some were held out.
        converged: whether the fit stopped by its own criterion rather than at its limit.
        best: index into :attr:`objective` of the weights that were kept.
        seconds: wall time.
        stopped: why it stopped, in words.
        climbing: whether it ended at its limit while the held-out points were still improving.

    >>> History(objective=[-3.0, -2.5], best=1, stopped="converged", converged=True).rows()[-1]
    {'step': 1, 'objective': -2.5}
    """

    objective: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    converged: bool = False
    best: int = 0
    seconds: float = 0.0
    stopped: str = ""
    climbing: bool = False

    def __repr__(self) -> str:
        last = f", objective {self.objective[self.best]:.4f}" if self.objective else ""
        held_out = f", held out {self.validation[self.best]:.4f}" if self.validation else ""
        passes = f"{len(self.objective)} pass{'es' * (len(self.objective) != 1)}"  # epochs, iterations
        return f"History({passes}{last}{held_out}, {self.seconds:.2f} s: {self.stopped or 'not stopped'})"

    def rows(self) -> list[dict[str, float]]:
        """One plain record per epoch or iteration, for a data frame."""
        records: list[dict[str, float]] = []
        for step, value in enumerate(self.objective):
            record: dict[str, float] = {"step": step, "objective": value}
            if self.validation:
                record["validation"] = self.validation[step]
            records.append(record)
        return records
