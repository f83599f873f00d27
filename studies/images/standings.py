"""Where each model of `images` stands, and which of two is better: rows averaged over seeds, and decided by Holm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from significance import Decision, decisions, over_seeds
from studies.kit.tables import averaged, with_error

LABELS = {
    "gaussian": "full Gaussian",
    "ppca": "PPCA",
    "mixture": "Gaussian mixture",
    "nvp": "vector Real NVP, equal size",
    "nvp-wide": "vector Real NVP, wide",
    "glow": "multi-scale Glow",
    "vae": "VAE",
    "hierarchical": "hierarchical VAE",
    "glow-prior": "VAE, Glow prior",
}
BAR = 4.0  # paired errors
LARGE, SMALL = "glow", "nvp"


@dataclass(frozen=True)
class Standing:
    """A model of a set of images; bits per dimension, means over seeds with errors over images.

    Attributes:
        data, model: names.
        bits, bits_error: upper bound from the importance-weighted mass.
        density_bits: of dequantised images, exact, in another unit; nan of a model that adds no noise.
        naive_bits, naive_bits_error: what a table says that mixes masses with densities of pixels in [0, 1].
        width, width_error: by how much the bound is loose at most, on images simulated from the model.
        parameters: how many.
        cpu_seconds: of the fit.
    """

    data: str
    model: str
    bits: float
    bits_error: float
    density_bits: float
    naive_bits: float
    naive_bits_error: float
    width: float
    width_error: float
    parameters: float
    cpu_seconds: float

    @property
    def label(self) -> str:
        """In words."""
        return LABELS[self.model]

    @property
    def adds_noise(self) -> bool:
        """Whether it is a density of dequantised pixels, of which the mass is bounded."""
        return not math.isnan(self.density_bits)


@dataclass(frozen=True)
class Pair:
    """Two densities of the same dequantised images; nats an image, means over seeds."""

    model: str
    versus: str
    decision: Decision

    @property
    def errors(self) -> float:
        """How many paired errors over images the difference of these fits is from 0."""
        of = self.decision.fitted
        return of.mean / of.error if of.error else math.inf

    @property
    def text(self) -> str:
        """The difference of these fits with its error."""
        return with_error(self.decision.fitted.mean, self.decision.fitted.error)


def sets(rows: pd.DataFrame) -> list[str]:
    """Names of the images, in the order of the rows."""
    return list(map(str, rows["data"].unique()))


def standings(rows: pd.DataFrame, data: str) -> list[Standing]:
    """One a model, fewest bits first."""
    alone = rows[rows["versus"].isna() & (rows["data"] == data)]
    found = averaged(alone, "model", draws=("width_error",))
    columns = {"width": "width_bits"}
    names = [name for name in Standing.__annotations__ if name not in ("data", "model")]
    return sorted(
        (
            Standing(data, str(model), **{name: float(row.get(columns.get(name, name), math.nan)) for name in names})
            for model, row in found.iterrows()
        ),
        key=lambda standing: (standing.bits, list(LABELS).index(standing.model)),
    )


def pairs(rows: pd.DataFrame, data: str) -> list[Pair]:
    """Every two densities of a set of images, decided together: of these fits, and of fits made anew."""
    if "value" not in rows:
        return []
    compared = rows[rows["versus"].notna() & rows["value"].notna() & (rows["data"] == data)]
    family = {
        (str(model), str(versus)): over_seeds(of["value"], of["standard_error"], int(of["test_rows"].min()))
        for (model, versus), of in compared.groupby(["model", "versus"], sort=False)
    }
    return [Pair(model, versus, decision) for (model, versus), decision in decisions(family).items()]


def of_equal_size(rows: pd.DataFrame, data: str) -> Pair | None:
    """The multi-scale flow against the vector flow of as many parameters."""
    return next((pair for pair in pairs(rows, data) if (pair.model, pair.versus) == (LARGE, SMALL)), None)
