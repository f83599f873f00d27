"""What the rows of `gradient_estimators` say: table, checks and figure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from significance import Kind, Statement, verdicts
from studies.gradient_estimators.settings import DRAWS, PLAIN, TRAINED, WEIGHTED
from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels, ranges
from studies.kit.study import PASSED, Check, Finding
from studies.kit.tables import empty, power, series

EXACT_AT_POSTERIOR = ("leave-one-out", "sticking the landing")
SIGMAS = 4.0  # of the bias' norm, whose root mean square is 1 without a bias; by chance less than once in 100 studies
VISIBLE = 10.0  # times the error: what counts as a bias seen
POWER_TOLERANCE = 0.1
LARGE = 16  # K from which powers are fitted: the theorem is about K → ∞
EXPECTED_POWERS = {
    ("importance weighted", "phi"): -0.5,
    ("importance weighted", "theta"): 0.5,
    ("doubly reparametrised", "phi"): 0.5,
    ("doubly reparametrised", "theta"): 0.5,
}
NAMES = {"phi": "encoder", "theta": "decoder"}
ROUNDING = 1e-20  # of a variance of what is 1e-15 of gradients of size 1 to 100, squared, and some


def powers(rows: pd.DataFrame, offset: float, estimator: str, part: str) -> pd.Series[float]:
    """Power of large K in an estimator's signal-to-noise ratio at that offset, for each seed."""
    mine = rows[(rows["part"] == "quality") & (rows["estimator"] == estimator) & (rows["offset"] == offset)]
    seeds = mine[mine["draws"] >= LARGE].groupby("seed", sort=False)
    return pd.Series([power(of["draws"], of[f"{part}_snr"]) for _, of in seeds], dtype=float)


def offsets(rows: pd.DataFrame) -> list[float]:
    """The two at which the weighted bounds were measured: near and far."""
    weighted = rows[rows["estimator"].isin(WEIGHTED)]
    return sorted(float(offset) for offset in weighted["offset"].unique())


def _excess(rows: pd.DataFrame, part: str) -> pd.Series[float]:
    """The bias in units of its error; 0 where both are rounding."""
    noisy = rows[f"{part}_bias_se"] > math.sqrt(ROUNDING)
    return (rows[f"{part}_bias"] / rows[f"{part}_bias_se"]).where(noisy, 0.0)


def table(rows: pd.DataFrame) -> Group:
    """Bias and variance of every estimator at one offset; below, powers of K."""
    near, far = offsets(rows)
    quality = rows[(rows["part"] == "quality") & (rows["offset"] == far)]
    headers = ("K", "aims at", "bias / signal", "bias / its error", "variance", "signal to noise")
    shown = empty(f"Encoder's gradient at offset {far}, means over seeds", ["estimator"], headers)
    for name in (*PLAIN, *WEIGHTED):
        draws = DRAWS if name in PLAIN else 16
        of = quality[(quality["estimator"] == name) & (quality["draws"] == draws)]
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
    for estimator, part in EXPECTED_POWERS:
        here, there = (powers(rows, offset, estimator, part) for offset in (near, far))
        error = f" ± {here.std() / len(here) ** 0.5:.3f}" if len(here) > 1 else ""
        who = f"{estimator}, {NAMES[part]}"
        words.append(f"{who}: K^({here.mean():.3f}{error}) at offset {near}, K^({there.mean():.3f}) at {far}")
    return Group(shown, Text(f"Signal to noise for K ≥ {LARGE}, ± standard error over seeds\n" + "\n".join(words)))


def checks(rows: pd.DataFrame) -> list[Check]:
    """Biases where they should be and nowhere else; noise gone at the posterior; powers of K; what training ends at."""
    quality, found = rows[rows["part"] == "quality"], list[Check]()
    biased = (quality["estimator"] == "wrong") | (
        (quality["estimator"] == "sticking, weighted") & (quality["draws"] > 1)
    )
    worst = max(_excess(quality[~biased], "phi").max(), _excess(quality, "theta").max())
    claim = f"every other estimator is unbiased, encoder and decoder (largest bias: {worst:.1f} of its errors)"
    found.append(Check(claim, bool(worst < SIGMAS), f"below {SIGMAS:g} errors", f"{worst:.1f}"))
    wrong = quality[quality["estimator"] == "wrong"]
    away = wrong[wrong["offset"] > 0]
    least, alone = (away["phi_bias"] / away["phi_signal"]).min(), wrong["phi_from_kl_alone"].max()
    claim = f"away from the posterior the wrong gradient is off by half the right one or more (least {least:.2f})"
    found.append(Check(claim, bool(least > 0.5), "above 0.5", f"{least:.2f}"))
    claim = f"the wrong gradient is that of the KL term alone, without noise (to {alone:.0e})"
    found.append(Check(claim, bool(alone < 1e-9), "below 1e-9", f"{alone:.0e}"))
    sticking = _excess(quality[(quality["estimator"] == "sticking, weighted") & (quality["draws"] > 1)], "phi").min()
    claim = f"sticking the landing with weights is biased for K > 1 (least: {sticking:.0f} errors)"
    found.append(Check(claim, bool(sticking > VISIBLE), f"above {VISIBLE:g} errors", f"{sticking:.0f}"))
    for name in EXACT_AT_POSTERIOR:
        at = quality[(quality["estimator"] == name) & (quality["offset"] == 0)]["phi_variance"].max()
        found.append(Check(f"{name}: no variance where q is the posterior ({at:.0e})", bool(at < ROUNDING)))
    near, far = offsets(rows)
    for (name, part), expected in EXPECTED_POWERS.items():
        found_powers = powers(rows, near, name, part)
        least, most = found_powers.min(), found_powers.max()
        off = (found_powers - expected).abs().max()
        claim = f"{name}, {NAMES[part]}: signal to noise as K^({expected:+}), measured {least:+.3f} to {most:+.3f}"
        wanted, measured = f"{expected:+} ± {POWER_TOLERANCE}", f"{found_powers.mean():+.3f}"
        found.append(Check(claim, bool(off < POWER_TOLERANCE), wanted, measured))
    found += far_away(rows, far)
    training = rows[rows["part"] == "training"].set_index("estimator")
    for name in EXACT_AT_POSTERIOR:
        gap = training.loc[[name], "last_gap"].max()
        found.append(Check(f"{name}: training closes the gap ({gap:.1e} nats)", bool(gap < 1e-2)))
    lost = training.loc[["wrong"]]
    off = ((lost["last_gap"] - lost["kl_prior_posterior"]).abs() / lost["kl_prior_posterior"]).max()
    claim = f"trained by the wrong gradient the encoder ends at the prior: gap {lost['last_gap'].min():.2f} nats"
    found.append(Check(f"{claim} or more, KL(prior‖posterior) to {off:.0e}", bool(off < 0.05)))
    return found


def far_away(rows: pd.DataFrame, offset: float) -> list[Finding]:
    """Whether the ratios grow and fall with K as the theorem says, at an offset where it need not hold; by Holm."""
    known = {key: powers(rows, offset, *key) for key in EXPECTED_POWERS}
    family = [
        Statement(
            Kind.EXACT, math.copysign(1, EXPECTED_POWERS[key]) * of.mean(), of.std() / math.sqrt(len(of)), len(of) - 1
        )
        for key, of in known.items()
    ]
    found = []
    for ((name, part), of), sign in zip(known.items(), verdicts(family), strict=True):
        expected = EXPECTED_POWERS[name, part]
        claim = f"{name}, {NAMES[part]}: signal to noise {'grows' if expected > 0 else 'falls'} with K far from it too"
        error = f" ± {of.std() / math.sqrt(len(of)):.3f}" if len(of) > 1 else ""
        found.append(Finding(claim, PASSED[sign], f"K^({expected:+})", f"K^({of.mean():+.3f}{error})"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Left: signal to noise of gradients against the number of draws K, near the posterior and far from it. Middle: the
    variance of estimators against the distance from the posterior. Right: the gap along training by each.
    """
    with panels(3, width=14) as (drawn, (left, middle, right)):
        _ratios(left, rows)
        _variances(middle, rows)
        _trainings(right, rows)
        near, far = offsets(rows)
        means = {key: powers(rows, near, *key).mean() for key in EXPECTED_POWERS}
        lost = rows[(rows["part"] == "training") & (rows["estimator"] == "wrong")]
        words = (
            f"Importance weighting costs the encoder its signal, K^({means['importance weighted', 'phi']:.2f}), and "
            f"gives it to the decoder, K^({means['importance weighted', 'theta']:.2f}); doubly reparametrised, the "
            f"encoder's grows too, K^({means['doubly reparametrised', 'phi']:.2f}), near the posterior (solid, offset "
            f"{near}) but not far from it (dashed, {far}). The wrong gradient has the least noise and the wrong "
            f"limit: the prior, {lost['last_gap'].mean():.1f} nats below log p(x). Linear VAE; "
            f"{int(rows['repeats'].max()):,} gradients each; medians and ranges over {rows['seed'].nunique()} seeds."
        )
        caption(drawn, words)
    return drawn


def _ratios(axes: Axes, rows: pd.DataFrame) -> None:
    lines = (
        ("importance weighted", "theta", "decoder, weighted bound"),
        ("doubly reparametrised", "phi", "encoder, doubly reparametrised"),
        ("importance weighted", "phi", "encoder, importance weighted"),
    )
    near, far = offsets(rows)
    quality = rows[rows["part"] == "quality"]
    for index, (name, part, label) in enumerate(lines):
        of = quality[quality["estimator"] == name]
        for offset, shown, line in ((near, label, "-"), (far, None, "--")):
            ranges(axes, of[of["offset"] == offset], "draws", f"{part}_snr", index, shown, line, capsize=2)
    axes.set(xscale="log", yscale="log", xlabel="draws K", ylabel="signal-to-noise ratio of the gradient")
    for offset, line in ((near, "-"), (far, "--")):
        axes.plot([], [], color="0.3", linestyle=line, label=f"{offset:g} from the posterior")
    axes.set_title("Signal to noise", loc="left", fontweight="bold")
    legend_below(axes, 1)


def _variances(axes: Axes, rows: pd.DataFrame) -> None:
    away = rows[(rows["part"] == "quality") & (rows["offset"] > 0)]
    for index, name in enumerate(PLAIN[:-1]):
        ranges(axes, away[away["estimator"] == name], "offset", "phi_variance", index, name, capsize=2)
    axes.set(xscale="log", yscale="log", xlabel="offset of the encoder from the posterior")
    axes.set_ylabel(f"variance of its gradient, K = {DRAWS}")
    axes.set_title("ELBO, unbiased estimators", loc="left", fontweight="bold")
    legend_below(axes, 1)


def _trainings(axes: Axes, rows: pd.DataFrame) -> None:
    rows = rows[rows["part"] == "training"]
    colors = {"leave-one-out": 1, "reparametrised": 2, "sticking the landing": 4, "wrong": 7}
    for name in TRAINED:
        of = rows[rows["estimator"] == name]
        steps = series(of["steps"].iloc[0])
        gaps = np.stack([series(cell) for cell in of["gaps"]]).clip(1e-9)
        color, marker = PALETTE[colors[name]], MARKERS[colors[name]]
        axes.fill_between(1 + steps, gaps.min(0), gaps.max(0), color=color, alpha=0.2, linewidth=0)
        label = "wrong: ∇φ moved inside E$_q$" if name == "wrong" else name
        axes.plot(1 + steps, np.median(gaps, 0), color=color, marker=marker, markersize=5, label=label)
    axes.set(xscale="log", yscale="log", xlabel="1 + steps of Adam", ylabel="log p(x) − ELBO, nats")
    axes.set_ylim(1e-7, 100)
    axes.set_title("Training the encoder", loc="left", fontweight="bold")
    legend_below(axes, 1)
