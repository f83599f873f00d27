"""Flows: densities by change of variables."""

from __future__ import annotations

from torch import Generator, Tensor

from density.contract import Density
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure
from density.support import Step, Support, preimage
from flows.objective import FlowObjective, MaximumLikelihood, PushForward
from flows.transform import Transform, broadcast

LIKELIHOOD = MaximumLikelihood()


class Flow(PushForward):
    r"""A flow: the density of x when z = f(x) has the base density (Rezende & Mohamed 2015, arXiv:1505.05770, eq. 5).

    .. math:: \log p(x|c) = \log p_{\text{base}}(f(x; c)) + \log|\det \partial f/\partial x|

    Args:
        base: density of z: a :class:`~density.families.gaussian.StandardNormal`, another flow, a conditional density.
        transform: f, data to noise. Where both take a context, they take the same one.

    Raises:
        TypeError: not a Density and a Transform.
        ValueError: base and transform differ in features or context features, or the base is discrete.

    Cost: one pass of the transform, forward for ``log_prob`` and inverse for samples, and of the base.

    >>> import torch
    >>> from density.families.gaussian import StandardNormal
    >>> from flows import LULinear
    >>> flow = Flow(StandardNormal(2), LULinear.from_matrix(torch.diag(torch.tensor([1.0, 4.0]))))
    >>> flow.log_prob(torch.zeros(1, 2))  # −log 2π + log 4
    tensor([-0.4516], grad_fn=<AddBackward0>)
    """

    method = "change of variables"

    def __init__(self, base: Density, transform: Transform) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(base, Density) or not isinstance(transform, Transform):
            raise TypeError(
                f"{owner} takes a base Density and a Transform, in this order; "
                f"got {type(base).__name__} and {type(transform).__name__}"
            )
        if base.measure is not Measure.LEBESGUE:
            raise ValueError(f"{owner} expects a continuous base; {type(base).__name__} is discrete")
        names = f"the base {type(base).__name__}", f"the transform {type(transform).__name__}"
        if transform.features not in (None, base.features):
            raise ValueError(
                f"{owner}: {names[0]} has {base.features} features, {names[1]} has {transform.features}; "
                "they must agree"
            )
        contexts = {base.context_features, transform.context_features} - {0}
        if len(contexts) > 1:
            raise ValueError(
                f"{owner}: {names[0]} takes {base.context_features} context features, {names[1]} takes "
                f"{transform.context_features}; they get the same context, so they must agree (or one takes none)"
            )
        self.base = base
        self.transform = transform
        self.features = base.features
        self.context_features = contexts.pop() if contexts else 0

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        context: Tensor | None = None,
        objective: FlowObjective = LIKELIHOOD,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximum likelihood by gradient, or another objective, on points ``[n, D]`` given contexts ``[n, C]``.

        The flow moves to the dtype and device of x, and starts from :meth:`initialise`.

        Args:
            x: a tensor, whose rows are read where they lie, be it in a file that is mapped; or what
                :class:`~density.data.chunks.Chunks` reads, such as a DataLoader. Of a flow that takes contexts, chunks
                are tuples (rows, contexts); else what may come beside the rows, labels perhaps, is left alone.
            training: see :class:`~density.fitting.training.Training`.
            context: for each row of a tensor.
            objective: what is maximised: :class:`~flows.objective.MaximumLikelihood`, or of a continuous flow
                :class:`~flows.continuous.flow_matching.FlowMatching`.
            weights: of the rows ``[n]``, not negative: Σ w log p / Σ w is maximised. A row of weight 0 is not there.
                Chunks may bring them along, ``Chunks(loader, weighted=True)``.
            validation: rows to hold out, in place of a share of x; with contexts, a pair. They may come in chunks, and
                are held in memory.
            generator: of the order of the rows, and of what the objective draws, on the device of x.

        Raises:
            TypeError, ValueError: the data or the contexts are not what the flow takes, not finite, outside its
                support, or in other units than those of an earlier fit. The flow is then as it was.
            NonFiniteObjective: see :func:`~density.fitting.ascent.maximise`.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        given = prepare(self, x, training, self.check_support, context=context, weights=weights, validation=validation)

        def each(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            x, *contexts = batch
            return objective(self, x, contexts[0] if contexts else None, generator)

        return given.maximise(self, each, training, generator)

    @property
    def support(self) -> Support | None:
        transform = self.transform
        steps = [Step(type(transform).__name__, transform.domain, lambda x: transform._forward(x, None)[0])]
        if not transform.context_features:
            steps.append(Step(f"the base {type(self.base).__name__}", self.base.support))
        return preimage(steps)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        z = self.transform._initialise(x, context if self.transform.context_features else UNKNOWN)
        self.base._initialise(z, context if self.base.context_features else UNKNOWN)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = self.transform._forward(*self._paired(x, context))
        return self.base._log_prob(z, self._base_context(context)) + log_det

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        if context is None or self.base.context_features:
            z = self.base._sample(n, self._base_context(context), generator)
        else:
            z = self.base._sample(n * context.shape[:-1].numel(), None, generator)
            z = z.reshape(n, *context.shape[:-1], self.features)
        self.transform.check_image(z)
        return self.transform._inverse_points(*self._paired(z, context))

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        if context is None or self.base.context_features:
            z, log_prob = self.base._sample_with_log_prob(n, self._base_context(context), generator)
        else:
            z, log_prob = self.base._sample_with_log_prob(n * context.shape[:-1].numel(), None, generator)
            z, log_prob = z.reshape(n, *context.shape[:-1], self.features), log_prob.reshape(n, *context.shape[:-1])
        self.transform.check_image(z)
        x, log_det = self.transform._inverse(*self._paired(z, context))
        return x, log_prob - log_det

    def _paired(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The transform's arguments: points and contexts of one batch shape, or points alone."""
        return broadcast(x, context) if self.transform.context_features else (x, None)

    def _base_context(self, context: Tensor | None) -> Tensor | None:
        return context if self.base.context_features else None
