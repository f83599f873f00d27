"""Continuous tables from a directory: oil flow, Buzzard galaxies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from studies.data.directory import Place
from studies.data.raw import Raw

OIL = "02bb2d7250aa1d91e89fe4e717136564540311f2c1f5fcae945b91522eefe886"
GALAXIES = "5ed5e18aa16c62bce8b8fff931d21d1ea052d06865f18f249d3a3ba97c446671"


def oil_flow(directory: Path | None) -> Raw:
    """``oil-flow``: 12 measurements of three kinds of flow in a pipe, 1,000 + 1,000 + 1,000 (Bishop & James 1993)."""
    place = Place("oil-flow", directory, "Aston University's NCRG page (three-phase oil data)")
    path = place.find("oil_flow.npz")
    content = path.read_bytes()
    place.verify(path, content, OIL, "bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        parts = [archive[name] for name in ("train", "val", "test")]
        labels = np.concatenate([archive[f"{name}_labels"] for name in ("train", "val", "test")])
    train, validation, test = map(len, parts)
    return Raw("oil-flow", "measurement", np.concatenate(parts), (train, validation, test), labels=labels)


def galaxies(directory: Path | None) -> Raw:
    """``galaxies``: redshift and six magnitudes of 100,000 simulated galaxies (Buzzard, DeRose et al. 2019)."""
    place = Place("galaxies", directory, "the example data of the Python package pzflow (galaxy-data.pkl)")
    path = place.find("buzzard_galaxies.npz")
    content = path.read_bytes()
    place.verify(path, content, GALAXIES, "bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return Raw("galaxies", "galaxy", archive["data"].astype(np.float64))
