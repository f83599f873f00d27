"""Which latents of a model are summed over, and which are integrated."""

from __future__ import annotations

from density.contract import Density
from density.data.states import States
from density.families.composed.product import Product
from density.families.gaussian import GaussianFamily
from density.measure import Measure
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

MOST_STATES = 2**16  # to sum over
MOST_BESIDE = 2**8  # each of which has an integral of its own
LARGEST_LATENT = 3  # continuous latents
LARGEST_BESIDE = 2  # beside states


class Latents:
    """The latents of a model by how log p(x) comes of them: states that are counted, and numbers that are integrated.

    Args:
        model: whose latents are those of a prior and links, unrolled.

    Attributes:
        model: as one of a latent (:func:`~lvm.hierarchy.unrolled.unrolled`).
        states: of the columns that have finitely many values; None if there are none.
        integrated: the columns of the others.
        prior: of these; the model's where there are no states.

    Raises:
        TypeError: the model has no log-joint.
        ValueError: its log p(x) takes a sum over too many states, an integral over too many numbers, or neither.
    """

    def __init__(self, model: LayeredModel) -> None:
        name, joint = type(model).__name__, unrolled(model)
        if not isinstance(joint, LatentVariableModel):
            raise TypeError(
                f"quadrature needs a LatentVariableModel, with log_joint(x, z); got {name}. "
                "For any model with log-weights there is lvm.evidence.importance"
            )
        self.model, self.name = joint, name
        alphabets = joint.prior.alphabets
        self.states = States(alphabets) if alphabets else None
        counted = set() if self.states is None else set(self.states.columns)
        self.integrated = tuple(column for column in range(joint.prior.features) if column not in counted)
        self._check_countable()
        self.prior = joint.prior
        if self.integrated:
            self._check_integrable()
            if self.states is not None:
                self.prior = self._integrated_prior(self.states)

    @property
    def count(self) -> int:
        """Of the states; 1 where there are none."""
        return 1 if self.states is None else self.states.count

    def _check_countable(self) -> None:
        prior = self.model.prior
        measures = prior.measure.columns(prior.features)
        if any(measures[column] is not Measure.LEBESGUE for column in self.integrated):
            raise ValueError(
                "quadrature integrates over continuous latents and sums over those of finitely many values, such as "
                f"bits and one-hot vectors; {self.name} has a latent of another kind, with a {type(prior).__name__} "
                "prior. Use importance"
            )
        most = MOST_BESIDE if self.integrated else MOST_STATES
        if self.count > most:
            beside = " with an integral each" if self.integrated else ""
            raise ValueError(
                f"quadrature sums over at most {most} states of discrete latents{beside}; {self.name} has "
                f"{self.count}. Use lvm.evidence.importance"
            )

    def _check_integrable(self) -> None:
        prior, count = self.model.prior, len(self.integrated)
        if prior.context_features and (self.states is not None or not isinstance(prior, GaussianFamily)):
            raise ValueError(
                "quadrature takes a prior p(z|c) where it is Gaussian, or where all of it can be counted; that of "
                f"{self.name} is {type(prior).__name__}, another one for every context. Use lvm.evidence.annealed or "
                "importance"
            )
        most = LARGEST_LATENT if self.states is None else LARGEST_BESIDE
        if count > most:
            beside = "" if self.states is None else " beside discrete ones"
            raise ValueError(
                f"quadrature takes at most {most} continuous latents{beside}, since its cost is exponential in them; "
                f"{self.name} has {count}. Use lvm.evidence.importance or annealed"
            )

    def _integrated_prior(self, states: States) -> Density:
        """That of the integrated columns, where it does not depend on the states."""
        parts, columns = _factors(self.model.prior, range(self.model.prior.features))
        own = [place for place, part in enumerate(columns) if set(part) <= set(self.integrated)]
        if sorted(column for place in own for column in columns[place]) != list(self.integrated):
            raise ValueError(
                "quadrature over discrete and continuous latents takes a prior under which these are independent, "
                f"Product([p(s), p(z)]); that of {self.name} is {type(self.model.prior).__name__}. Use importance"
            )
        if len(own) == 1:
            (place,) = own
            if list(columns[place]) == list(self.integrated):
                return parts[place]
        of_parts = [[self.integrated.index(column) for column in columns[place]] for place in own]
        return Product([parts[place] for place in own], of_parts)


def _factors(density: Density, columns: range | list[int]) -> tuple[list[Density], list[list[int]]]:
    """The independent parts of a density, and which of the columns each is about."""
    if not isinstance(density, Product):
        return [density], [list(columns)]
    parts, places = list[Density](), list[list[int]]()
    for part, own in zip(density.factors, density.columns, strict=True):
        below, of_below = _factors(part, [columns[column] for column in own])
        parts, places = parts + below, places + of_below
    return parts, places
