"""Is maximising a flow's likelihood the same as maximising the ELBO of a VAE with delta encoder and decoder?

Claim: the lecture's theorem. With q(z|x) = δ(z − f(x)) and p(x|z) = δ(x − g(z)), g = f⁻¹, the ELBO is log p(x): as a
    value, as a gradient, along training. The deltas are limits: with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ),
    J = ∂f/∂x, the ELBO and its gradient tend to those of log p(x) as σ².

Paper: Nielsen et al. 2020 (SurVAE Flows), section 2.

Command: python -m studies.equivalence

Run time: 3 minutes on one core (--quick: 15 seconds)

Expected: the worst of seeds 0, 1, 2. Value and gradient are relative to the largest; "weights" are the largest
    difference from those of training by log p(x) after 200 steps of Adam, of training by the ELBO and, to compare with,
    by log p(x) with the rows in another order; powers of σ are means over seeds. Required: 1e-12, 1e-10, no more than
    100 times what the order of rows does, 2 ± 0.05.

    =======================  ======  ========  =============  ===========  ======  ===========
    flow                     value   gradient  weights, ELBO  other order  power   of gradient
    =======================  ======  ========  =============  ===========  ======  ===========
    LU-linear                2e-16   1e-15     3e-15          3e-15        2.0000  2.0000
    affine coupling          3e-17   8e-16     5e-08          2e-09        2.0009  2.0016
    LU + coupling            1e-16   1e-15     8e-07          3e-06        1.9996  1.9986
    autoregressive           2e-16   6e-16     5e-08          1e-07        1.9998  1.9992
    inverse autoregressive   1e-16   3e-15     7e-07          1e-07        1.9993  1.9983
    =======================  ======  ========  =============  ===========  ======  ===========

    What rounding does to weights after a long training is of that size, and another number on another machine.

Answer: yes. Value and gradient agree to rounding, and so do trainings for a hundred steps. Then Adam amplifies
    rounding, by as much where nothing but the order of rows differs, and ends within 1e-6 while weights move by up to
    2. With Gaussians of width 0.1 for the deltas the weights part ways at once, by 0.4 or more in flows that bend.
    Value and gradient of the ELBO tend to those of log p(x) as σ², for five architectures, from σ = 0.001 to 0.03.
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

FlowName = Literal["linear", "coupling", "glow", "maf", "iaf"]
LABELS = {
    "linear": "LU-linear",
    "coupling": "affine coupling",
    "glow": "LU + coupling",
    "maf": "autoregressive (MAF)",
    "iaf": "inverse autoregr. (IAF)",
}
# Both sides do some hundred operations through layers of condition up to some tens: rounding of 2e-16 becomes 1e-14;
# the margin is 100. Gradients add as much again. Over a training, rounding is what another order of rows does; the two
# are of one size, and by chance either may be some tens of times the other.
VALUE, GRADIENT, ROUNDING = 1e-12, 1e-10, 100.0
SLOPE_TOLERANCE = 0.05
SMALL = 0.03  # σ up to which the rate is fitted: beyond, the next power, σ⁴, may be seen


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Random flows at random points."""

    data: Literal["random"] = field(default="random", metadata=OF_THE_RUN)
    """The theorem holds at any point and any parameters; both are random."""
    seeds: tuple[int, ...] = field(default=(0, 1, 2), metadata={**OF_THE_RUN, **quick((0,))})
    """Each seed is another flow at other points."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    flows: tuple[FlowName, ...] = field(default=get_args(FlowName), metadata=OF_THE_RUN)
    """Which architectures."""
    sigmas: tuple[float, ...] = field(
        default=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), metadata={**OF_THE_RUN, **quick((1e-3, 1e-2, 1e-1))}
    )
    """Widths of the Gaussians that tend to deltas, in the units of the data, whose scale is about 1."""
    features: int = 3
    """Width of the data."""
    layers: int = 4
    """Of each flow but the linear one."""
    hidden: tuple[int, ...] = (16, 16)
    """Widths of hidden layers."""
    spread: float = 0.2
    """Standard deviation of what is added to every parameter of a new flow, so that it is no identity."""
    points: int = field(default=128, metadata=quick(64))
    """How many points."""
    steps: int = field(default=200, metadata=quick(30))
    """Steps of Adam on all points."""
    learning_rate: float = 0.01
    """Of Adam."""
    width: float = 0.1
    """σ of the training that is meant to differ: Gaussians instead of deltas."""

    def check(self) -> None:
        super().check()
        for name, least in (("features", 2), ("layers", 2), ("points", 2), ("steps", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}; got {getattr(self, name)}")
        if not self.flows or len(set(self.flows)) < len(self.flows):
            raise InputError(f"--flows expects different flows; got {' '.join(self.flows) or 'none'}")
        if not all(0 < sigma < math.inf for sigma in (*self.sigmas, self.width, self.learning_rate)):
            raise InputError("--sigmas, --width and --learning-rate must be positive")
        if len(set(self.sigmas)) < max(2, len(self.sigmas)):
            raise InputError(f"--sigmas expects two or more different widths; got {self.sigmas}")

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows = super().selected(rows[rows["flow"].isin(self.flows)])
        return rows[rows["sigma"].isna() | rows["sigma"].isin(self.sigmas)]


def compute(settings: Settings) -> Iterator[kit.Task]:
    """For each seed and flow: the theorem, a training, and a row for each σ."""
    for seed in settings.seeds:
        for flow in settings.flows:
            key: Row = {"data": settings.data, "data_hash": "generated", "seed": seed, "flow": flow}
            named = f"{flow}, seed {seed}"
            work = partial(_measure, settings, "theorem", flow, seed)
            yield kit.Task({**key, "part": "theorem", "sigma": ""}, work)
            work = partial(_measure, settings, "path", flow, seed)
            yield kit.Task({**key, "part": "path", "sigma": ""}, work, f"training, {named}")
            for sigma in settings.sigmas:
                work = partial(_measure, settings, "limit", flow, seed, sigma)
                yield kit.Task({**key, "part": "limit", "sigma": sigma}, work)


def _measure(settings: Settings, part: str, flow: FlowName, seed: int, sigma: float = 0.0) -> Row:
    from studies import equivalence_ask as ask

    if part == "theorem":
        return ask.theorem(settings, flow, seed)
    return ask.path(settings, flow, seed) if part == "path" else ask.limit(settings, flow, sigma, seed)


def slopes(df: pd.DataFrame, column: str) -> pd.Series[float]:
    """Power of σ by least squares in logarithms up to :data:`SMALL`, for each flow and seed."""
    small = df[(df["part"] == "limit") & (df["sigma"] <= SMALL)]

    def power(rows: pd.DataFrame) -> float:
        return float(np.polyfit(np.log(rows["sigma"]), np.log(rows[column]), 1)[0]) if len(rows) > 1 else math.nan

    return small.groupby(["flow", "seed"], sort=False)[["sigma", column]].apply(power)


def series(cell: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The numbers of a curve, kept in one cell."""
    return np.array([float(number) for number in str(cell).split()])


def endings(df: pd.DataFrame) -> pd.DataFrame:
    """What every training ended with: one row a flow and seed."""
    paths = df[df["part"] == "path"].set_index(["flow", "seed"])
    return paths[["moved", "elbo", "reordered", "relaxed"]].map(lambda cell: series(cell)[-1])


def table(df: pd.DataFrame) -> Group:
    """One line a flow: the largest error over seeds, and the rates of the limit."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="The worst of all seeds; slopes: mean ± half the range", title_justify="left")
    shown.add_column("flow", no_wrap=True)
    headers = ("value", "gradient", "weights moved", "weights: ELBO", "other order", "σ > 0", "slope", "of gradient")
    for header in headers:
        shown.add_column(header, justify="right", no_wrap=True)
    facts, ends = df[df["part"] == "theorem"], endings(df)
    rates = {column: slopes(df, column) for column in ("relaxed_error", "relaxed_gradient_error")}
    for flow in facts["flow"].unique():
        worst, end = facts[facts["flow"] == flow], ends.loc[flow]
        cells = [f"{worst[name].max():.0e}" for name in ("value_error", "gradient_error")]
        cells += [f"{end['moved'].min():.2f}", *(f"{end[name].max():.0e}" for name in ("elbo", "reordered"))]
        cells += [f"{end['relaxed'].min():.0e}"]
        for of in rates.values():
            rate = of[flow]
            cells.append(f"{rate.mean():.4f} ± {(rate.max() - rate.min()) / 2:.4f}")
        shown.add_row(LABELS[flow], *cells)
    notes = (
        "value: |ELBO − log p(x)| relative to the largest |log p(x)|; gradient: largest difference relative to its "
        "largest entry; weights: largest difference from training by log p(x) after the last step, of training by the "
        "ELBO, by log p(x) with the rows in another order, and by Gaussians of width σ instead of deltas."
    )
    return Group(shown, Text(notes))


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """The theorem to rounding, flow by flow, and σ² for the limit."""
    facts, ends, found = df[df["part"] == "theorem"], endings(df), []
    spread = facts["log_weight_spread"].max()
    found.append(kit.Check(f"every log-weight of a point is the same (largest difference {spread:.0e})", spread == 0))
    for flow in facts["flow"].unique():
        worst, end = facts[facts["flow"] == flow], ends.loc[flow]
        value, gradient = worst["value_error"].max(), worst["gradient_error"].max()
        claim = f"{flow}: ELBO is log p(x) to {VALUE:.0e} ({value:.0e})"
        found.append(kit.Check(claim, bool(value <= VALUE), f"below {VALUE:.0e}", f"{value:.0e}"))
        found.append(
            kit.Check(f"{flow}: gradients are equal to {GRADIENT:.0e} ({gradient:.0e})", bool(gradient <= GRADIENT))
        )
        ratio = (end["elbo"] / end["reordered"]).max()
        held = bool(ratio <= ROUNDING)
        claim = (
            f"{flow}: trainings differ by no more than {ROUNDING:.0f} times what the order of rows does ({ratio:.1f})"
        )
        found.append(kit.Check(claim, held))
        contrast = (end["relaxed"] / end["elbo"]).min()
        claim = f"{flow}: Gaussians instead of deltas part ways 10⁴ times as far, at least ({contrast:.0e})"
        found.append(kit.Check(claim, bool(contrast >= 1e4)))
        for what, column in (("ELBO", "relaxed_error"), ("its gradient", "relaxed_gradient_error")):
            rate = slopes(df, column)[flow]
            off = (rate - 2).abs().max()
            claim = f"{flow}: {what} tends to its limit as σ² (powers {rate.min():.4f} to {rate.max():.4f})"
            passed, wanted = bool(off <= SLOPE_TOLERANCE), f"2 ± {SLOPE_TOLERANCE}"
            found.append(kit.Check(claim, passed, wanted, f"{rate.mean():.4f}"))
    return found


def figure(df: pd.DataFrame) -> Figure:
    """Left: weights of other trainings against those by likelihood. Right: the limit of small σ."""
    from studies.equivalence_figure import equivalence_figure

    return equivalence_figure(df)


STUDY = kit.Study("equivalence", __doc__, Settings, ("flow", "part", "sigma"), compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
