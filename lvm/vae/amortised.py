"""Models whose encoder is trained with the rest, by any estimator of the gradient of a bound."""

from __future__ import annotations

from abc import ABC

from torch import Generator, Tensor

from density.fitting.batches import Objective
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from lvm.latent import LatentVariableModel
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import AnalyticKL

ANALYTIC_KL = AnalyticKL()


class AmortisedModel(LatentVariableModel, ABC):
    """A latent-variable model whose encoder is a network that is trained with prior and decoder.

    >>> from lvm import VAE, AmortisedModel, HierarchicalVAE
    >>> issubclass(VAE, AmortisedModel), issubclass(HierarchicalVAE, AmortisedModel)
    (True, True)
    """

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        context: Tensor | None = None,
        estimator: GradientEstimator = ANALYTIC_KL,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise a bound on the mean log p(x) of x ``[n, D]``, the ELBO unless said otherwise, by gradient steps.

        Args:
            x: a tensor, whose rows are read where they lie, be it in a file that is mapped; or what
                :class:`~density.data.chunks.Chunks` reads, such as a DataLoader. What comes beside the rows in a
                chunk, labels perhaps, is left alone.
            training: see :class:`~density.fitting.training.Training`.
            context: contexts ``[n, C]`` of a conditional model.
            estimator: of the gradient, see :mod:`lvm.vae.gradients`: the bound, and the number of draws, are its. The
                default is the reparametrised ELBO with the KL in closed form; ``AnalyticKL(kl_weight=beta)`` is the
                β-VAE, ``DoublyReparametrised(draws=K)`` trains the importance-weighted bound.
            weights: of the rows ``[n]``, not negative: the weighted mean is maximised. A row of weight 0 is not there.
                Chunks may bring them along, ``Chunks(loader, weighted=True)``.
            validation: rows ``[m, D]`` to hold out, in place of a share of x, perhaps in chunks; held in memory.

        Returns:
            History whose objective is the estimator's bound, nats per point.

        Raises:
            ValueError: unusable data or contexts, or such in other units than those of an earlier fit
                (:meth:`initialise`).
            TypeError: the estimator differentiates through the latent draws, and the encoder is not reparametrised.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        given = prepare(self, x, training, self._check_support, context=context, weights=weights, validation=validation)

        def bound(estimator: GradientEstimator) -> Objective:
            return lambda batch, generator: estimator(self, batch[0], generator, *batch[1:])

        judge = estimator.settled()
        stepwise = None if judge is estimator else lambda step: bound(estimator.at(step))
        return given.maximise(self, bound(judge), training, generator, stepwise=stepwise, period=estimator.period)
