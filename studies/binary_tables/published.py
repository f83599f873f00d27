"""Numbers that others have published for the tables of `binary_tables`: mean test log p, nats a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A method's numbers.

    Attributes:
        method: its name.
        source: where they were published.
        seen: "read", and where, or "recalled": written down from memory, to be checked before it is quoted.
        values: by table.
    """

    method: str
    source: str
    seen: str
    values: Mapping[str, float]


PUBLISHED = (
    Published(
        "LearnSPN",
        "Gens & Domingos 2013",
        "recalled",
        {"nltcs": -6.110, "plants": -12.977, "jester": -53.480, "accidents": -30.038, "dna": -82.523},
    ),
    Published(
        "ID-SPN",
        "Rooshenas & Lowd 2014",
        "recalled",
        {"nltcs": -6.020, "plants": -12.535, "jester": -52.858, "accidents": -26.983, "dna": -81.211},
    ),
    Published(
        "RAT-SPN",
        "Peharz et al. 2019",
        "recalled",
        {"nltcs": -6.011, "plants": -13.439, "jester": -52.970, "accidents": -35.487, "dna": -97.232},
    ),
    Published("CM-TPM", "Correia et al. 2023", "recalled", {"nltcs": -5.99}),
    Published("NADE", "Larochelle & Murray 2011, fixed order", "recalled", {"mushrooms": -9.81, "dna": -84.81}),
    Published(
        "EoNADE",
        "Uria et al. 2014, 16 orders",
        "read in the list of results at wizwand.com",
        {"mushrooms": -9.68, "dna": -82.31},
    ),
)


def published(table: str) -> Iterator[tuple[Published, float]]:
    """What is known of a table.

    >>> [each.method for each, _ in published("mushrooms")]
    ['NADE', 'EoNADE']
    """
    for each in PUBLISHED:
        if table in each.values:
            yield each, each.values[table]
