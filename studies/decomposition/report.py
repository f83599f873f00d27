"""What the rows of `decomposition` say: tables, checks and figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Group
from rich.text import Text

from significance import Decision, Verdict, decisions, over_seeds
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import averaged, empty

SIGMAS = 4  # of an agreement with a number that is known
ENOUGH_EPOCHS = 100
ROUNDING = 1e-6  # of sums over a grid in double precision, whose terms reach some hundred nats
BLUE, ORANGE, GREEN, RED = PALETTE[:4]
QS = {"encoder": ORANGE, "best independent": GREEN, "best Gaussian": RED}


def of_part(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of a part, mean over seeds and in their order."""
    mine = rows[rows["part"] == part]
    return averaged(mine, "index").assign(label=mine.groupby("index")["label"].first())


def table(rows: pd.DataFrame) -> Group:
    """The Gaussians, then the three trainings."""
    title = "q(z|x) of the VAE trained by its ELBO, nats per point"
    first = empty(title, ["q"], ("ELBO", "KL(q ‖ posterior) = log p − ELBO", "below the best Gaussian"), wrap=True)
    for _, row in of_part(rows, "gaussians").iterrows():
        numbers = (f"{row[n]:.3f} ± {row[f'{n}_error']:.3f}" for n in ("divergence", "below_best"))
        first.add_row(row["label"], f"{row['elbo']:.3f}", *numbers)
    title = "One decoder, three objectives; test points, log p(x) by quadrature"
    names = ("log p(x)", "ELBO", "gap", "log p(x) gained", "ELBO changed")
    second = empty(title, ["trained by"], names, wrap=True)
    for _, row in of_part(rows, "learning").iterrows():
        numbers = (f"{row[n]:.2f} ± {row[f'{n}_error']:.2f}" for n in ("log_p", "elbo", "gap", "gain", "elbo_change"))
        second.add_row(row["label"], *numbers)
    return Group(first, second, Text(words(rows)))


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    paths = rows[rows["part"].isin(("PPCA", "VAE"))]
    qs, learnt = of_part(rows, "gaussians").set_index("label"), of_part(rows, "learning").set_index("label")
    exact = learnt.loc["exact likelihood"]
    return (
        f"log p(x) = ELBO + KL at every point and t, within {paths['worst'].max():.0e} nats. The encoder is "
        f"{qs['divergence']['encoder']:.2f} ± {qs['divergence_error']['encoder']:.2f} nats from the posterior, "
        f"the best Gaussian {qs['divergence']['best Gaussian']:.3f} ± "
        f"{qs['divergence_error']['best Gaussian']:.3f}. Trained by exact likelihood instead of its ELBO the same "
        f"decoder gains {exact['gain']:.2f} ± {exact['gain_error']:.2f} nats of log p(x), and its ELBO changes by "
        f"{exact['elbo_change']:.2f} ± {exact['elbo_change_error']:.2f} (± over test points). {anew(rows)}"
    )


def anew(rows: pd.DataFrame) -> str:
    """What follows for decoders that are trained anew."""
    found = differences(rows)
    if any(each.anew is None for each in found.values()):
        return "Of decoders trained anew one seed proves nothing."
    higher, lower = ("is" if one.verdict_anew is Verdict.FIRST else "open whether it is" for one in found.values())
    return f"Of decoders trained anew, over seeds, by Holm at 5 %: log p(x), {higher} higher; the ELBO, {lower} lower."


def differences(rows: pd.DataFrame) -> dict[str, Decision]:
    """What learning from the exact likelihood gains of log p(x) and loses of the ELBO, paired; decided by Holm.

    Of these fits, and of decoders trained anew.
    """
    of = rows[(rows["part"] == "learning") & (rows["label"] == "exact likelihood")]
    points = int(of["test_rows"].min())
    signs = {"gain": of["gain"], "elbo_loss": -of["elbo_change"]}
    errors = {"gain": of["gain_error"], "elbo_loss": of["elbo_change_error"]}
    return decisions({name: over_seeds(signs[name], errors[name], points) for name in signs})


def checks(rows: pd.DataFrame) -> list[Check]:
    """Identity, order of the Gaussians, and arg max ELBO ≠ arg max likelihood."""
    ppca, vae = rows[rows["part"] == "PPCA"], rows[rows["part"] == "VAE"]
    sampled = ppca["sampled"].abs() <= SIGMAS * ppca["sampled_error"] + ROUNDING
    qs = of_part(rows, "gaussians").set_index("label")
    tolerance = 1e-3
    rising = all(
        (one.sort_values("t")["elbo"].diff().dropna() > 0).all()
        for _, one in rows[rows["t"].notna()].groupby(["part", "seed"])
    )
    decided = differences(rows)
    found = {
        f"PPCA: log p = ELBO + KL within {ROUNDING:g} nats at every point": (ppca["worst"] < ROUNDING).all(),
        "PPCA: the ELBO by sampling agrees within 4 standard errors": sampled.all(),
        f"VAE: log p = ELBO + KL within {tolerance:g} nats at every point": (vae["worst"] < tolerance).all(),
        "the ELBO rises all the way from prior to posterior": rising,
        "encoder ≤ best independent ≤ best Gaussian ≤ log p": bool(
            (qs["divergence"].diff().dropna() <= ROUNDING).all() and (qs["divergence"] >= -tolerance).all()
        ),
    }
    checks = [Check(claim, bool(holds)) for claim, holds in found.items()]
    if (rows["epochs"].dropna() >= ENOUGH_EPOCHS).all():  # a small run is not trained to its optimum
        checks.append(Finding.of("learning by exact likelihood gives a higher log p(x)", decided["gain"]))
        checks.append(Finding.of("and a lower ELBO", decided["elbo_loss"]))
    return checks


def figure(rows: pd.DataFrame) -> Figure:
    """Above: ELBO and log p(x) of PPCA and of a VAE as q goes from the prior to the posterior; both after training by
    three objectives. Below: posteriors of two points on the latent plane with Gaussians, and how far these are from it.
    """
    with panels(3, 2, width=13) as (drawn, axes):
        for each, part in zip(axes[:2], ("PPCA", "VAE"), strict=True):
            _path(each, of_part(rows, part), part)
        _learning(axes[2], of_part(rows, "learning"))
        _posteriors(axes[3:5], Path(rows.loc[rows["part"] == "gaussians", "points"].iloc[0]))
        _divergences(axes[5], of_part(rows, "gaussians"))
        caption(drawn, words(rows))
    return drawn


def _path(axes: Axes, rows: pd.DataFrame, part: str) -> None:
    axes.plot(rows["t"], rows["log_p"], color=BLUE, linewidth=2, label="log p(x)")
    axes.plot(rows["t"], rows["elbo"], color=ORANGE, linewidth=2, marker="o", markersize=4, label="ELBO")
    axes.fill_between(rows["t"], rows["elbo"], rows["log_p"], color=ORANGE, alpha=0.2, label="KL(q ‖ posterior)")
    axes.set(xlabel="t of q ∝ prior$^{1-t}$ · posterior$^t$", ylabel="nats per point")
    axes.set_title(f"{part}: from prior to posterior", loc="left", fontweight="bold")
    axes.legend(loc="lower right")


def _learning(axes: Axes, rows: pd.DataFrame) -> None:
    for height, (_, row) in enumerate(rows.iterrows()):
        axes.plot(
            [row["elbo"], row["log_p"]], [height, height], color="0.8", linewidth=6, solid_capstyle="butt", zorder=0
        )
        axes.errorbar(row["log_p"], height, xerr=row["log_p_error"], fmt="o", color=BLUE, capsize=3, markersize=7)
        axes.errorbar(row["elbo"], height, xerr=row["elbo_error"], fmt="s", color=ORANGE, capsize=3, markersize=7)
        if height:
            change = f"{row['gain']:+.2f} ± {row['gain_error']:.2f}"
            axes.text(row["log_p"] + row["log_p_error"], height + 0.2, change, ha="right", fontsize=10)
    axes.set_yticks(range(len(rows)), rows["label"])
    label = "nats per test point, ± standard error\n(numbers: log p(x) gained, paired)"
    axes.set(xlabel=label, ylim=(-0.6, len(rows) - 0.3))
    axes.set_title("The decoder trained by …", loc="left", fontweight="bold")
    handles = [
        Line2D([], [], marker="o", color=BLUE, linestyle="", label="log p(x)"),
        Line2D([], [], marker="s", color=ORANGE, linestyle="", label="ELBO"),
    ]
    axes.legend(handles=handles, loc="lower left")


def _divergences(axes: Axes, rows: pd.DataFrame) -> None:
    """Its labels are those of the ellipses beside it, by colour."""
    found = rows.set_index("label")
    for height, (name, colour) in enumerate(QS.items()):
        size, error = found["divergence"][name], found["divergence_error"][name]
        axes.errorbar(size, height, xerr=error, fmt="o", color=colour, capsize=3, markersize=7)
    axes.set_yticks(range(len(QS)), list(QS))
    for tick, colour in zip(axes.get_yticklabels(), QS.values(), strict=True):
        tick.set(color=colour, fontweight="bold")
    axes.set(xscale="log", ylim=(len(QS) - 0.4, -0.6), xlabel="KL(q ‖ posterior), nats per test point")
    axes.set_title("What each q pays", loc="left", fontweight="bold")


def _posteriors(panels: list[Axes], path: Path) -> None:
    if not path.exists():
        for axes in panels:
            axes.set_axis_off()
        return
    with np.load(path) as file:
        for number, axes in enumerate(panels):
            if f"density{number}" not in file:
                axes.set_axis_off()
                continue
            x, y, density = file[f"x{number}"], file[f"y{number}"], file[f"density{number}"]
            axes.pcolormesh(x, y, density.T, cmap="Greys", rasterized=True, vmax=1.2 * density.max())
            for name, colour in QS.items():
                turn = np.linspace(0, 2 * np.pi, 200)
                circle = np.stack([np.cos(turn), np.sin(turn)])
                for radius in (1, 2):
                    line = file[f"{name} mean{number}"][:, None] + radius * file[f"{name} factor{number}"] @ circle
                    axes.plot(*line, color=colour, linewidth=1.8 / radius)
            axes.set(xlabel="first latent", ylabel="second latent", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
            axes.grid(visible=False)
            axes.set_aspect("equal")
            short = float(file[f"short{number}"])
            axes.set_title(f"The encoder pays {short:.2f} nats here", loc="left", fontweight="bold")
