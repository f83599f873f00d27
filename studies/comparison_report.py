"""Table and checks of `comparison`, from its rows alone: torch is never loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from studies.kit.study import Check

LABELS = {"vae": "VAE", "flow": "normalizing flow"}
SMALL = 1e-3  # σ up to which the rate is fitted: beyond, some points near the flow's seams are off by more than a nat
SLOPE_TOLERANCE = 0.05
# log|det ∂g/∂z| by autograd and Σ log σ by the layers differ by rounding, 1e-16 times a condition number of some tens,
# added over layers; their gradients by that relative to the largest. The margin is 1e4.
THEOREM_TOLERANCE = 1e-10
# What counts as 0 where a point is computed again: rounding of values up to some ten, 1e-6 and 1e-15, times some tens.
ROUNDING = {"float32": 1e-4, "float64": 1e-12}


@dataclass(frozen=True)
class Shown:
    """One model: numbers averaged over seeds, NaN where it has none."""

    model: str
    kind: str
    method: str
    elbo_kind: str
    gap_kind: str
    forward_kl_kind: str
    tight: str
    dtype: str
    value: float
    standard_error: float
    elbo: float
    elbo_standard_error: float
    gap: float
    gap_standard_error: float
    forward_kl: float
    forward_kl_standard_error: float
    encoder_spread: float
    encoder_entropy: float
    decoder_spread: float
    decoder_entropy: float
    log_weight_spread: float
    parameters: float
    encoder_parameters: float
    decoder_parameters: float
    shared_parameters: float
    theorem_error: float
    theorem_gradient_error: float
    repeats: float
    seconds: float

    @property
    def is_tight(self) -> bool:
        """Whether every log-weight is log p(x), as measured."""
        return self.none(self.gap) and self.none(self.log_weight_spread)

    @property
    def shares_everything(self) -> bool:
        """Whether encoder and decoder are two readings of one set of parameters."""
        return self.shared_parameters == self.parameters

    def none(self, value: float) -> bool:
        """Whether a value is 0 up to rounding."""
        return abs(value) <= ROUNDING[self.dtype]

    @property
    def gap_text(self) -> str:
        """The gap with its error; 0 where only rounding is left."""
        return "0" if self.none(self.gap) else f"{self.gap:.4f} ± {self.gap_standard_error:.4f}"


def averaged(df: pd.DataFrame) -> dict[str, Shown]:
    """One entry a model that was fitted."""
    words = ("kind", "method", "elbo_kind", "gap_kind", "forward_kl_kind", "tight", "dtype")
    numbers = [name for name in Shown.__annotations__ if name not in (*words, "model")]
    found = {}
    for model in LABELS:
        rows = df[df["model"] == model]
        if len(rows):
            columns: dict[str, Any] = {name: float(rows[name].mean()) if name in rows else math.nan for name in numbers}
            columns |= {name: str(rows[name].iloc[0]) for name in words}
            found[model] = Shown(model=model, **columns)
    return found


def relaxed(df: pd.DataFrame, encoder: str) -> pd.DataFrame:
    """The relaxed flow by width σ: means over seeds, the smallest σ first; empty if there are none."""
    columns = ["relaxed_error", "relaxed_gap", "relaxed_largest", "limiting_gap"]
    rows = df[df["encoder"] == encoder]
    return rows.groupby("sigma")[columns].mean().sort_index() if len(rows) else pd.DataFrame(columns=columns)


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


def comparison_table(df: pd.DataFrame) -> Group:
    """The lecture's four lines, then what makes them so, one column a model; below, theorem and limit."""
    models = averaged(df)
    shown = Table(title="VAE vs normalizing flow, measured; nats per point", title_justify="left", show_lines=True)
    shown.add_column("", no_wrap=True)
    for model in models:
        shown.add_column(LABELS[model])
    cells = [cells_of(row) for row in models.values()]
    for name in cells[0] if cells else ():
        shown.add_row(name, *(cell[name] for cell in cells))
    return Group(shown, *(Text(line) for line in [caption(df), *findings(df)]))


def cells_of(row: Shown) -> dict[str, str]:
    """One model's column: the words of the lecture, chosen by the numbers behind them."""
    if row.shares_everything:
        parameters = f"θ ≡ φ: all {row.shared_parameters:,.0f} serve encoder and decoder"
    else:
        parameters = (
            f"φ, θ: {row.encoder_parameters:,.0f} of the encoder, {row.decoder_parameters:,.0f} of the decoder, "
            f"{row.shared_parameters:,.0f} of both"
        )
    objective = "log p(x), which is forward KL" if row.is_tight else "ELBO, which is forward KL + gap"
    total = row.forward_kl + row.gap
    return {
        "Objective": f"{objective}: {row.forward_kl:.3f} + {row.gap:.3f} = {total:.3f}",
        "Encoder": _randomness(row, row.encoder_spread, row.encoder_entropy, "z", "encodings"),
        "Decoder": _randomness(row, row.decoder_spread, row.decoder_entropy, "x", "decodings"),
        "Parameters": parameters,
        "Tight?": f"{'yes' if row.is_tight else 'no'}: sd of log-weights {row.log_weight_spread:.2g}",
        "log p(x)": f"{row.value:.3f} ± {row.standard_error:.3f}, {row.kind}: {row.method}",
        "ELBO": f"{row.elbo:.3f} ± {row.elbo_standard_error:.3f}",
        "Gap": f"{row.gap_text}, {row.gap_kind}",
        "KL(data ‖ model)": f"{row.forward_kl:.3f} ± {row.forward_kl_standard_error:.3f}, {row.forward_kl_kind}",
    }


def _randomness(row: Shown, spread: float, entropy: float, name: str, repetitions: str) -> str:
    told = "entropy −∞" if math.isinf(entropy) else f"entropy {entropy:.2f}"
    kind = "deterministic" if row.none(spread) else "stochastic"
    return f"{kind}: sd of {name} over {row.repeats:.0f} {repetitions} {spread:.3g}, {told}"


def caption(df: pd.DataFrame, brief: bool = False) -> str:
    """What the numbers are: data, measure, errors."""
    about, seeds = df[df["model"].isin(LABELS)].iloc[-1], sorted(df["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"
    text = (
        f"Ring in the plane, entropy {about['entropy']:.4f} nats: {int(about['train_rows']):,} points to fit, "
        f"{int(about['test_rows']):,} others to test; {which}. Nats per point, {about['measure']} measure. "
    )
    if not brief:
        text += (
            "± is the standard error over test points. KL(data ‖ model) is the mean of log p_data(x) − log p_model(x), "
            "both known at every test point. Parameters are counted by what autograd finds between x and z, and "
            "between z and x. "
        )
    return text.strip()


def findings(df: pd.DataFrame) -> list[str]:
    """Theorem and limit in words."""
    found, lines = averaged(df), []
    if "flow" in found:
        flow = found["flow"]
        lines.append(
            "Theorem: the flow's ELBO from its decoder alone, log p(z) − log|det ∂g/∂z| at z = f(x) by autograd, is "
            f"its log p(x) up to {flow.theorem_error:.1e} nats at every test point; the gradients in θ agree up to "
            f"{flow.theorem_gradient_error:.1e} of the largest."
        )
    full, diagonal = relaxed(df, "full"), relaxed(df, "diagonal")
    if len(full):
        sigma, least, rate = full.index[0], full.iloc[0], slope(full["relaxed_error"])
        law = "" if math.isnan(rate) else f" and goes as σ to the power {rate:.3f} up to σ = {SMALL:g}"
        lines.append(
            "Limit: with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ) the mean |ELBO(σ) − log p(x)| is "
            f"{least['relaxed_error']:.1e} nats at σ = {sigma:g}{law}."
        )
    if len(diagonal):
        sigma, least = diagonal.index[0], diagonal.iloc[0]
        lines.append(
            f"A diagonal encoder, as VAEs have, leaves a gap of {least['relaxed_gap']:.4f} nats at σ = {sigma:g}; in "
            f"the limit, by the formula, {least['limiting_gap']:.4f}."
        )
    return lines


def verdicts(df: pd.DataFrame) -> list[Check]:
    """The lecture's table and theorem, decided by the rows."""
    found, checks = averaged(df), []
    if "vae" in found:
        vae = found["vae"]
        stochastic = not any(map(vae.none, (vae.encoder_spread, vae.decoder_spread, vae.log_weight_spread)))
        disjoint = vae.shared_parameters == 0 < min(vae.encoder_parameters, vae.decoder_parameters)
        loose = vae.gap > 2 * vae.gap_standard_error
        checks += [
            Check("VAE: encoder, decoder and log-weights are stochastic", stochastic),
            Check("VAE: encoder and decoder share no parameter", disjoint),
            Check(f"VAE: the ELBO is below log p(x), by {vae.gap_text}", loose),
        ]
    if "flow" in found:
        flow = found["flow"]
        spreads = (flow.encoder_spread, flow.decoder_spread, flow.log_weight_spread)
        worst = max(flow.theorem_error, flow.theorem_gradient_error)
        checks += [
            Check("flow: encoder, decoder and log-weights are deterministic", all(map(flow.none, spreads))),
            Check("flow: encoder and decoder share every parameter", flow.shares_everything),
            Check(
                f"flow: ELBO = log p(x), values and gradients, to {worst:.1e}; allowed: {THEOREM_TOLERANCE:.0e}",
                worst <= THEOREM_TOLERANCE and flow.is_tight,
            ),
        ]
    for row in found.values():
        error, measured = row.forward_kl_standard_error, "yes" if row.is_tight else "no"
        claim = f"{LABELS[row.model]}: tight? {row.tight} by its own account, {measured} by its log-weights"
        checks.append(Check(claim, row.tight == measured))
        checks.append(
            Check(
                f"{LABELS[row.model]}: KL(data ‖ model) = {row.forward_kl:.4f} ± {error:.4f} is not negative",
                row.forward_kl > -3 * error,
            )
        )
    rate = slope(relaxed(df, "full")["relaxed_error"])
    if not math.isnan(rate):
        claim = f"|ELBO(σ) − log p(x)| goes as σ to the power {rate:.3f}; expected: 2 ± {SLOPE_TOLERANCE}"
        checks.append(Check(claim, abs(rate - 2) <= SLOPE_TOLERANCE))
    return checks
