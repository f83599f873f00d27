"""The order of the studies: that of the argument, not of the alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Named(Protocol):
    """A study, or what stands for it."""

    @property
    def name(self) -> str:
        """Of the study."""
        ...


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class Part:
    """Studies that belong together.

    Attributes:
        title: what they are about.
        names: of the studies, in their order.
    """

    title: str
    names: tuple[str, ...]


ARGUMENT = (
    Part("One scale", ("elbo_gap", "comparison", "equivalence", "judge")),
    Part("The bound and what it lacks", ("decomposition", "amortization", "kl_term", "linear_vae")),
    Part("Learning by the bound", ("gradient_estimators", "em_as_elbo")),
    Part("How large is log p(x)?", ("naive_monte_carlo", "audit")),
    Part("Flows", ("flow_layers", "survae", "latent_space", "defaults")),
    Part("Images and diffusions", ("mnist", "images", "diffusion")),
)
FURTHER = "Further studies"


def in_order(studies: Sequence[N]) -> list[tuple[str, list[N]]]:
    """Parts of the argument with their studies; what is in none comes last. A part without studies is left out.

    >>> from studies.kit.study import Study
    >>> [title for title, _ in in_order([Study("studies.new"), Study("studies.elbo_gap")])]
    ['One scale', 'Further studies']
    """
    by_name = {study.name: study for study in studies}
    parts = [(part.title, [by_name.pop(name) for name in part.names if name in by_name]) for part in ARGUMENT]
    return [(title, found) for title, found in [*parts, (FURTHER, list(by_name.values()))] if found]
