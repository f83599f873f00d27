"""Which estimator of a bound's gradient is unbiased, which is quiet, and what does the lecture's wrong one learn?

Claim: moving ∇φ inside E_q as if q did not depend on φ leaves only the gradient of the KL term: the encoder collapses
    onto the prior. Score-function and reparametrised estimators are unbiased and differ in variance; two of them are
    exact where q is the posterior. With K draws in the importance-weighted bound, the signal-to-noise ratio of the
    encoder's gradient falls as K^(−1/2) while that of the decoder's grows as K^(1/2); doubly reparametrised, both grow.

Paper: Rainforth et al. 2018 (tighter bounds are not necessarily better); Tucker et al. 2019 (doubly reparameterized);
    Roeder et al. 2017 (sticking the landing).

Command: python -m studies.gradient_estimators

Run time: 75 seconds on one core (--quick: 10 seconds)

Expected: powers of K in the signal-to-noise ratio for K ≥ 16, mean ± standard error over seeds 0, 1, 2, whose encoders
    are 0.01 or 0.1 (standard deviation, each parameter) from the posterior; ± 0.1 is required at 0.01.

    ==============================  ================  ======  ===========
    ..                              at 0.01           at 0.1  the theorem
    ==============================  ================  ======  ===========
    importance weighted, encoder    −0.498 ± 0.005    −0.296  −½
    importance weighted, decoder    0.498 ± 0.001     0.273   ½
    doubly reparametrised, encoder  0.493 ± 0.009     −0.177  ½
    doubly reparametrised, decoder  0.504 ± 0.001     0.268   ½
    ==============================  ================  ======  ===========

    Variance of the encoder's gradient at 0.1, two draws: score function 3.64e+03, leave-one-out 220, reparametrised
    11.4, analytic KL 6.34, sticking the landing 0.729. Largest bias of an unbiased estimator: 2.1 of its errors. The
    wrong gradient is that of the KL term to 3e-15 and off by 1.634 times the right one at 0.1; the encoder that it
    trains ends 3.90 nats below log p(x).

Answer: every estimator that should be unbiased is. The wrong gradient has no noise at all and leads to the prior, where
    the gap is KL(prior ‖ posterior). Sticking the landing and leave-one-out lose all noise at the posterior, so that
    training by them closes the gap to rounding, while the reparametrised one hovers near 0.02 nats. The powers of K are
    those of the papers near the posterior, where these measured them. At ten times the distance they are not reached by
    K = 256: the encoder's ratio then falls with K, doubly reparametrised too. And sticking the landing with weights,
    which looks like the best of all by its noise, is off by four times the signal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from studies.kit import old as kit
from studies.kit.errors import InputError
from studies.kit.old import OF_THE_RUN, CommonSettings, quick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

    from studies.kit.rows import Row

KEY = ("part", "estimator", "draws", "offset")
PLAIN = ("score function", "leave-one-out", "reparametrised", "analytic KL", "sticking the landing", "wrong")
WEIGHTED = ("importance weighted", "doubly reparametrised", "sticking, weighted")
TRAINED = ("leave-one-out", "reparametrised", "sticking the landing", "wrong")
EXACT_AT_POSTERIOR = ("leave-one-out", "sticking the landing")
DRAWS = 2  # of estimators that aim at the ELBO: the least that leave-one-out can do with
SIGMAS = 4.0  # of the bias' norm, whose root mean square is 1 without a bias; by chance less than once in 100 studies
VISIBLE = 10.0  # times the error: what counts as a bias seen
SLOPE_TOLERANCE = 0.1
LARGE = 16  # K from which powers are fitted: the theorem is about K → ∞
EXPECTED_SLOPES = {
    ("importance weighted", "phi"): -0.5,
    ("importance weighted", "theta"): 0.5,
    ("doubly reparametrised", "phi"): 0.5,
    ("doubly reparametrised", "theta"): 0.5,
}
ROUNDING = 1e-20  # of a variance of what is 1e-15 of gradients of size 1 to 100, squared, and some


@dataclass(frozen=True)
class Settings(CommonSettings):
    """A linear VAE and a few points simulated from it, its encoder moved away from the posterior."""

    data: Literal["linear"] = field(default="linear", metadata=OF_THE_RUN)
    """Simulated from the model itself, whose ELBO and posterior are known in closed form."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    seeds: tuple[int, ...] = field(default=(0, 1, 2), metadata={**OF_THE_RUN, **quick((0,))})
    """Each seed is another model at other points."""
    offsets: tuple[float, ...] = field(
        default=(0.0, 0.01, 0.03, 0.1, 0.3), metadata={**OF_THE_RUN, **quick((0.0, 0.01, 0.1))}
    )
    """Standard deviations of what is added to every parameter of the encoder, from 0: the posterior."""
    draws: tuple[int, ...] = field(default=(1, 4, 16, 64, 256), metadata={**OF_THE_RUN, **quick((1, 4, 16, 64))})
    """Draws K of the importance-weighted bound."""
    near: float = 0.01
    """Offset at which the powers of K are measured: as in the paper, near the posterior."""
    far: float = 0.1
    """Another one, to see how far the powers hold."""
    repeats: int = field(default=2000, metadata=quick(500))
    """Independent gradients of each estimator."""
    features: int = 6
    """Width of the data."""
    latents: int = 2
    """Latents."""
    signal: float = 2.0
    """Length of the first column of W, in units of the noise; the others are shorter."""
    points: int = 4
    """Points in the mean whose gradient is estimated."""
    start: float = 0.5
    """Offset from which the encoder is trained."""
    rows: int = 1000
    """Points to train it on."""
    steps: int = field(default=1000, metadata=quick(400))
    """Steps of Adam."""
    batch_size: int = 32
    """Points in a step."""
    learning_rate: float = 0.02
    """Of Adam, constant."""

    def check(self) -> None:
        super().check()
        for name, least in (("repeats", 2), ("features", 2), ("latents", 1), ("points", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}; got {getattr(self, name)}")


def compute(settings: Settings) -> Iterator[kit.Task]:
    """For each seed: every estimator at every offset, the weighted bounds for every K, and trainings."""
    for seed in settings.seeds:
        key: Row = {"data": settings.data, "data_hash": "generated", "seed": seed}
        cases = [(name, DRAWS, offset) for name in PLAIN for offset in settings.offsets]
        cases += [
            (name, draws, offset)
            for offset in (settings.near, settings.far)
            for draws in settings.draws
            for name in WEIGHTED
        ]
        for name, draws, offset in cases:
            about: Row = {**key, "part": "quality", "estimator": name, "draws": draws, "offset": offset}
            label = f"{name}, K = {draws}, seed {seed}" if draws >= 64 else ""
            yield kit.Task(about, partial(_quality, settings, name, draws, offset, seed), label)
        for name in TRAINED:
            about = {**key, "part": "training", "estimator": name, "draws": "", "offset": settings.start}
            yield kit.Task(about, partial(_train, settings, name, seed), f"training, {name}, seed {seed}")


def _quality(settings: Settings, name: str, draws: int, offset: float, seed: int) -> Row:
    from studies.gradient_estimators_ask import quality

    return quality(settings, name, draws, offset, seed)


def _train(settings: Settings, name: str, seed: int) -> Row:
    from studies.gradient_estimators_ask import train

    return train(settings, name, seed)


def slopes(df: pd.DataFrame, offset: float) -> pd.DataFrame:
    """Power of large K in the signal-to-noise ratios at that offset: a row for each estimator, part and seed."""
    import pandas as pd

    rows = df[(df["part"] == "quality") & df["estimator"].isin(WEIGHTED) & (df["offset"] == offset)]
    rows = rows[rows["draws"] >= LARGE]
    found = []
    for (name, seed), of in rows.groupby(["estimator", "seed"], sort=False):
        for part in ("phi", "theta"):
            power = np.polyfit(np.log(of["draws"]), np.log(of[f"{part}_snr"]), 1)[0] if len(of) > 1 else math.nan
            found.append({"estimator": name, "seed": seed, "part": part, "slope": float(power)})
    return pd.DataFrame(found)


def offsets(df: pd.DataFrame) -> list[float]:
    """The two at which the weighted bounds were measured: near and far."""
    weighted = df[df["estimator"].isin(WEIGHTED)]
    return sorted(float(offset) for offset in weighted["offset"].unique())


def series(cell: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The numbers of a curve, kept in one cell."""
    return np.array([float(number) for number in str(cell).split()])


def _excess(rows: pd.DataFrame, part: str) -> pd.Series[float]:
    """The bias in units of its error; 0 where both are rounding."""
    noisy = rows[f"{part}_bias_se"] > math.sqrt(ROUNDING)
    return (rows[f"{part}_bias"] / rows[f"{part}_bias_se"]).where(noisy, 0.0)


def table(df: pd.DataFrame) -> Group:
    """Bias and variance of every estimator at one offset; below, powers of K."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    near, far = offsets(df)
    rows = df[(df["part"] == "quality") & (df["offset"] == far)]
    shown = Table(title=f"Encoder's gradient at offset {far}, means over seeds", title_justify="left")
    shown.add_column("estimator", no_wrap=True)
    for header in ("K", "aims at", "bias / signal", "bias / its error", "variance", "signal to noise"):
        shown.add_column(header, justify="right", no_wrap=True)
    for name in (*PLAIN, *WEIGHTED):
        draws = DRAWS if name in PLAIN else 16
        of = rows[(rows["estimator"] == name) & (rows["draws"] == draws)]
        snr = of["phi_snr"].mean()
        shown.add_row(
            name,
            str(draws),
            "ELBO" if name in PLAIN else "weighted bound",
            f"{(of['phi_bias'] / of['phi_signal']).mean():.3f}",
            f"{_excess(of, 'phi').mean():.1f}" if name != "wrong" else "no noise",
            f"{of['phi_variance'].mean():.3g}",
            f"{snr:.3f}" if snr < 1e6 else "no noise",
        )
    words = []
    for estimator, part in EXPECTED_SLOPES:
        here, there = (slope_of(df, offset, estimator, part) for offset in (near, far))
        error = f" ± {here.std() / len(here) ** 0.5:.3f}" if len(here) > 1 else ""
        who = f"{estimator}, {'encoder' if part == 'phi' else 'decoder'}"
        words.append(f"{who}: K^({here.mean():.3f}{error}) at offset {near}, K^({there.mean():.3f}) at {far}")
    return Group(shown, Text(f"Signal to noise for K ≥ {LARGE}, ± standard error over seeds\n" + "\n".join(words)))


def slope_of(df: pd.DataFrame, offset: float, name: str, part: str) -> pd.Series[float]:
    """The powers of one estimator and part, a value for each seed."""
    found = slopes(df, offset)
    return found[(found["estimator"] == name) & (found["part"] == part)]["slope"]


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """Biases where they should be and nowhere else; noise gone at the posterior; powers of K; what training ends at."""
    rows, found = df[df["part"] == "quality"], []
    biased = (rows["estimator"] == "wrong") | ((rows["estimator"] == "sticking, weighted") & (rows["draws"] > 1))
    worst = max(_excess(rows[~biased], "phi").max(), _excess(rows, "theta").max())
    claim = f"every other estimator is unbiased, encoder and decoder (largest bias: {worst:.1f} of its errors)"
    found.append(kit.Check(claim, bool(worst < SIGMAS), f"below {SIGMAS:g} errors", f"{worst:.1f}"))
    wrong = rows[rows["estimator"] == "wrong"]
    away = wrong[wrong["offset"] > 0]
    least, alone = (away["phi_bias"] / away["phi_signal"]).min(), wrong["phi_from_kl_alone"].max()
    claim = f"away from the posterior the wrong gradient is off by half the right one or more (least {least:.2f})"
    found.append(kit.Check(claim, bool(least > 0.5), "above 0.5", f"{least:.2f}"))
    claim = f"the wrong gradient is that of the KL term alone, without noise (to {alone:.0e})"
    found.append(kit.Check(claim, bool(alone < 1e-9), "below 1e-9", f"{alone:.0e}"))
    sticking = _excess(rows[(rows["estimator"] == "sticking, weighted") & (rows["draws"] > 1)], "phi").min()
    claim = f"sticking the landing with weights is biased for K > 1 (least: {sticking:.0f} errors)"
    found.append(kit.Check(claim, bool(sticking > VISIBLE), f"above {VISIBLE:g} errors", f"{sticking:.0f}"))
    for name in EXACT_AT_POSTERIOR:
        at = rows[(rows["estimator"] == name) & (rows["offset"] == 0)]["phi_variance"].max()
        found.append(kit.Check(f"{name}: no variance where q is the posterior ({at:.0e})", bool(at < ROUNDING)))
    near = offsets(df)[0]
    for (name, part), expected in EXPECTED_SLOPES.items():
        slope = slope_of(df, near, name, part)
        off = (slope - expected).abs().max()
        of = "encoder" if part == "phi" else "decoder"
        claim = f"{name}, {of}: signal to noise as K^({expected:+}), measured {slope.min():+.3f} to {slope.max():+.3f}"
        wanted, measured = f"{expected:+} ± {SLOPE_TOLERANCE}", f"{slope.mean():+.3f}"
        found.append(kit.Check(claim, bool(off < SLOPE_TOLERANCE), wanted, measured))
    training = df[df["part"] == "training"].set_index("estimator")
    for name in EXACT_AT_POSTERIOR:
        gap = training.loc[[name], "last_gap"].max()
        found.append(kit.Check(f"{name}: training closes the gap ({gap:.1e} nats)", bool(gap < 1e-2)))
    lost = training.loc[["wrong"]]
    off = ((lost["last_gap"] - lost["kl_prior_posterior"]).abs() / lost["kl_prior_posterior"]).max()
    claim = (
        f"trained by the wrong gradient the encoder ends at the prior: gap {lost['last_gap'].min():.2f} nats or more"
    )
    found.append(kit.Check(f"{claim}, KL(prior‖posterior) to {off:.0e}", bool(off < 0.05)))
    return found


def figure(df: pd.DataFrame) -> Figure:
    """Signal to noise against K; variance against the distance from the posterior; the gap along training."""
    from studies.gradient_estimators_figure import gradient_estimators_figure

    return gradient_estimators_figure(df)


STUDY = kit.Study("gradient_estimators", __doc__, Settings, KEY, compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
