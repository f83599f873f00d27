"""What the rows of `choice` say of each criterion: how often it picks the truth, and what it picks of real rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.kit.tables import series

CRITERIA = {"evidence": "evidence", "one_error": "within an error", "bic": "BIC", "elbo": "ELBO"}
NAMES = {
    "mixture": "components of a mixture",
    "ppca": "latents of PPCA",
    "linear-vae": "latents of a linear VAE",
    "vae": "latents of a VAE",
}


@dataclass(frozen=True)
class Picks:
    """What a criterion picks of the simulated sets of a family.

    Attributes:
        family, criterion: as in the rows.
        truth: the number that is right.
        picked: of each set.
    """

    family: str
    criterion: str
    truth: int
    picked: NDArray[np.int64]

    @property
    def right(self) -> int:
        """How often it is the truth."""
        return int((self.picked == self.truth).sum())

    @property
    def share(self) -> float:
        """The same as a share."""
        return self.right / len(self.picked)

    @property
    def error(self) -> float:
        """Binomial standard error of the share, of which one more success and one more failure are counted: not 0 where
        all sets agree.
        """
        n = len(self.picked)
        share = (self.right + 1) / (n + 2)
        return math.sqrt(share * (1 - share) / (n + 2))

    @property
    def mean(self) -> float:
        """The mean number picked."""
        return float(self.picked.mean())


def families(rows: pd.DataFrame) -> list[str]:
    """Those that there are, in a fixed order."""
    return [family for family in NAMES if (rows["family"] == family).any()]


def picks(rows: pd.DataFrame) -> list[Picks]:
    """Of simulated rows, by family and criterion; the ELBO where it is not the evidence."""
    found = []
    of_truth = rows[rows["data"] == "simulated"]
    for family in families(of_truth):
        own = of_truth[of_truth["family"] == family]
        for criterion in CRITERIA:
            if (column := f"by_{criterion}") in own and own[column].notna().all():
                found.append(Picks(family, criterion, int(own["truth"].iloc[0]), own[column].to_numpy(np.int64)))
    return found


@dataclass(frozen=True)
class Curve:
    """How far held-out evidence is behind the best, nats a row: for every number of components or latents.

    Attributes:
        data, family: as in the rows.
        sizes: the numbers.
        behind, errors: means over rows, paired with the best, and their standard errors; of simulated rows the means
            over sets of what is behind the truth.
        picked: by each criterion; empty of simulated rows.
        truth: of simulated rows.
    """

    data: str
    family: str
    sizes: NDArray[np.float64]
    behind: NDArray[np.float64]
    errors: NDArray[np.float64]
    picked: dict[str, int]
    truth: int = 0


def curves(rows: pd.DataFrame) -> list[Curve]:
    """Of each data set and family."""
    found = []
    for data in rows["data"].unique():
        for family in families(rows[rows["data"] == data]):
            own = rows[(rows["data"] == data) & (rows["family"] == family)]
            sizes = series(own["sizes"].iloc[0])
            if data == "simulated":
                evidence = np.stack([series(cell) for cell in own["evidence"]])
                at_truth = int(np.flatnonzero(sizes == own["truth"].iloc[0])[0])
                behind = evidence[:, [at_truth]] - evidence
                error = behind.std(0, ddof=1) / math.sqrt(len(behind))
                found.append(Curve(data, family, sizes, behind.mean(0), error, {}, int(sizes[at_truth])))
                continue
            first = own.iloc[0]
            picked = {c: int(first[f"by_{c}"]) for c in CRITERIA if f"by_{c}" in own and not pd.isna(first[f"by_{c}"])}
            found.append(Curve(data, family, sizes, series(first["behind"]), series(first["behind_errors"]), picked))
    return found
