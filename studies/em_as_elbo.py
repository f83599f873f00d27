"""Is EM coordinate ascent on the ELBO, and how fast is it beside gradient ascent and the closed form?

Claim: the E-step makes q the posterior, so that the ELBO touches log p(x); the M-step raises the ELBO at fixed q and
    opens a gap, KL(old posterior ‖ new posterior); log p(x) never falls. EM is fast where knowing z would
    tell little more of the parameters, and slow in mixtures that overlap and in PPCA with little noise. There gradient
    ascent with curvature needs fewer passes over the data.

Paper: Neal & Hinton 1998 (coordinate ascent); Salakhutdinov, Roweis & Ghahramani 2003 (EM and gradients); Petersen,
    Winther & Hansen 2005 (low noise); Liu, Rubin & Wu 1998 (expanded EM).

Command: python -m studies.em_as_elbo

Run time: 2 minutes on one core (--quick: 15 seconds)

Expected: passes over 1,000 points, and CPU milliseconds, to within 0.0001 nats a point of the maximum, medians over
    seeds 0 to 4. An evaluation of value and gradient is a pass. Milliseconds are those of the committed rows' machine.

    =========================  ==============  ===========  =============  ==============  ===========
    ..                         EM              expanded EM  L-BFGS         Adam            closed form
    =========================  ==============  ===========  =============  ==============  ===========
    mixture, separated         2 (1.8 ms)                   7 (6.3 ms)     77 (57.5 ms)
    mixture, overlapping       114 (62.3 ms)                17 (13.9 ms)   152 (123.6 ms)
    PPCA, noise variance 1     11 (1.5 ms)     9 (1.4 ms)   24 (31.7 ms)   116 (101.7 ms)  1 (0.8 ms)
    PPCA, noise variance 0.01  670 (89.9 ms)   7 (1.3 ms)   80 (94.5 ms)   199 (229.7 ms)  1 (0.7 ms)
    =========================  ==============  ===========  =============  ==============  ===========

    After every E-step the bound is log p(x) to 1e-14 nats, and the gap that an M-step leaves is KL(old ‖ new posterior)
    to the same: 0.001 nats or more after the first of a mixture, 0.79 or more of PPCA. Neither the bound nor log p(x)
    ever falls, to rounding.

Answer: yes, half step by half step, and which method is fast depends on the problem. EM wins where the data say which
    component a point is from, and in PPCA with much noise. Where mixtures overlap it needs seven times the passes of
    L-BFGS and four times its time. In PPCA with little noise it crawls: eight times the passes of L-BFGS, though each
    is so cheap that both take the same time. One change of the M-step, which also fits the latent's covariance, mends
    that: 7 passes instead of 670. The closed form of PPCA costs what a few passes do. Adam at one learning rate for
    all is the slowest everywhere, and in the last case does not settle from every start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from studies.kit import old as kit
from studies.kit.errors import InputError
from studies.kit.old import OF_THE_RUN, CommonSettings, quick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

    from studies.kit.rows import Row

Problem = Literal["separated", "overlapping", "noisy", "quiet"]
Method = Literal["EM", "expanded EM", "Adam", "L-BFGS", "closed form"]
MIXTURES: tuple[Problem, ...] = ("separated", "overlapping")
LABELS = {
    "separated": "mixture, separated",
    "overlapping": "mixture, overlapping",
    "noisy": "PPCA, noise variance 1",
    "quiet": "PPCA, noise variance 0.01",
}
NEAR = 1e-4  # nats per point from the maximum at which a method has arrived
ROUNDING = 1e-11  # of means of 1,000 terms of size up to 1,000, by sums of 27 nodes: some 100 roundings of 1e-13
SAME = 1e-6  # nats per point by which methods that have converged may differ


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Four problems of known maximum, one start for all methods."""

    data: Literal["simulated"] = field(default="simulated", metadata=OF_THE_RUN)
    """Points from mixtures and PPCA models, one kind easy for EM and one hard."""
    seeds: tuple[int, ...] = field(default=(0, 1, 2, 3, 4), metadata={**OF_THE_RUN, **quick((0,))})
    """Each seed is other data and another start."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    problems: tuple[Problem, ...] = field(default=get_args(Problem), metadata=OF_THE_RUN)
    """Which of them."""
    rows: int = field(default=1000, metadata=quick(500))
    """Points."""
    half_steps: int = 12
    """Iterations of EM that are looked at half step by half step."""
    passes: int = field(default=3000, metadata=quick(1500))
    """Passes over the data that a method has, at most."""
    learning_rate: float = 0.03
    """Of Adam, constant; L-BFGS searches along lines."""

    def check(self) -> None:
        super().check()
        if not self.problems or len(set(self.problems)) < len(self.problems):
            raise InputError(f"--problems expects different problems; got {' '.join(self.problems) or 'none'}")
        for name, least in (("rows", 50), ("half_steps", 1), ("passes", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} must be at least {least}; got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--learning-rate must be positive; got {self.learning_rate}")

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        return super().selected(rows[rows["problem"].isin(self.problems)])


def methods(problem: Problem) -> tuple[Method, ...]:
    """Those that there are for it: a mixture has no closed form."""
    return ("EM", "Adam", "L-BFGS") if problem in MIXTURES else get_args(Method)


def compute(settings: Settings) -> Iterator[kit.Task]:
    """For each seed and problem: EM's half steps, and every method's race."""
    for seed in settings.seeds:
        for problem in settings.problems:
            key: Row = {"data": settings.data, "data_hash": "generated", "seed": seed, "problem": problem}
            yield kit.Task({**key, "method": "half steps"}, partial(_half_steps, settings, problem, seed))
            for method in methods(problem):
                label = f"{problem}, {method}, seed {seed}" if method in ("Adam", "L-BFGS") else ""
                yield kit.Task({**key, "method": method}, partial(_race, settings, problem, method, seed), label)


def _half_steps(settings: Settings, problem: Problem, seed: int) -> Row:
    from studies.em_as_elbo_ask import half_steps

    return half_steps(settings, problem, seed)


def _race(settings: Settings, problem: Problem, method: Method, seed: int) -> Row:
    from studies.em_as_elbo_ask import race

    return race(settings, problem, method, seed)


def series(cell: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The numbers of a curve, kept in one cell."""
    return np.array([float(number) for number in str(cell).split()])


def arrivals(df: pd.DataFrame) -> pd.DataFrame:
    """For each problem, method and seed: passes and CPU seconds to :data:`NEAR` of the best that any method found.

    Infinite where a method did not arrive; between the points of the curve that are kept the later one counts.
    """
    import pandas as pd

    found = []
    for (problem, seed), of in df[df["method"] != "half steps"].groupby(["problem", "seed"], sort=False):
        top = of["best"].max()
        for _, row in of.iterrows():
            values, passes, seconds = (series(row[name]) for name in ("values", "passes", "clock"))
            there = np.flatnonzero(values >= top - NEAR)
            found.append(
                {
                    "problem": problem,
                    "seed": seed,
                    "method": row["method"],
                    "short": top - row["best"],
                    "passes": passes[there[0]] if len(there) else math.inf,
                    "seconds": seconds[there[0]] if len(there) else math.inf,
                }
            )
    return pd.DataFrame(found)


def median(found: pd.DataFrame, problem: str, method: str, column: str) -> float:
    """Over seeds, of a column of :func:`arrivals`."""
    return float(found[(found["problem"] == problem) & (found["method"] == method)][column].median())


def table(df: pd.DataFrame) -> Group:
    """One line a problem and method: how soon it is near the maximum; below, EM's half steps."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=f"From a shared start to within {NEAR:g} nats of the maximum", title_justify="left")
    for header in ("problem", "method"):
        shown.add_column(header, no_wrap=True)
    for header in ("passes over the data", "range", "CPU ms", "range", "short of the best, nats"):
        shown.add_column(header, justify="right", no_wrap=True)
    found = arrivals(df)
    for problem in df["problem"].unique():
        for method in methods(problem):
            of = found[(found["problem"] == problem) & (found["method"] == method)]
            cells = []
            for column, unit, form in (("passes", 1, ".0f"), ("seconds", 1000, ".1f")):
                numbers = of[column] * unit
                median = numbers.median()
                cells.append("not there" if math.isinf(median) else f"{median:{form}}")
                cells.append("" if math.isinf(numbers.min()) else f"{numbers.min():{form}} to {numbers.max():{form}}")
            shown.add_row(LABELS[problem], method, *cells, f"{of['short'].median():.0e}")
    half, lines = df[df["method"] == "half steps"], []
    for problem in half["problem"].unique():
        of = half[half["problem"] == problem]
        lines.append(
            f"{LABELS[problem]}: after E-steps the bound is log p(x) to {of['touching'].max():.0e}; the first M-step "
            f"leaves a gap of {of['first_gap'].min():.2g} to {of['first_gap'].max():.2g} nats, "
            f"KL(old ‖ new posterior) to {of['gap_is_kl'].max():.0e}"
        )
    return Group(shown, Text("EM, half step by half step\n" + "\n".join(lines)))


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """What coordinate ascent promises, to rounding; and who is faster where."""
    half, found, arrived = df[df["method"] == "half steps"], [], arrivals(df)
    for problem in half["problem"].unique():
        of, name = half[half["problem"] == problem], LABELS[problem]
        touching, raised = of["touching"].max(), of["raised"].min()
        claim = f"{name}: after every E-step the bound touches log p(x) (to {touching:.0e} nats)"
        found.append(kit.Check(claim, bool(touching < ROUNDING), f"below {ROUNDING:.0e}", f"{touching:.0e}"))
        claim = f"{name}: no M-step lowers the bound (least change {raised:+.0e})"
        found.append(kit.Check(claim, bool(raised > -ROUNDING), f"above −{ROUNDING:.0e}", f"{raised:+.0e}"))
        claim = f"{name}: the gap after M-steps is KL(old ‖ new posterior) (to {of['gap_is_kl'].max():.0e})"
        found.append(kit.Check(claim, bool(of["gap_is_kl"].max() < ROUNDING)))
        claim = f"{name}: the first M-step opens a gap ({of['first_gap'].min():.1e} nats or more)"
        found.append(kit.Check(claim, bool(of["first_gap"].min() > 1e-6)))
        claim = f"{name}: log p(x) never falls (largest fall {of['fallen'].max():+.0e})"
        found.append(kit.Check(claim, bool(of["fallen"].max() < ROUNDING)))
        ends = arrived[(arrived["problem"] == problem) & arrived["method"].isin(["EM", "L-BFGS", "closed form"])]
        claim = f"{name}: EM, L-BFGS{'' if problem in MIXTURES else ' and closed form'} end alike"
        short = ends["short"].max()
        found.append(kit.Check(f"{claim} (within {short:.0e} nats)", bool(short < SAME)))
    for problem, faster, slower in (
        ("separated", "EM", "L-BFGS"),
        ("overlapping", "L-BFGS", "EM"),
        ("noisy", "EM", "L-BFGS"),
        ("quiet", "L-BFGS", "EM"),
        ("quiet", "expanded EM", "L-BFGS"),
    ):
        if problem not in set(half["problem"]):
            continue
        fast, slow = (median(arrived, problem, method, "passes") for method in (faster, slower))
        claim = f"{LABELS[problem]}: {faster} needs fewer passes than {slower} ({fast:.0f} against {slow:.0f})"
        found.append(kit.Check(claim, bool(fast < slow), "fewer", f"{fast:.0f} against {slow:.0f}"))
    return found


def figure(df: pd.DataFrame) -> Figure:
    """Above: bound and log p(x) half step by half step. Below: distance from the maximum against CPU time."""
    from studies.em_as_elbo_figure import em_as_elbo_figure

    return em_as_elbo_figure(df)


STUDY = kit.Study("em_as_elbo", __doc__, Settings, ("problem", "method"), compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
