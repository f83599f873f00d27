"""What the claims about log p(x) of all points of a space sum to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.checks import check_contexts, check_count, in_words, reference
from density.contract import Model
from density.data.joined import joined, parted
from density.evaluating import evaluated
from density.importance.pareto import pareto_k, resolution
from density.log_density import Kind, LogDensity, Measure
from density.parallel.sharded import sharded
from lvm.evidence.mass.spaces import Space
from lvm.evidence.strongest import Method, evidence


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    r"""The sum of p̂(x) over a space, which is 1 in expectation for every unbiased estimator of a density on it.

    Attributes:
        mass: p̂(x) of every point, times its volume in a box, ``[N]``; the average over the claims about it.
        monte_carlo_error: standard error of each, ``[N]``, nan where the method draws and states none.
        slack: of the sum, what is no matter of chance: the quadrature of the method and of the box, and rounding.
        kind, method: of the claims.
        k: Pareto k̂ of the claims' shares in the error (:func:`~density.importance.pareto.pareto_k`); −∞ for no error.
        claims: how many were made, of one point each.
        seconds: that it took.

    >>> from functools import partial
    >>> from lvm import VAE
    >>> from lvm.evidence import Bits, importance
    >>> vae = VAE.bernoulli(3, latent_features=1, hidden=(4,))
    >>> found = audit(vae, Bits(3), method=partial(importance, draws=20), generator=torch.manual_seed(0))
    >>> found.mass.shape, abs(found.total - 1) < 5 * found.error
    (torch.Size([8]), True)
    """

    mass: Tensor
    monte_carlo_error: Tensor
    slack: float
    kind: Kind
    method: str
    k: float
    claims: int
    seconds: float

    @property
    def total(self) -> float:
        """Σ p̂(x), or the integral."""
        return self.mass.sum().item()

    @property
    def error(self) -> float:
        """Standard error of :attr:`total` over the sampler's randomness; 0 where nothing was sampled."""
        return self.monte_carlo_error.square().sum().sqrt().item()

    @property
    def departure(self) -> float:
        """How many errors lie between the total and 1, with its sign; what slack explains is no departure.

        Near 0 for an unbiased estimator, and beyond ±3 once in 370 times; ±∞ for a departure without error.
        """
        excess = self.total - 1
        beyond = max(abs(excess) - self.slack, 0.0)
        if math.isnan(self.error) or math.isnan(excess):
            return math.nan
        return math.copysign(beyond / self.error if self.error > 0 else math.inf if beyond > 0 else 0.0, excess)

    @property
    def reliable(self) -> bool:
        """Whether the error may be believed: k̂ ≤ ½, as where squares of its shares have a mean."""
        return self.k <= 0.5

    def __repr__(self) -> str:
        sampler = f" ± {self.error:.2g} (Monte Carlo)" if self.error != 0 else ""
        slack = f" ± {self.slack:.2g} (numerical)" if self.slack > 1e-6 else ""
        doubt = "" if self.reliable else f", the error uncertain (k̂ = {self.k:.2f})"
        return (
            f"total = {self.total:.6g}{sampler}{slack}, 1 in expectation if unbiased: {self.departure:+.1f} errors off"
            f"{doubt} ({self.kind.value}, {self.method}, {len(self.mass):,} points, {self.claims:,} claims, "
            f"{self.seconds:.1f} s)"
        )


@evaluated
def audit(
    model: Model,
    space: Space | Tensor,
    *,
    context: Tensor | None = None,
    method: Method | None = None,
    passes: int = 3,
    generator: Generator | None = None,
) -> Audit:
    r"""Does what is claimed about log p(x) sum to 1 over all of a space? An absolute check, on any data.

    .. math:: \sum_x E\,\hat p(x) = \sum_x p(x) = 1

    Every unbiased estimator of p(x), as the averages behind ``importance``, ``prior_importance`` and ``annealed`` are,
    sums to 1 up to its error, on whatever points of the space the mass lies; so does what is exact. A departure beyond
    the error convicts the estimator: of a wrong factor, of missing mass, of smoothing, or of errors that are too small.
    That E log p̂(x) is below log p(x) does not show in the sum, and a bound such as ``prior_average`` sums to less than
    1, by as much as it is loose where the mass lies.

    A sum over equal numbers of draws everywhere has nearly all its error from the few likeliest points. A first pass
    over all points, which only says where the sum varies, therefore shares out the claims of the second (Neyman 1934):
    one about every point, and the rest in proportion to the errors that the first pass stated. On 16 bits that makes
    the error of the sum 10 to 30 times smaller. Only claims of the second pass count, so that it stays unbiased.

    Args:
        model: anything of which ``evidence`` can be asked.
        space: :class:`~lvm.evidence.mass.spaces.Bits` or another set of all states ``[N, D]`` of discrete data, or a
            :class:`~lvm.evidence.mass.spaces.Box` that holds the mass of one or two continuous features.
        context: of a conditional model, ``[C]``: Σ p(x|c) is 1 at each of them. Or one for each point, ``[N, C]``.
        method: as for :func:`~lvm.evidence.strongest.evidence`, which is asked; ``functools.partial(importance,
            draws=100)``, say.
        passes: how many claims are made, in units of N. With 1 the first pass is the sum; 2 or more make a second one,
            of (passes − 1) N claims, unless nothing is drawn.
        generator: of all draws.

    Returns:
        An :class:`Audit`. Few draws a claim and more passes find a wrong factor such as K/(K − 1) sooner than many
        draws do. Its error is that of the claims. Where it is not ``reliable``, because few claims have most of it and
        others like them have not been drawn, the sum lies mostly below 1 and seldom far above, and the error is too
        small: then a departure says that the errors are wrong, and not the expectation.

    Raises:
        TypeError: the space is none, or the model cannot be asked.
        ValueError: a tensor as space of continuous data, a box of discrete data, or what ``evidence`` raises.

    On several processes each makes the claims about its share of the points. O(passes · N) claims.

    >>> from functools import partial
    >>> from lvm import VAE
    >>> from lvm.evidence import Bits, importance
    >>> generator = torch.manual_seed(0)
    >>> vae = VAE.bernoulli(8, latent_features=2, hidden=(8,))
    >>> found = audit(vae, Bits(8), method=partial(importance, draws=50), generator=generator)
    >>> found.error < 0.01, abs(found.departure) < 4
    (True, True)
    """
    started = time.perf_counter()
    passes = check_count(passes, "passes")
    x, volumes, doubt = _laid_out(model, space)
    if context is not None:
        check_contexts(context, getattr(model, "context_features", 0), x, "audit", shared=True)
    rows, features = joined(x, context), x.shape[1]

    def about(part: Tensor, stream: Generator | None) -> LogDensity:
        points, given = parted(part, features)
        return evidence(model, points, context=given, method=method, generator=stream)

    which = torch.arange(len(x), device=x.device)
    claim = sharded(about, rows, generator=generator)
    mass, error = _masses(claim)
    made = len(which)
    if passes > 1 and bool((error > 0).any()):
        which = which.repeat_interleave(1 + _shared_out((passes - 2) * len(x), error * volumes))
        claim = sharded(about, rows[which], generator=generator)
        mass, error = _masses(claim)
        made += len(which)
    part = 1 / which.bincount()[which]  # of its point's estimate, that a claim is
    share = error * part * volumes[which]  # of the error of the sum

    def of_points(of_claims: Tensor) -> Tensor:
        return torch.zeros_like(volumes).index_add_(0, which, of_claims)

    mean = of_points(mass * part)
    slack = (of_points(_slack(claim, mass, x) * part) * volumes).sum().item()
    return Audit(
        mean * volumes,
        of_points(share.square()).sqrt(),
        slack if doubt is None else slack + abs((mean * doubt).sum().item()),
        claim.kind,
        claim.method,
        pareto_k(share.log().unsqueeze(1)).item() if bool((share > 0).any()) else -math.inf,
        made,
        time.perf_counter() - started,
    )


def _laid_out(model: Model, space: Space | Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Points ``[N, D]``, their volumes ``[N]``, and the doubt about these."""
    if not isinstance(space, Space | Tensor):
        raise TypeError(
            f"audit expects a space, Bits(features) or Box(lower, upper), or all points as a tensor [N, D]; got "
            f"{in_words(space)}"
        )
    measure = Measure.COUNTING if isinstance(space, Tensor) else space.measure
    if model.measure != measure:
        how = "sum over states, Bits(features) or a tensor of all" if model.measure == Measure.COUNTING else "use a Box"
        raise ValueError(
            f"audit cannot add up a density, {model.measure.words}, over "
            f"{'a tensor of points' if isinstance(space, Tensor) else in_words(space)}; {how}"
        )
    if isinstance(space, Tensor):
        return space, torch.ones(len(space), dtype=torch.float64, device=space.device), None
    like = reference(model)
    x = space.points(like)
    volumes = space.volumes(like)
    return x, torch.ones_like(x[:, 0], dtype=torch.float64) if volumes is None else volumes, space.doubt(like)


def _masses(claim: LogDensity) -> tuple[Tensor, Tensor]:
    """p̂(x) and its Monte Carlo error, ``[n]``; nan where a number that is not exact comes without one."""
    mass = claim.value.double().exp()
    if claim.monte_carlo_error is not None:
        return mass, (mass * claim.monte_carlo_error.double()).masked_fill(mass == 0, 0.0)
    deterministic = claim.kind is Kind.EXACT or claim.numerical_error is not None
    return mass, torch.full_like(mass, 0.0 if deterministic else math.nan)


def _slack(claim: LogDensity, mass: Tensor, x: Tensor) -> Tensor:
    """What quadrature and rounding to the model's dtype may do to p̂(x), ``[n]``."""
    relative = resolution(claim.value.double(), x.dtype, x.shape[1])
    if claim.numerical_error is not None:
        relative = relative + claim.numerical_error.double()
    return (mass * relative).masked_fill(mass == 0, 0.0)


def _shared_out(budget: int, sizes: Tensor) -> Tensor:
    """A budget of claims in proportion to sizes ``[N]``, rounded down: integers ``[N]``."""
    sizes = sizes.nan_to_num(nan=0.0)
    return (budget * sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny)).floor().long()
