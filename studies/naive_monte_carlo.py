"""How many draws from the prior does log p(x) take, and what does the lecture's average of log p(x|z) converge to?

Claim: the average of log p(x|z) over draws from the prior is not log p(x) at any number of draws K: it falls short by
    KL(p(z) ‖ p(z|x)). The log-mean-exp converges, but only with K of the order of exp(KL(p(z|x) ‖ p(z))), which grows
    exponentially with the number of latents. An encoder's draws, weighted, need about exp(KL(p(z|x) ‖ q(z|x))).

Paper: Chatterjee & Diaconis 2018 (the sample size required in importance sampling).

Command: python -m studies.naive_monte_carlo

Run time: 35 seconds on one core (--quick: 10 seconds)

Expected: seed 0, means ± standard errors over 256 points, nats; K is the number of draws to within 0.5 nats.

    =======  ================  =====================  ================  =============  =======  ==========
    latents  KL(post ‖ prior)  the average misses     KL(prior ‖ post)  K, prior       exp(KL)  K, encoder
    =======  ================  =====================  ================  =============  =======  ==========
    1        0.80              3.18 ± 0.18            3.17              6 ± 2          2        ≤ 2
    2        1.46              6.43 ± 0.28            6.44              14 ± 4         4        ≤ 2
    4        3.01              13.25 ± 0.41           13.27             74 ± 19        20       ≤ 2
    6        4.37              18.92 ± 0.48           18.93             279 ± 145      79       ≤ 2
    8        5.92              26.17 ± 0.63           26.17             1,458 ± 392    373      ≤ 2
    10       7.37              32.56 ± 0.64           32.57             7,755 ± 1,846  1,594    ≤ 2
    =======  ================  =====================  ================  =============  =======  ==========

    Draws needed from the prior grow as exp(KL) to the power 1.08 ± 0.04 (within 0.25 of 1 is required). With exp(KL) of
    them log p(x) is missed by 1.14 to 1.90 nats. 128 draws of the encoder miss 0.023 nats at most.

Answer: the average of log p(x|z) stays KL(prior ‖ posterior) below log p(x), from two draws to 2,048: 32.6 nats at ten
    latents. The log-mean-exp gets there, at a price that grows fivefold with every two latents; in units of exp(KL) the
    price is the same for all, a shortfall of 1 to 2 nats at K = exp(KL). That the power is a little above 1 is
    what fluctuations of the log-weights, which grow as the square root of the KL, add. An encoder that is 0.13 nats off
    for each pair of latents needs two draws where the prior needs thousands.
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

Method = Literal["average", "prior", "encoder"]
KEY = ("latents", "method", "draws")
LABELS = {
    "average": "average of log p(x|z), prior",
    "prior": "log-mean-exp of p(x|z), prior",
    "encoder": "log-mean-exp of weights, encoder",
}
MOST = {"average": 2048, "prior": math.inf, "encoder": 2048}  # draws beyond which nothing is left to see
ENOUGH = 0.5  # nats of shortfall at which draws count as enough
SIGMAS = 4.5  # standard errors: with some 40 comparisons a study, one in 3,000 studies is wrong by chance
RATE = 0.25  # by which the power of exp(KL) may differ from 1: fluctuations of log-weights grow as √q beside the KL
LEFT = (0.5, 2.5)  # nats: what "of the order of exp(KL) draws" is taken to mean
FAR = 0.1  # nats of shortfall that the encoder's draws may leave at 128 draws and more


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Linear models with exact log p(x), and points simulated from them."""

    data: Literal["linear"] = field(default="linear", metadata=OF_THE_RUN)
    """Simulated from the models themselves, whose log p(x) and posterior are known."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    latents: tuple[int, ...] = field(default=(1, 2, 3, 4, 6, 8, 10), metadata={**OF_THE_RUN, **quick((1, 2, 4, 6))})
    """Latent dimensions q."""
    draws: tuple[int, ...] = field(
        default=(2, 8, 32, 128, 512, 2048, 8192, 32768), metadata={**OF_THE_RUN, **quick((2, 8, 32, 128, 512, 2048))}
    )
    """Draws K for each point."""
    features: int = 32
    """Width of the data."""
    signal: float = 2.0
    """Standard deviation of what each latent adds to x, in units of the noise."""
    correlation: float = 0.6
    """Between the columns of W in each pair, so that a diagonal encoder is not exact."""
    points: int = field(default=256, metadata=quick(128))
    """How many x, each with draws of its own."""

    def check(self) -> None:
        super().check()
        for name, least in (("latents", 1), ("draws", 2)):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < least:
                raise InputError(f"--{name} expects different integers from {least} up; got {chosen}")
        if max(self.latents) > self.features:
            raise InputError(f"--features must be at least the largest of --latents; got {self.features}")
        if self.points < 2:
            raise InputError(f"--points must be at least 2; got {self.points}")
        if not 0 < self.signal < math.inf or not 0 <= self.correlation < 1:
            raise InputError("--signal must be positive and --correlation in [0, 1)")

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows = super().selected(rows)
        return rows[rows["latents"].isin(self.latents) & rows["draws"].isin(self.draws)]


def compute(settings: Settings) -> Iterator[kit.Task]:
    """A row for each seed, latent dimension, estimator and number of draws."""
    for seed in settings.seeds:
        for latents in settings.latents:
            for method in get_args(Method):
                for draws in settings.draws:
                    if draws > MOST[method]:
                        continue
                    key: Row = {"data": settings.data, "data_hash": "generated", "seed": seed}
                    work = partial(_estimate, settings, latents, method, draws, seed)
                    label = f"{latents} latents, {draws} draws, {method}" if draws > 2048 else ""
                    yield kit.Task({**key, "latents": latents, "method": method, "draws": draws}, work, label)


def _estimate(settings: Settings, latents: int, method: Method, draws: int, seed: int) -> Row:
    from studies.naive_monte_carlo_ask import estimate

    return estimate(settings, latents, method, draws, seed)


def draws_needed(df: pd.DataFrame, method: str) -> pd.DataFrame:
    """For each latent dimension log K at which the shortfall falls to :data:`ENOUGH`, by interpolation, and its error.

    NaN where no K was enough, or the least already was (``at_once``). The error is that of the shortfall over its slope
    in log K.
    """
    import pandas as pd

    found = []
    for latents, rows in df[df["method"] == method].groupby("latents"):
        means = rows.groupby("draws")[
            ["shortfall", "shortfall_se", "kl_posterior_prior", "kl_posterior_encoder"]
        ].mean()
        log_draws, short = np.log(means.index.to_numpy(dtype=float)), means["shortfall"].to_numpy()
        below = np.flatnonzero(short <= ENOUGH)
        log_needed = error = math.nan
        if len(below) and below[0] > 0:
            j = below[0]
            share = (short[j - 1] - ENOUGH) / (short[j - 1] - short[j])
            log_needed = log_draws[j - 1] + share * (log_draws[j] - log_draws[j - 1])
            spread = max(means["shortfall_se"].iloc[j - 1 : j + 1]) / math.sqrt(df["seed"].nunique())
            error = spread * (log_draws[j] - log_draws[j - 1]) / (short[j - 1] - short[j])
        of = {"kl": means["kl_posterior_prior"].mean(), "kl_encoder": means["kl_posterior_encoder"].mean()}
        at_once = len(below) > 0 and below[0] == 0
        found.append({"latents": latents, "log_draws": log_needed, "error": error, "at_once": at_once, **of})
    return pd.DataFrame(found).set_index("latents")


def shortfall_at_kl(df: pd.DataFrame) -> pd.Series[float]:
    """Shortfall of the prior's draws at K = exp(KL), by interpolation in log K; NaN outside the range of K."""

    def at(rows: pd.DataFrame) -> float:
        means = rows.groupby("draws")[["shortfall", "kl_posterior_prior"]].mean()
        log_draws = np.log(means.index.to_numpy(dtype=float))
        target = means["kl_posterior_prior"].mean()
        return float(np.interp(target, log_draws, means["shortfall"].to_numpy(), left=math.nan, right=math.nan))

    return df[df["method"] == "prior"].groupby("latents")[["draws", "shortfall", "kl_posterior_prior"]].apply(at)


def power(needed: pd.DataFrame) -> tuple[float, float]:
    """c in K ∝ exp(c · KL) by weighted least squares, and its standard error; NaN with fewer than three points."""
    known = needed.dropna()
    if len(known) < 3:
        return math.nan, math.nan
    weight = 1 / known["error"] ** 2
    centred = known["kl"] - np.average(known["kl"], weights=weight)
    information = float((weight * centred**2).sum())
    return float((weight * centred * known["log_draws"]).sum() / information), 1 / math.sqrt(information)


def table(df: pd.DataFrame) -> Group:
    """One line a latent dimension: the divergences, what the average misses, how many draws are enough."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="Means over points, nats; K: draws until log p(x) is within 0.5 nats", title_justify="left")
    headers = ("latents", "KL(post‖prior)", "average misses", "KL(prior‖post)", "K, prior", "exp(KL)", "K, encoder")
    for header in headers:
        shown.add_column(header, justify="right", no_wrap=True)
    prior, encoder = draws_needed(df, "prior"), draws_needed(df, "encoder")
    averages = df[df["method"] == "average"]
    for (latents, row), (_, near) in zip(prior.iterrows(), encoder.iterrows(), strict=True):
        of = averages[averages["latents"] == latents]
        last = of[of["draws"] == of["draws"].max()]
        shown.add_row(
            str(latents),
            f"{row['kl']:.2f}",
            f"{last['shortfall'].mean():.2f} ± {last['shortfall_se'].mean():.2f}",
            f"{last['kl_prior_posterior'].mean():.2f}",
            _draws(row, df),
            f"{math.exp(row['kl']):,.0f}",
            _draws(near, df),
        )
    rate, error = power(prior)
    at_kl = shortfall_at_kl(df).dropna()
    words = (
        f"Draws needed from the prior grow as exp(KL) to the power {rate:.2f} ± {error:.2f}; "
        f"with exp(KL) of them, log p(x) is missed by {at_kl.min():.2f} to {at_kl.max():.2f} nats."
    )
    return Group(shown, Text(words))


def _draws(needed: pd.Series[float], df: pd.DataFrame) -> str:
    if math.isnan(needed["log_draws"]):
        return f"≤ {df['draws'].min()}" if needed["at_once"] else f"> {df['draws'].max():,}"
    draws = math.exp(needed["log_draws"])
    return f"{draws:,.0f} ± {draws * needed['error']:,.0f}"


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """What the claim says, each with the measured number."""
    import pandas as pd

    average, prior, encoder = (df[df["method"] == method] for method in get_args(Method))
    off = (average["excess"] / average["excess_se"]).abs().max()
    claim = f"the average of log p(x|z) misses KL(prior‖posterior) at every K, within errors (largest: {off:.1f})"
    found = [kit.Check(claim, bool(off < SIGMAS), f"below {SIGMAS} errors", f"{off:.1f}")]
    bounds = pd.concat([prior, encoder])
    bounds = bounds[bounds["shortfall_se"] > 1e-9]  # an exact encoder, of one latent, has no error but rounding
    least = (bounds["shortfall"] / bounds["shortfall_se"]).min()
    found.append(kit.Check(f"no log-mean-exp is above log p(x) but by chance ({least:+.1f} errors)", least > -SIGMAS))
    needed = draws_needed(df, "prior")
    rate, error = power(needed)
    claim = f"draws needed from the prior grow as exp(KL)^c with c within {RATE} of 1 (c = {rate:.2f} ± {error:.2f})"
    found.append(kit.Check(claim, bool(abs(rate - 1) < RATE), f"1 ± {RATE}", f"{rate:.2f} ± {error:.2f}"))
    enough = encoder[encoder["draws"] >= 128]
    worst = enough["shortfall"].max()
    at_kl = shortfall_at_kl(df).dropna()
    claim = f"at K = exp(KL) the prior's draws miss {LEFT[0]} to {LEFT[1]} nats at every number of latents"
    near, measured = bool(at_kl.between(*LEFT).all()), f"{at_kl.min():.2f} to {at_kl.max():.2f}"
    found.append(kit.Check(f"{claim} ({measured})", near, f"{LEFT[0]} to {LEFT[1]}", measured))
    claim = f"128 draws of the encoder are within {FAR} nats for every number of latents (worst {worst:.3f})"
    found.append(kit.Check(claim, bool(worst < FAR), f"below {FAR} nats", f"{worst:.3f}"))
    most = prior["latents"].max()
    pair = prior[(prior["latents"] == most) & (prior["draws"] == 512)], enough[enough["latents"] == most]
    short, near = pair[0]["shortfall"].mean(), pair[1][pair[1]["draws"] == 512]["shortfall"].mean()
    claim = f"at {most} latents and 512 draws the prior's miss {short:.2f} nats, ten times the encoder's ({near:.3f})"
    found.append(kit.Check(claim, bool(short > 10 * near)))
    return found


def figure(df: pd.DataFrame) -> Figure:
    """Shortfalls against draws; against draws in units of exp(KL); draws needed against latents."""
    from studies.naive_monte_carlo_figure import naive_monte_carlo_figure

    return naive_monte_carlo_figure(df)


STUDY = kit.Study("naive_monte_carlo", __doc__, Settings, KEY, compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
