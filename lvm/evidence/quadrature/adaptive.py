"""log p(x) by quadrature over up to three continuous latents, or by the sum over a discrete one."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from density.checks import check_count
from density.data.points import Points
from density.evaluating import evaluated
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from density.log_density import Kind, LogDensity
from density.measure import Measure
from density.parallel import processes
from lvm.evidence.quadrature.cubature import Tolerance
from lvm.evidence.quadrature.integral import integrate
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.joint import Joint
from lvm.evidence.quadrature.prior import GROWTHS, Prior
from lvm.evidence.quadrature.region import seeds
from lvm.evidence.quadrature.rules import GaussKronrod
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

LARGEST_LATENT = 3
SCALARS_AT_ONCE = 2**22  # values of the log-joint held at one time
DEFAULT = Tolerance(aim=1e-8, enough=4e-5)  # nats


@evaluated
def quadrature(
    model: LayeredModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    tolerance: float | None = None,
    max_evaluations: int | None = None,
    generator: Generator | None = None,
) -> LogDensity:
    r"""log p(x) by integrating out at most three continuous latents, or summing over a discrete one.

    .. math:: \log p(x) = \log \int p(z)\, p(x|z)\, dz

    For each point the whole region of the prior (nine standard deviations, more where p(x, z) reaches beyond) is
    searched for mass with the nodes of a 15ᵈ Gauss-Kronrod rule in every one of a few boxes. Boxes shrink to where the
    log-joint, with what may hide between its nodes, matters at the given tolerance, and are halved until the nodes
    resolve it; so narrow, far and several modes are found by their flanks, without the encoder. Draws of the encoder
    and the prior say where a peak on an otherwise flat log-joint may be.

    A prior that is not Gaussian may have narrow modes that hide between all nodes. Therefore the boxes are cut first
    where the prior has a draw (of a mixture: some from each component) whose density the nodes do not tell of, and then
    tried on the prior itself, whose integral is known to be 1. What is missing there counts as error of every point,
    weighed by the largest likelihood; parts of less than a ten-thousandth of the tolerance are not looked for. A peak
    of the likelihood that no draw of prior or encoder and no flank shows is not found.

    The remaining boxes are then summed by the trapezoidal rule on lattices that whiten the posterior, which converges
    faster than any power for a smooth integrand that has died away at the border (Trefethen & Weideman 2014), and with
    the square of the step at the kinks of a ReLU decoder; its error is estimated from the differences of several
    lattices. Where it misses the tolerance, or disagrees with the boxes' own sum, the boxes are halved further; their
    error is estimated from null rules (Berntsen & Espelid 1991), with QUADPACK's exponent, and added over boxes. Both
    include the mass seen outside the boxes and the rounding of the log-joint.

    All of it runs in float64: a float32 model is copied, with its parameters as they are, so that the value is that of
    the model in exact arithmetic and not of its rounding.

    Args:
        model: latents of ``prior.features`` ≤ 3 with a Lebesgue density, or one-hot (a categorical prior).
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model. Its prior may be unconditional, Gaussian given c (then it
            is whitened, point by point) or categorical.
        tolerance: largest error estimate of an exact value, nats. If None, 1e-8 is aimed at and 4e-5 is enough: a point
            whose log-joint has kinks, at which another digit takes ten times as long, is left there.
        max_evaluations: of the log-joint, for each point; 10⁵ for one latent, 10⁶ for two and 10⁷ for three if None.
        generator: of the draws of prior and encoder, on the device of x.

    Returns:
        A :class:`~density.log_density.LogDensity`, float64, with the error estimate of each point in
        ``numerical_error``. It is EXACT if all of them meet the tolerance, 4e-5 if there is none, and ``method`` says
        which was met; else it is an ESTIMATE whose ``method`` says how many points miss it. Errors are estimates: at
        kinks, two points in a hundred were found to exceed theirs, by less than twice. Sums over a discrete latent are
        exact.

    Raises:
        TypeError: the model has no log-joint.
        ValueError: more than three latents, a discrete latent that cannot be enumerated, a conditional prior that is
            neither Gaussian nor categorical, unusable data or settings, a
            decoder of the wrong shape, or a log-joint of nan or +inf (which is located).

    Cost O(n) times 10³ (one latent), 10⁴ (two) or 10⁵ (three) log-joints for a posterior with one mode, ten times as
    many at kinks; memory bounded. A prior that is not Gaussian costs some 10⁵ of its own log-densities beside that.

    >>> from lvm.vae.linear import LinearVAE
    >>> model = LinearVAE(3, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    >>> claim = quadrature(model, x)
    >>> claim.kind
    <Kind.EXACT: 'exact'>
    >>> bool((claim.value - model.double().log_prob(x.double())).abs().max() < 1e-8)
    True
    """
    joint = integrable(model)
    if max_evaluations is None:
        max_evaluations = 10 ** (4 + joint.prior.features)
    max_evaluations = check_count(max_evaluations, "max_evaluations")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be positive and finite, in nats; got {tolerance!r}")
    model._check_asked(x, context)
    with torch.no_grad():
        if joint.prior.reference.dtype != torch.float64:
            joint = deepcopy(joint).double()
        x, context = x.double(), None if context is None else context.double()
        rows = joint._rows(x, context)
        if isinstance(joint.prior, CategoricalFamily):
            return _exact_sum(joint, x, rows)
        wanted = DEFAULT if tolerance is None else Tolerance(tolerance, tolerance)
        return _integral(joint, x, rows, wanted, max_evaluations, generator)


def integrable(model: LayeredModel) -> LatentVariableModel:
    """The model as one of a latent (:func:`~lvm.hierarchy.unrolled.unrolled`); TypeError or ValueError unless that can
    be summed or integrated out.
    """
    name, model = type(model).__name__, unrolled(model)
    if not isinstance(model, LatentVariableModel):
        raise TypeError(
            f"quadrature needs a LatentVariableModel, with log_joint(x, z); got {name}. "
            "For any model with log-weights there is lvm.evidence.importance"
        )
    latents = model.prior.features
    if isinstance(model.prior, CategoricalFamily):
        return model
    if model.prior.measure is not Measure.LEBESGUE:
        raise ValueError(
            f"quadrature integrates over continuous latents and sums over one-hot ones (a categorical prior); "
            f"{name} has a discrete latent with a {type(model.prior).__name__} prior. Use importance"
        )
    if model.prior.context_features and not isinstance(model.prior, GaussianFamily):
        raise ValueError(
            f"quadrature takes a prior p(z|c) where it is Gaussian or categorical; that of {name} is "
            f"{type(model.prior).__name__}, another one for every context. Use lvm.evidence.annealed or importance"
        )
    if latents > LARGEST_LATENT:
        raise ValueError(
            f"quadrature takes at most {LARGEST_LATENT} continuous latents, since its cost is exponential in them; "
            f"{name} has {latents}. Use lvm.evidence.importance or annealed"
        )
    return model


def _exact_sum(model: LatentVariableModel, x: Tensor, rows: Tensor) -> LogDensity:
    assert isinstance(model.prior, CategoricalFamily)
    values = model.prior.enumerate()
    joint = Joint(model)
    size = max(1, SCALARS_AT_ONCE // (values.shape[0] * model.features))
    parts = [
        Integrand(joint, part, start, apart=joint.apart).shared(values).logsumexp(1)
        for start, part in zip(range(0, x.shape[0], size), rows.split(size), strict=True)
    ]
    method = f"exact sum over {values.shape[0]} latent values"
    return LogDensity(torch.cat(parts), Kind.EXACT, method, measure=model.measure, points=Points.of(x))


def _integral(
    model: LatentVariableModel,
    x: Tensor,
    rows: Tensor,
    tolerance: Tolerance,
    max_evaluations: int,
    generator: Generator | None,
) -> LogDensity:
    joint = Joint(model)
    rule = GaussKronrod(model.prior.features, x.device)
    prior = Prior(joint.prior, rule, tolerance, max_evaluations, generator)
    first = prior.partition(0)
    # A log-joint of the wrong shape fails here, by name.
    Integrand(joint, rows[:1], 0).shared(first.region.centre.unsqueeze(0))
    size = max(1, SCALARS_AT_ONCE // (first.boxes.point.numel() * rule.nodes.shape[0]))
    value, error = torch.empty_like(x[:, 0]), torch.empty_like(x[:, 0])
    hidden = None if x.shape[0] > size and processes.is_main() else True
    bar = tqdm(total=x.shape[0], desc="quadrature", leave=False, disable=hidden)
    with bar:
        for start in range(0, x.shape[0], size):
            left = torch.arange(start, min(start + size, x.shape[0]), device=x.device)
            places, known = seeds(joint, rows[left], generator)
            for growth in range(GROWTHS):
                here = left - start
                integrand = Integrand(joint, rows[left], left, apart=joint.apart)
                result = integrate(
                    integrand, prior.partition(growth), rule, places[here], known[here], tolerance, max_evaluations
                )
                value[left], error[left] = result.value, result.error
                if growth == GROWTHS - 1:
                    error[left[result.outgrown]] = math.inf
                left = left[result.outgrown]
                if not left.numel():
                    break
            bar.update(min(size, x.shape[0] - start))
    reached = tolerance.aim if bool((error <= tolerance.aim).all()) else tolerance.enough
    missed = int((~(error <= tolerance.enough)).sum())
    method = f"{model.prior.features}-dimensional adaptive quadrature to {reached:g} nats"
    if missed:
        method += f", missed at {missed} of {x.shape[0]} points"
    return LogDensity(
        value,
        Kind.ESTIMATE if missed else Kind.EXACT,
        method,
        measure=model.measure,
        numerical_error=error,
        points=Points.of(x),
    )
