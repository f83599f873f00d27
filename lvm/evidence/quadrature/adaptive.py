"""log p(x) by quadrature over up to three continuous latents, by the sum over discrete ones, or by both."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from density.checks import check_count
from density.contract import Density
from density.data.blocks import rows_at_once
from density.data.points import Points
from density.evaluating import evaluated
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from density.log_density import Kind, LogDensity
from density.numerical import ASKED, numerical_parts, with_numerical_error
from density.parallel import processes
from lvm.evidence.quadrature.cubature import Tolerance
from lvm.evidence.quadrature.integral import integrate
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.joint import Joint
from lvm.evidence.quadrature.latents import Latents
from lvm.evidence.quadrature.prior import GROWTHS, Prior
from lvm.evidence.quadrature.region import seeds
from lvm.evidence.quadrature.rules import GaussKronrod
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

SCALARS_AT_ONCE = 2**22  # values of the log-joint held at one time on a CPU
SCALARS_OF_A_ROW = 2**6  # elsewhere, for each of the rows that pass through the networks together
STATES_AT_ONCE = 2**9  # of discrete latents
BARRING = ", but for lone spikes between its nodes"
DEFAULT = Tolerance(aim=1e-8, enough=1e-3)  # nats


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
    r"""log p(x) by integrating out at most three continuous latents, summing over discrete ones, or both.

    .. math:: \log p(x) = \log \int p(z)\, p(x|z)\, dz, \qquad
              \log p(x) = \log \sum_s p(s)\, p(x|s), \qquad
              \log p(x) = \log \sum_s p(s) \int p(z)\, p(x|s, z)\, dz

    Latents of finitely many values (bits, one-hot vectors, levels, several of them side by side or above each other)
    are summed over, up to 65,536 states; beside them up to two continuous latents, independent of them under the prior,
    are integrated for each of up to 256 states.

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
        model: latents that are at most three numbers with a Lebesgue density, or have finitely many states; or, with
            ``prior=Product([p(s), p(z)])``, of both kinds.
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model. Its prior may be unconditional, Gaussian given c (then it
            is whitened, point by point) or categorical.
        tolerance: largest error estimate of an exact value, nats. If None, 1e-3 is enough, which is little beside the
            scatter of data, and 1e-8 is aimed at where digits are cheap: with a Gaussian or a mixture for the prior,
            and no kinks in the log-joint, at which another digit takes ten times as long.
        max_evaluations: of the log-joint, for each point; 10⁵ for one latent, 10⁶ for two and 10⁷ for three if None.
        generator: of the draws of prior and encoder, on the device of x.

    Returns:
        A :class:`~density.log_density.LogDensity`, float64, with the error estimate of each point in
        ``numerical_error``; where prior or decoder compute by a solver, with its error in the log-joint at four draws
        of the encoder. It is EXACT if all of them meet the tolerance, 1e-3 if there is none, and ``method`` says
        which was met, and that it cannot exclude lone spikes; else it is an ESTIMATE whose ``method`` says how many
        points miss it. Errors are estimates: at kinks, two points in a hundred were found to exceed theirs, by less
        than twice. Sums over discrete latents are exact.

    Raises:
        TypeError: the model has no log-joint.
        ValueError: more than three continuous latents, or two beside discrete ones; too many states, or latents that
            cannot be counted; a conditional prior that is neither Gaussian nor counted; unusable data or settings, a
            decoder of the wrong shape, or a log-joint of nan or +inf (which is located).

    Cost O(n) times 10³ (one latent), 10⁴ (two) or 10⁵ (three) log-joints for a posterior with one mode, ten times as
    many at kinks, and as much for every state beside; memory bounded. S states alone are decoded once each, O(nSD). A
    prior that is not Gaussian costs some 10⁵ of its own log-densities beside that.

    >>> from lvm.vae.linear import LinearVAE
    >>> model = LinearVAE(3, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    >>> claim = quadrature(model, x)
    >>> claim.kind
    <Kind.EXACT: 'exact'>
    >>> bool((claim.value - model.double().log_prob(x.double())).abs().max() < 1e-8)
    True
    """
    latents = Latents(model)
    if max_evaluations is None:
        max_evaluations = 10 ** (4 + len(latents.integrated))
    max_evaluations = check_count(max_evaluations, "max_evaluations")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be positive and finite, in nats; got {tolerance!r}")
    model._check_asked(x, context)
    with torch.no_grad():
        if latents.model.prior.reference.dtype != torch.float64:
            latents = Latents(deepcopy(latents.model).double())
        x, context = x.double(), None if context is None else context.double()
        rows = latents.model._rows(x, context)
        wanted = DEFAULT if tolerance is None else Tolerance(tolerance, tolerance)
        error: Tensor | None
        if latents.integrated:
            value, error, missed, how = _integrals(latents, rows, wanted, max_evaluations, generator)
        else:
            value, error, missed = _sum(latents, rows), None, 0
            how = f"exact sum over {latents.count} latent values"
        claim = LogDensity(
            value,
            Kind.ESTIMATE if missed else Kind.EXACT,
            f"{how}, missed at {missed} of {x.shape[0]} points" if missed else how,
            measure=model.measure,
            numerical_error=error,
            points=Points.of(x),
        )
        return _solved(latents.model, claim, rows, generator)


def _solved(model: LatentVariableModel, claim: LogDensity, rows: Tensor, generator: Generator | None) -> LogDensity:
    """A claim with what numerical parts of prior and decoder err by in the log-joint, at draws of the encoder."""
    densities = nn.ModuleList([model.prior, model.decoder])
    if not numerical_parts(densities):
        return claim
    z = model.encoder.sample(ASKED, context=rows, generator=generator)
    return with_numerical_error(densities, claim, lambda draws, _: model._log_joint(rows, z), generator)


def _sum(latents: Latents, rows: Tensor) -> Tensor:
    """log Σ_s p(x, s), ``[n]``."""
    assert latents.states is not None
    joint = Joint(latents)
    size = max(1, SCALARS_AT_ONCE // (STATES_AT_ONCE * rows.shape[1]))
    parts = []
    for start, part in zip(range(0, rows.shape[0], size), rows.split(size), strict=True):
        integrand = Integrand(joint, part, start, apart=joint.apart)
        total = rows.new_full(part.shape[:1], -math.inf)
        for states in latents.states.blocks(STATES_AT_ONCE):
            total = torch.logaddexp(total, integrand.shared(states).logsumexp(1))
        integrand.look()
        parts.append(total)
    return torch.cat(parts)


def _integrals(
    latents: Latents, rows: Tensor, tolerance: Tolerance, max_evaluations: int, generator: Generator | None
) -> tuple[Tensor, Tensor, int, str]:
    """log Σ_s ∫ p(x, s, z) dz, ``[n]``, an integral for every state; its error, nats, how many miss what will do, and
    how it came about."""
    d = len(latents.integrated)
    if not _plain(latents.prior):
        tolerance = Tolerance(tolerance.enough, tolerance.enough)
    prior = Prior(Joint(latents).prior, GaussKronrod(d, rows.device), tolerance, max_evaluations, generator)
    if latents.states is None:
        value, error = _integral(Joint(latents), rows, prior, tolerance, max_evaluations, generator)
    else:
        value = rows.new_full(rows.shape[:1], -math.inf)
        error = value.clone()  # log Σ_s p(x, s) · error, of the state's own logarithm
        for states in latents.states.blocks(1):
            joint = Joint(latents, states[0])
            of_state, off = _integral(joint, rows, prior, tolerance, max_evaluations, generator)
            value, error = torch.logaddexp(value, of_state), torch.logaddexp(error, of_state + off.log())
        error = (error - value).exp()
    off, missed = torch.stack([(~(error <= most)).sum() for most in (tolerance.aim, tolerance.enough)]).tolist()
    how = f"{d}-dimensional adaptive quadrature to {tolerance.enough if off else tolerance.aim:g} nats{BARRING}"
    how = how if latents.states is None else f"exact sum over {latents.count} latent values, {how}"
    return value, error, missed, how


def _plain(prior: Density) -> bool:
    """Whether it is known where a prior is, and cheap to evaluate: a Gaussian, or a mixture."""
    mixture = isinstance(prior, LatentVariableModel) and isinstance(prior.prior, CategoricalFamily)
    return mixture or isinstance(prior, GaussianFamily)


def _integral(
    joint: Joint,
    rows: Tensor,
    prior: Prior,
    tolerance: Tolerance,
    max_evaluations: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor]:
    """log ∫ exp(joint(x, u)) du, ``[n]``, and its error, nats."""
    n, rule, first = rows.shape[0], prior.rule, prior.partition(0)
    # A log-joint of the wrong shape fails here, by name.
    Integrand(joint, rows[:1], 0).shared(first.region.centre.unsqueeze(0))
    held = SCALARS_AT_ONCE if rows.device.type == "cpu" else SCALARS_OF_A_ROW * rows_at_once(rows)
    size = max(1, held // (first.boxes.point.numel() * rule.nodes.shape[0]))
    value, error = rows.new_empty(n), rows.new_empty(n)
    hidden = None if n > size and processes.is_main() else True
    with tqdm(total=n, desc="quadrature", leave=False, disable=hidden) as bar:
        for start in range(0, n, size):
            left = torch.arange(start, min(start + size, n), device=rows.device)
            places, known = seeds(joint, rows[left], generator)
            for growth in range(GROWTHS):
                here = left - start
                integrand = Integrand(joint, rows[left], left, apart=joint.apart)
                result = integrate(
                    integrand, prior.partition(growth), rule, places[here], known[here], tolerance, max_evaluations
                )
                value[left], error[left] = result.value, result.error
                left = left[result.outgrown]
                if not left.numel():
                    break
            error[left] = math.inf
            bar.update(min(size, n - start))
    return value, error
