"""What an estimator of the gradient of a bound is: a function of model and points, and of the step of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from density.checks import settle_counts
from density.contract import Density
from density.measure import Measure
from lvm.latent import LatentVariableModel


class GradientEstimator(ABC):
    """Maps a model and points to a bound on log p(x) whose gradient is the estimator's.

    Attributes:
        draws: latent draws for each point.

    >>> from lvm import VAE
    >>> from lvm.gradients import Reparametrised
    >>> Reparametrised(draws=3)(VAE.gaussian(4, 2, hidden=(8,)), torch.zeros(5, 4)).shape
    torch.Size([5])
    """

    draws: int

    def __post_init__(self) -> None:
        settle_counts(self, "draws")

    def __call__(
        self,
        model: LatentVariableModel,
        x: Tensor,
        generator: Generator | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """An estimate of the bound at x ``[*batch, D]``, nats, whose *derivative* is the estimator's gradient.

        Value and gradient are kept apart: the value is that of the bound, unbiased, also where the expression that is
        differentiated (the surrogate) has another value.

        Args:
            generator: of the latent draws, on the device of x.
            context: contexts ``[*batch, C]`` of a conditional model.

        Returns:
            Shape ``[*batch]``.

        Raises:
            TypeError: the model has no encoder and decoder densities; x is of another dtype; or the estimator
                differentiates through the draws and the encoder's are not reparametrised.
            ValueError: x has the wrong shape, or a context is missing, superfluous or of another size.
        """
        name = type(self).__name__
        if not isinstance(model, LatentVariableModel):
            raise TypeError(
                f"{name} needs a LatentVariableModel, with a prior, an encoder and a decoder; got "
                f"{type(model).__name__}"
            )
        bound, surrogate = self._estimate(model, model._rows(x, context, name), generator)
        return bound if surrogate is bound else bound.detach() + (surrogate - surrogate.detach())

    def at(self, step: int) -> GradientEstimator:
        """The estimator of a step of a fit, of which the first is 0: another one where it changes on the way."""
        return self

    @property
    def period(self) -> int:
        """Steps after which it has been all that it will be in a fit; 0 where it is always the same."""
        return 0

    def settled(self) -> GradientEstimator:
        """The estimator by which a fit judges held-out rows, whatever the step."""
        return self

    @abstractmethod
    def _estimate(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """The bound and the expression to differentiate, each ``[*batch]``.

        Of a conditional model, x are points with their contexts behind them, as its parts see these.
        """

    def _pathwise(self, model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Draws ``[draws, *batch, d]`` that can be differentiated in φ, and their log q."""
        z, log_q = model.encoder.sample_with_log_prob(self.draws, context=x, generator=generator)
        self._require_path(model.encoder, z)
        return z, log_q

    def _require_path(self, encoder: Density, z: Tensor) -> None:
        pathwise = z.requires_grad and Measure.COUNTING not in encoder.measure.columns(encoder.features)
        if torch.is_grad_enabled() and not pathwise and any(p.requires_grad for p in encoder.parameters()):
            raise TypeError(
                f"{type(self).__name__} differentiates through the latent draws, and those of "
                f"{type(encoder).__name__} do not depend on its parameters by a differentiable path. "
                "Use ScoreFunction or LeaveOneOut"
            )
