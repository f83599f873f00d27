"""The parameters of PPCA, and what an E-step at some of them gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lvm.em import Parameters


@dataclass(frozen=True, eq=False)
class PPCAParameters(Parameters):
    """μ ``[D]``, W ``[D, q]`` and σ², in float64."""

    mean: Tensor
    weight: Tensor
    noise_variance: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.weight, self.noise_variance

    def having(self, *tensors: Tensor) -> PPCAParameters:
        return PPCAParameters(*tensors)


class Expectation(ABC):
    """The result of an E-step at some parameters.

    Attributes:
        objective: the mean log p(x) there, which comes at no further cost.
    """

    objective: Tensor

    @abstractmethod
    def maximise(self) -> PPCAParameters:
        """The M-step."""
