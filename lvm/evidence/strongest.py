"""The strongest affordable claim about log p(x)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from density.contract import Bound, ExactModel, Model
from density.evaluating import evaluated
from density.importance.bound import importance
from density.log_density import LogDensity
from density.measure import Measure
from lvm.evidence.annealing.bounds import annealed
from lvm.evidence.quadrature.adaptive import quadrature
from lvm.evidence.quadrature.latents import Latents
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

AFFORDABLE_LATENTS = 2  # each further one costs quadrature a factor of ten
DRAWS = 5000


Method = Callable[..., LogDensity]


@evaluated
def evidence(
    model: Model,
    x: Tensor,
    *,
    context: Tensor | None = None,
    method: Method | None = None,
    generator: Generator | None = None,
) -> LogDensity:
    """log p(x) by the strongest method that this model affords; the result's ``method`` says which.

    The choice depends on the model alone, never on the numbers that come out, so that it adds no bias:

    1. a model that knows log p(x), tight layered models among them: that;
    2. discrete latents of up to 65,536 states, bits or one-hot vectors say, together: the exact sum;
    3. up to two continuous latents, also beside discrete ones of 256 states at most, those of a hierarchy or a chain of
       stochastic links counted together: quadrature, exact to 1e-8 nats where that is cheap, and to 1e-3 where the
       decoder has kinks, if its error estimate says so for all points, and else an estimate;
    4. more of them, or a conditional prior that is not Gaussian: annealed importance sampling from the encoder, a lower
       bound;
    5. any other model with log-weights: the importance-weighted bound with 5,000 draws.

    Args:
        model: anything of which one can ask log p(x).
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model.
        method: use this one instead, called as ``method(model, x, generator=generator)``, and with ``context=`` where
            there is one: ``quadrature`` for three latents, say, or ``functools.partial(annealed, steps=1000)``.
        generator: of all draws, on the device of x.

    Raises:
        TypeError: the model has neither log p(x) nor log-weights.
        ValueError: unusable data; see also the method's own errors.

    >>> import torch
    >>> from lvm import PPCA, VAE
    >>> _ = torch.manual_seed(0)
    >>> x = torch.zeros(2, 3)
    >>> evidence(PPCA(3, 1), x).method
    'Woodbury'
    >>> evidence(VAE.gaussian(3, 1, hidden=(4,)), x).kind
    <Kind.EXACT: 'exact'>
    """
    if method is not None:
        if context is None:
            return method(model, x, generator=generator)
        return method(model, x, context=context, generator=generator)
    if isinstance(model, ExactModel):
        return model._claim(x, context)
    if isinstance(model, LayeredModel) and isinstance(joint := unrolled(model), LatentVariableModel):
        if _summable(model):
            return quadrature(model, x, context=context, generator=generator)
        if joint.prior.measure is Measure.LEBESGUE:
            return annealed(model, x, context=context, generator=generator)
    if isinstance(model, Bound):
        return importance(model, x, context=context, draws=DRAWS, generator=generator)
    raise TypeError(f"evidence needs a model with log p(x) or log-weights; {type(model).__name__} has neither")


def _summable(model: LayeredModel) -> bool:
    """Whether sums and integrals over all latents are affordable."""
    try:
        latents = Latents(model)
    except ValueError:
        return False
    return len(latents.integrated) <= AFFORDABLE_LATENTS
