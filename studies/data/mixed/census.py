"""A table as people have them, made up: numbers, counts and categories that depend on each other, in 16 columns."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

NAMES = (
    "age", "weight", "work", "education", "years", "status", "occupation", "role", "group", "sex", "gain", "loss",
    "hours", "country", "rent", "class",
)  # fmt: skip
LEVELS = {"work": 8, "education": 16, "status": 7, "occupation": 14, "role": 6, "group": 5, "country": 40}
KINDS = 3  # of people


def census(path: Path, n: int, seed: int = 0) -> Path:
    """Write a .csv of n people, of the kind of the public "adult" table (Kohavi 1996): 2 columns of numbers, 5 of
    counts of which two are mostly 0, 9 of categories with 2 to 40 levels, some of them rare. One number is 0 for nine
    people in ten.
    """
    random = np.random.default_rng(seed)
    kind = random.choice(KINDS, n, p=[0.5, 0.3, 0.2])
    columns: dict[str, list[str]] = {}
    for name in NAMES:
        if name in LEVELS:
            # Every kind has its own common levels; the last levels are rare in all.
            weights = random.dirichlet(np.full(LEVELS[name], 0.4), KINDS) + 0.05 / (1 + np.arange(LEVELS[name]))
            shares = (weights / weights.sum(1, keepdims=True)).cumsum(1)
            code = (random.random((n, 1)) > shares[kind]).sum(1).clip(0, LEVELS[name] - 1)
            columns[name] = [f"{name}-{level + 1}" for level in code]
    columns["sex"] = np.where(random.random(n) < np.array([0.8, 0.3, 0.5])[kind], "man", "woman").tolist()
    columns["class"] = np.where(random.random(n) < np.array([0.1, 0.6, 0.3])[kind], ">50K", "<=50K").tolist()
    counts = {
        "age": random.poisson(np.array([28, 45, 60])[kind]),
        "years": random.poisson(np.array([9, 13, 10])[kind]),
        "hours": random.poisson(np.array([38, 46, 20])[kind]),
        "gain": np.where(random.random(n) < 0.08, random.negative_binomial(1, 1e-3, n), 0),
        "loss": np.where(random.random(n) < 0.05, random.poisson(1800, n), 0),
    }
    numbers = {
        "weight": np.exp(random.normal(12, 0.5, n)),
        "rent": np.where(random.random(n) < 0.9, 0.0, random.normal(900, 200, n)),
    }
    columns |= {name: [str(value) for value in values] for name, values in counts.items()}
    columns |= {name: [f"{value:.2f}" for value in values] for name, values in numbers.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(zip(*(columns[name] for name in NAMES), strict=True))
    return path
