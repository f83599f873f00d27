"""What a decoder says at some latents, as components of a finite mixture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from density.contract import Density
from density.families.bernoulli import BernoulliFamily
from density.families.composed.category import Category
from density.families.composed.columns import Columns
from density.families.composed.featured import Featured
from density.families.composed.product import Product
from density.families.gaussian import GaussianFamily
from density.families.levels.categorical_levels import CategoricalLevels
from density.families.likelihoods.bernoulli import BernoulliLikelihood
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.likelihoods.gaussian import GaussianLikelihood
from density.families.likelihoods.univariate import IndependentFamily
from density.families.rescaled import Rescaled
from density.families.scale import DiagonalScale

KINDS = "bits, categories, counts of a Poisson decoder, or numbers with diagonal covariances"


@dataclass(frozen=True, eq=False)
class ComponentColumns:
    """The columns of K components: a family for each, and its numbers in every component.

    Attributes:
        likelihoods: of each column, exponential families, of which the numbers are those of ``natural()``.
        numbers: of each column, ``[K, numbers]``.
    """

    likelihoods: tuple[ExponentialFamily, ...]
    numbers: tuple[Tensor, ...]

    @staticmethod
    def of(decoder: Density, z: Tensor) -> ComponentColumns:
        """Those of a decoder at latents ``[K, d]``.

        Raises:
            TypeError: a decoder whose features are dependent, or of a family whose marginals have no closed form.
        """
        if isinstance(decoder, Featured):
            return ComponentColumns.of(decoder.density, decoder._seen(z))
        if isinstance(decoder, Product):
            return _of_product(decoder, z)
        if isinstance(decoder, BernoulliFamily):
            return _of_columns(BernoulliLikelihood(), decoder.logits_at(z).unsqueeze(-2), len(z))
        if isinstance(decoder, IndependentFamily):
            likelihood = decoder.likelihood
            if isinstance(likelihood, CategoricalLevels):
                return _of_columns(Category(likelihood.levels), decoder.parameters_at(z), len(z))
            if isinstance(likelihood, ExponentialFamily):
                return _of_columns(likelihood.natural(), decoder.parameters_at(z), len(z))
        inner = decoder.density if isinstance(decoder, Rescaled) else decoder
        if isinstance(inner, GaussianFamily):
            mean, scale = inner.at(z)
            if isinstance(scale, DiagonalScale):
                std = scale.std.expand_as(mean)
                if isinstance(decoder, Rescaled):
                    mean, std = decoder.standardise.inverse(mean), std * decoder.standardise.scale
                return _of_columns(GaussianLikelihood(), torch.stack([mean, std.log()], 1), len(z))
        raise TypeError(f"as_mixture takes a decoder of {KINDS}; got {_named(decoder)}")

    @property
    def gaussian(self) -> bool:
        """Whether all columns are numbers."""
        return all(isinstance(likelihood, GaussianLikelihood) for likelihood in self.likelihoods)

    @property
    def likelihood(self) -> ExponentialFamily | Columns:
        """Of the table: one for all columns where they are alike."""
        first = self.likelihoods[0]
        return first if all(likelihood == first for likelihood in self.likelihoods) else Columns(self.likelihoods)

    def stacked(self, columns: tuple[int, ...]) -> Tensor:
        """The numbers of columns of one family ``[K, numbers · |columns|]``, as a density takes them."""
        return torch.stack([self.numbers[column] for column in columns], -1).flatten(1)


def _of_columns(likelihood: ExponentialFamily, parameters: Tensor, components: int) -> ComponentColumns:
    """Columns of one family, of parameters ``[K, numbers, D]``, or ``[numbers, D]`` for all components."""
    numbers = parameters.expand(components, *parameters.shape[-2:]).unbind(-1)
    return ComponentColumns((likelihood,) * len(numbers), tuple(numbers))


def _of_product(decoder: Product, z: Tensor) -> ComponentColumns:
    likelihoods: dict[int, ExponentialFamily] = {}
    numbers: dict[int, Tensor] = {}
    for part, columns, share in zip(decoder.factors, decoder.columns, decoder._shares(z), strict=True):
        own = ComponentColumns.of(part, z if share is None else share)
        likelihoods |= dict(zip(columns, own.likelihoods, strict=True))
        numbers |= dict(zip(columns, own.numbers, strict=True))
    order = sorted(numbers)
    return ComponentColumns(tuple(likelihoods[each] for each in order), tuple(numbers[each] for each in order))


def _named(decoder: Density) -> str:
    name = type(decoder).__name__
    return f"{name} of {type(decoder.likelihood).__name__}" if isinstance(decoder, IndependentFamily) else name
