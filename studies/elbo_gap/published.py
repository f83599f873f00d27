"""Numbers from the literature, to stand beside ours: mean test log p(x) of the MAF suite, nats a point."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from studies.literature import Known

SUITE = ("power", "gas", "hepmass", "miniboone", "bsds300")


@dataclass(frozen=True)
class Published:
    """One line of a table: value and, where it was printed, two standard errors, for each data set of the suite.

    Attributes:
        model: as the table calls it.
        source: paper.
        values: in the order of SUITE.
        like: which of our models is of that kind; empty if none is.
    """

    model: str
    source: str
    values: tuple[float, ...]
    like: str = ""
    errors: tuple[float, ...] = ()

    def text(self, data: str) -> str:
        """The number as printed."""
        position = SUITE.index(data)
        error = f" ± {self.errors[position]:.2f}" if self.errors else ""
        return f"{self.values[position]:.2f}{error}"


MAF_PAPER, NSF_PAPER = "Papamakarios et al. 2017", "Durkan et al. 2019"

# Architectures and budgets are theirs, not ours.
KNOWN = Known.REPRINT
TABLE = (
    Published("Gaussian", MAF_PAPER, (-7.74, -3.58, -27.93, -37.24, 96.67), "gaussian"),
    Published("MADE", MAF_PAPER, (-3.08, 3.56, -20.98, -15.59, 148.85)),
    Published("Real NVP (5)", MAF_PAPER, (-0.02, 4.78, -19.62, -13.55, 152.97), "coupling"),
    Published("Real NVP (10)", MAF_PAPER, (0.17, 8.33, -18.71, -13.84, 153.28), "coupling"),
    Published("MAF (5)", MAF_PAPER, (0.14, 9.07, -17.70, -11.75, 155.69), "maf"),
    Published("MAF (10)", MAF_PAPER, (0.24, 10.08, -17.73, -12.24, 154.93), "maf"),
    Published(
        "Glow, LU couplings",
        NSF_PAPER,
        (0.42, 12.24, -16.99, -10.55, 156.95),
        "coupling",
        (0.01, 0.03, 0.02, 0.45, 0.28),
    ),
    Published("RQ-NSF (C)", NSF_PAPER, (0.64, 13.09, -14.75, -9.67, 157.54), "", (0.01, 0.02, 0.03, 0.47, 0.28)),
    Published("RQ-NSF (AR)", NSF_PAPER, (0.66, 13.09, -14.01, -9.22, 157.31), "", (0.01, 0.02, 0.03, 0.48, 0.28)),
)


def published_table(data: str, ours: pd.DataFrame, labels: dict[str, str]) -> Table | None:
    """Published numbers of one data set beside ours of the same kind; None for data that is not in the suite.

    Args:
        data: its name.
        ours: mean log p(x) by model, columns ``model``, ``value``, ``standard_error``.
        labels: what to call our models.
    """
    if data not in SUITE:
        return None
    found = Table(title=f"{data}: published mean log p(x), nats a point, beside ours", title_justify="left")
    for header in ("model", "source", "read"):
        found.add_column(header)
    for header in ("published", "ours, of that kind"):
        found.add_column(header, justify="right", no_wrap=True)
    values = ours.set_index("model")
    for line in TABLE:
        own = ""
        if line.like in values.index:
            row = values.loc[line.like]
            own = f"{labels[line.like]}: {row['value']:.2f} ± {2 * row['standard_error']:.2f}"
        found.add_row(line.model, line.source, KNOWN.value, line.text(data), own)
    found.caption = "± is two standard errors, as in the papers; their architectures and training budgets are not ours"
    return found
