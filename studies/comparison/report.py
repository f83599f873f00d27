"""What the rows of `comparison` say: the lecture's table, checks, and the figure of log-weights and limits."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Decision, decisions, over_seeds
from studies.comparison.settings import Settings
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import averaged, least_points, series, with_error

LABELS = {"vae": "VAE", "flow": "normalizing flow"}
SMALL = 1e-3  # σ up to which the rate is fitted: beyond, some points near the flow's seams are off by more than a nat
SLOPE_TOLERANCE = 0.05
# log|det ∂g/∂z| by autograd and Σ log σ by the layers differ by rounding, 1e-16 times a condition number of some tens,
# added over layers; their gradients by that relative to the largest. The margin is 1e4.
THEOREM_TOLERANCE = 1e-10
# What counts as 0 where a point is computed again: rounding of values up to some ten, 1e-6 and 1e-15, times some tens.
ROUNDING = {"float32": 1e-4, "float64": 1e-12}
BLUE, ORANGE = PALETTE[:2]
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
SHOWN = (0.01, 0.995)  # share of the VAE's log-weights that the axis spans

Model: TypeAlias = "pd.Series[Any]"  # numbers averaged over seeds, and the words of the first


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the relaxed flow, the widths of these settings."""
    return rows[rows["sigma"].isna() | rows["sigma"].isin(settings.sigmas)]


def models(rows: pd.DataFrame) -> dict[str, Model]:
    """The models that were fitted."""
    groups = rows.groupby("model")
    found = groups.first()
    numbers = groups.mean(numeric_only=True)
    found[numbers.columns] = numbers
    errors = [name for name in numbers.columns if name.endswith(("standard_error", "monte_carlo_error"))]
    found[errors] = averaged(rows[["model", *errors]], "model")
    return {model: found.T[model] for model in LABELS if model in found.index}


def vanishes(row: Model, *names: str) -> bool:
    """Whether some numbers of a model are 0 up to rounding."""
    return all(abs(row[name]) <= ROUNDING[row["dtype"]] for name in names)


def is_tight(row: Model) -> bool:
    """Whether every log-weight is log p(x), as measured."""
    return vanishes(row, "gap", "log_weight_spread")


def shares_everything(row: Model) -> bool:
    """Whether encoder and decoder are two readings of one set of parameters."""
    return bool(row["shared_parameters"] == row["parameters"])


def gap_text(row: Model) -> str:
    """The gap with its error; 0 where only rounding is left."""
    return "0" if vanishes(row, "gap") else f"{row['gap']:.4f} ± {row['gap_standard_error']:.4f}"


def relaxed(rows: pd.DataFrame, encoder: str) -> pd.DataFrame:
    """The relaxed flow by width σ: means over seeds, the smallest σ first; empty if there are none."""
    return rows[rows["encoder"] == encoder].groupby("sigma").mean(numeric_only=True)


def slope(errors: pd.Series[float]) -> float:
    """Of log error against log σ, by least squares over σ ≤ 0.001; NaN for fewer than two of those.

    >>> widths = [1e-4, 1e-3, 1e-1]
    >>> slope(pd.Series([3e-8, 3e-6, 1.0], index=widths))  # the last one is too wide
    2.0
    """
    small = errors[errors.index <= SMALL]
    if len(small) < 2:
        return math.nan
    return float(np.polyfit(np.log(small.index), np.log(small), 1)[0])


def table(rows: pd.DataFrame) -> Group:
    """The lecture's table; below, theorem and limit."""
    found = models(rows)
    shown = Table(title="VAE vs normalizing flow, measured; nats per point", title_justify="left", show_lines=True)
    shown.add_column("", no_wrap=True)
    for model in found:
        shown.add_column(LABELS[model])
    cells = [cells_of(row) for row in found.values()]
    for name in cells[0] if cells else ():
        shown.add_row(name, *(cell[name] for cell in cells))
    return Group(shown, *(Text(line) for line in [about(rows), *findings(rows)]))


def cells_of(row: Model) -> dict[str, str]:
    """One model's column: the words of the lecture, chosen by the numbers behind them."""
    parameters = (
        f"φ, θ: {row['encoder_parameters']:,.0f} of the encoder, {row['decoder_parameters']:,.0f} of the decoder, "
        f"{row['shared_parameters']:,.0f} of both"
    )
    if shares_everything(row):
        parameters = f"θ ≡ φ: all {row['shared_parameters']:,.0f} serve encoder and decoder"
    tight = is_tight(row)
    objective = "log p(x), which is forward KL" if tight else "ELBO, which is forward KL + gap"
    kl = row["forward_kl"]
    return {
        "Objective": f"{objective}: {kl:.3f} + {row['gap']:.3f} = {kl + row['gap']:.3f}",
        "Encoder": _randomness(row, "encoder", "z"),
        "Decoder": _randomness(row, "decoder", "x"),
        "Parameters": parameters,
        "Tight?": f"{'yes' if tight else 'no'}: sd of log-weights {row['log_weight_spread']:.2g}",
        "log p(x)": f"{row['value']:.3f} ± {row['standard_error']:.3f}, {row['kind']}: {row['method']}",
        "ELBO": f"{row['elbo']:.3f} ± {row['elbo_standard_error']:.3f}",
        "Gap": f"{gap_text(row)}, {row['gap_kind']}",
        "KL(data ‖ model)": f"{kl:.3f} ± {row['forward_kl_standard_error']:.3f}, {row['forward_kl_kind']}",
    }


def _randomness(row: Model, coder: str, name: str) -> str:
    spread, entropy = f"{coder}_spread", row[f"{coder}_entropy"]
    kind = "deterministic" if vanishes(row, spread) else "stochastic"
    repetitions = f"{row['repeats']:.0f} {coder.removesuffix('er')}ings"
    told = "−∞" if math.isinf(entropy) else f"{entropy:.2f}"
    return f"{kind}: sd of {name} over {repetitions} {row[spread]:.3g}, entropy {told}"


def about(rows: pd.DataFrame, brief: bool = False) -> str:
    """What the numbers are: data, measure, errors."""
    last, seeds = rows[rows["model"].isin(LABELS)].iloc[-1], sorted(rows["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"
    text = (
        f"Ring in the plane, entropy {last['entropy']:.4f} nats: {int(last['train_rows']):,} points to fit, "
        f"{int(last['test_rows']):,} others to test; {which}. Nats per point, {last['measure']} measure."
    )
    if brief:
        return text
    return (
        f"{text} ± is the standard error over test points. KL(data ‖ model) is the mean of log p_data(x) − "
        "log p_model(x), both known at every test point. Parameters are counted by what autograd finds between x and "
        "z, and between z and x."
    )


def findings(rows: pd.DataFrame) -> list[str]:
    """Theorem and limit in words."""
    found, lines = models(rows), []
    if "flow" in found:
        flow = found["flow"]
        lines.append(
            "Theorem: the flow's ELBO from its decoder alone, log p(z) − log|det ∂g/∂z| at z = f(x) by autograd, is "
            f"its log p(x) up to {flow['theorem_error']:.1e} nats at every test point; the gradients in θ agree up to "
            f"{flow['theorem_gradient_error']:.1e} of the largest."
        )
    for sigma, least in relaxed(rows, "full").head(1).iterrows():
        rate = slope(relaxed(rows, "full")["relaxed_error"])
        law = "" if math.isnan(rate) else f" and goes as σ to the power {rate:.3f} up to σ = {SMALL:g}"
        lines.append(
            "Limit: with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ) the mean |ELBO(σ) − log p(x)| is "
            f"{least['relaxed_error']:.1e} nats at σ = {sigma:g}{law}."
        )
    for sigma, least in relaxed(rows, "diagonal").head(1).iterrows():
        lines.append(
            f"A diagonal encoder, as VAEs have, leaves a gap of {least['relaxed_gap']:.4f} nats at σ = {sigma:g}; in "
            f"the limit, by the formula, {least['limiting_gap']:.4f}."
        )
    return lines


def checks(rows: pd.DataFrame) -> list[Check]:
    """The lecture's table and theorem, decided by the rows."""
    found, claims, findings = models(rows), dict[str, bool](), list[Finding]()
    spreads = ("encoder_spread", "decoder_spread", "log_weight_spread")
    if "vae" in found:
        vae = found["vae"]
        disjoint = vae["shared_parameters"] == 0 < min(vae["encoder_parameters"], vae["decoder_parameters"])
        claims |= {
            "VAE: encoder, decoder and log-weights are stochastic": not any(vanishes(vae, name) for name in spreads),
            "VAE: encoder and decoder share no parameter": disjoint,
        }
    if "flow" in found:
        flow = found["flow"]
        worst = max(flow["theorem_error"], flow["theorem_gradient_error"])
        allowed = f"values and gradients, to {worst:.1e}; allowed: {THEOREM_TOLERANCE:.0e}"
        claims |= {
            "flow: encoder, decoder and log-weights are deterministic": vanishes(flow, *spreads),
            "flow: encoder and decoder share every parameter": shares_everything(flow),
            f"flow: ELBO = log p(x), {allowed}": worst <= THEOREM_TOLERANCE and is_tight(flow),
        }
    for model, row in found.items():
        kl, error, measured = row["forward_kl"], row["forward_kl_standard_error"], "yes" if is_tight(row) else "no"
        claims |= {
            f"{LABELS[model]}: tight? {row['tight']} by its own account, {measured} by its log-weights": (
                row["tight"] == measured
            ),
            f"{LABELS[model]}: KL(data ‖ model) = {kl:.4f} ± {error:.4f} is not negative": kl > -3 * error,
        }
    rate = slope(relaxed(rows, "full")["relaxed_error"])
    if not math.isnan(rate):
        claim = "flow with Gaussians for deltas: |ELBO(σ) − log p(x)| goes as σ to the power 2"
        near = abs(rate - 2) <= SLOPE_TOLERANCE
        findings.append(Finding(claim, near, f"2 ± {SLOPE_TOLERANCE}", f"{rate:.3f}"))
    for claim, decision in differences(rows).items():
        size = f"{with_error(decision.fitted.mean, decision.fitted.error)} nats"
        findings.append(Finding.of(claim, decision, size, "above 0"))
    return [*(Check(claim, bool(holds)) for claim, holds in claims.items()), *findings]


def differences(rows: pd.DataFrame) -> dict[str, Decision]:
    """The VAE's gap, and by how much the flow is nearer to the data than the VAE: decided together by Holm.

    Both divergences are over the same points, and taken for independent, since no single points are kept.
    """
    vae, flow = (rows[rows["model"] == model].set_index("seed") for model in LABELS)
    vae, flow, family = vae[vae["gap"].notna()], flow[flow["forward_kl"].notna()], {}
    points = least_points(rows)
    if len(vae):
        family["VAE: the ELBO is below log p(x)"] = over_seeds(vae["gap"], vae["gap_standard_error"], points)
    if len(seeds := vae.index.intersection(flow.index)):
        ours, theirs = flow.loc[seeds], vae.loc[seeds]
        error = np.hypot(ours["forward_kl_standard_error"], theirs["forward_kl_standard_error"])
        claim = "the flow, which has more parameters, ends nearer to the data: KL(data ‖ VAE) − KL(data ‖ flow)"
        family[claim] = over_seeds(theirs["forward_kl"] - ours["forward_kl"], error, points)
    return decisions(family)


def figure(rows: pd.DataFrame) -> Figure:
    """Left: log-weight − log p(x) of both models. Right: the relaxed flow's gap against σ."""
    with panels(2, height=5.0) as (drawn, (left, right)):
        _log_weights(left, rows)
        _limit(right, rows)
        caption(drawn, f"{_answer(rows)} {about(rows, brief=True)}")
    return drawn


def _log_weights(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_title("Log-weights around log p(x)", loc="left", fontweight="bold")
    found = models(rows)
    if "flow" in found:
        axes.axvline(0, color=BLUE, linewidth=3)
    if "vae" in found:
        vae = found["vae"]
        deviations = np.concatenate(list(map(series, rows.loc[rows["model"] == "vae", "log_weight_quantiles"])))
        low, high = np.quantile(deviations, SHOWN)
        kept = deviations[(deviations >= low) & (deviations <= high)]
        bins = np.linspace(low, high, 41)
        heights = np.full(len(kept), 1 / len(deviations) / (bins[1] - bins[0]))
        sns.histplot(
            x=kept, bins=list(bins), weights=heights, color=ORANGE, alpha=0.55, edgecolor="white", linewidth=0.4,
            ax=axes,
        )  # fmt: skip
        top = axes.get_ylim()[1]
        axes.set_ylim(0, 1.32 * top)
        axes.vlines(-vae["gap"], 0, 1.02 * top, color="0.25", linestyle="--", linewidth=1.4)
        words = f"VAE: sd {vae['log_weight_spread']:.2f};\nthe mean (dashed),\nits ELBO, is\n{vae['gap']:.3f} below 0"
        axes.text(low, 1.29 * top, words, color="0.2", fontsize=10.5, va="top", bbox=PAPER)
    if "flow" in found:
        words = " flow: every log-weight\n is log p(x), a delta"
        axes.text(0, 0.62 * axes.get_ylim()[1], words, color=BLUE, fontsize=10.5, va="center", bbox=PAPER)
    axes.set_xlabel("log p(z) + log p(x|z) − log q(z|x) − log p(x), nats")  # seaborn has written labels of its own
    axes.set_ylabel("density over points and draws")


def _limit(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_title("The flow with Gaussians for deltas", loc="left", fontweight="bold")
    axes.set_xscale("log")
    axes.set_yscale("log")
    full, diagonal = (relaxed(rows, encoder)["relaxed_error"] for encoder in ("full", "diagonal"))
    if len(diagonal):
        sns.lineplot(x=diagonal.index, y=diagonal, color=ORANGE, marker="s", ax=axes)
        words = "diagonal encoder: its gap stays"
        axes.text(diagonal.index[0], 1.5 * diagonal.iloc[0], words, color=ORANGE, va="bottom")
    if len(full):
        sns.lineplot(x=full.index, y=full, color=BLUE, marker="o", ax=axes)
        small = full[full.index <= SMALL]
        if len(small) > 1:
            middle = small.index[len(small) // 2]
            words = f"encoder N(f(x), σ²JJᵀ):\nslope {slope(full):.3f}"
            axes.text(1.6 * middle, 0.7 * small[middle], words, color=BLUE, va="top")
    axes.set_xlabel("σ, in the units of the data")
    axes.set_ylabel("mean |ELBO(σ) − log p(x)|, nats")
    if len(full) and len(diagonal):
        axes.set_ylim(top=12 * max(diagonal.max(), full.max()))


def _answer(rows: pd.DataFrame) -> str:
    """Some sentences from the rows."""
    found, rate, parts = models(rows), slope(relaxed(rows, "full")["relaxed_error"]), []
    if "vae" in found:
        vae = found["vae"]
        parts.append(
            f"The VAE minimises forward KL + gap = {vae['forward_kl']:.3f} + {vae['gap']:.3f} with "
            f"{vae['shared_parameters']:.0f} shared parameters."
        )
    if "flow" in found:
        flow = found["flow"]
        parts.append(
            f"The flow minimises forward KL alone, {flow['forward_kl']:.3f}, with all {flow['parameters']:,.0f} "
            f"parameters shared: its ELBO is log p(x) to {flow['theorem_error']:.0e} nats."
        )
    if not math.isnan(rate):
        parts.append(f"Gaussians of width σ in place of its deltas cost σ to the power {rate:.2f}.")
    return " ".join(parts)
