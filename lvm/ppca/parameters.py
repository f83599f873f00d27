"""The parameters of PPCA, and what an E-step at some of them gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lvm.em_parameters import ModelParameters


@dataclass(frozen=True, eq=False)
class PPCAParameters(ModelParameters):
    """μ ``[D]``, W ``[D, q]`` and σ², in float64.

    Attributes:
        fixed: the names of those that stay what they are in a fit.
        check: raises what the M-step that led here did not look for; None if there is nothing.
    """

    names: ClassVar[tuple[str, ...]] = ("mean", "weight", "noise_variance")

    mean: Tensor
    weight: Tensor
    noise_variance: Tensor
    fixed: frozenset[str] = frozenset()
    check: Callable[[], None] | None = None

    def require_regular(self) -> None:
        if self.check is not None:
            self.check()

    @property
    def fixed_mean(self) -> Tensor | None:
        """μ, if it stays."""
        return self.mean if "mean" in self.fixed else None

    @property
    def fixed_noise(self) -> Tensor | None:
        """σ², if it stays."""
        return self.noise_variance if "noise_variance" in self.fixed else None

    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.weight, self.noise_variance

    def having(self, *tensors: Tensor) -> PPCAParameters:
        mean, weight, noise_variance = tensors
        return PPCAParameters(mean, weight, noise_variance, self.fixed)


class Expectation(ABC):
    """The result of an E-step at some parameters.

    Attributes:
        objective: the mean log p(x) there, which comes at no further cost.
    """

    objective: Tensor

    @abstractmethod
    def maximise(self, before: PPCAParameters) -> PPCAParameters:
        """The M-step: the maximum over what is not fixed, from the parameters that the E-step was at."""
