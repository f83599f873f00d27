"""Trust but check: the laws that an exact density with a sampler obeys, tried on one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Generator, Tensor

from bridge.exactness.mass import mass_by_quadrature
from bridge.exactness.proposal import Proposal
from density.checks import check_context
from density.contract import Density
from density.data.blocks import in_blocks
from density.evaluating import evaluated
from density.importance.pareto import pareto_k, reliability_threshold
from density.measure import Measure

DRAWS = 20_000
FITTED = 4_000  # draws that the proposal is fitted to
COMPONENTS = 8
ROUNDS = 3  # of fitting the proposal, while its weights are heavy
BOUNDED = 10.0  # the largest weight in units of the mean one
FALSE_ALARM = 1e-5  # for all statements of a check together
LARGEST_ERROR = 0.05  # of a mass that is decided
ROUNDING = 2e-3  # of a mass, whatever its error: about that of a sum of float32


@dataclass(frozen=True)
class Check:
    """One law, tried.

    Attributes:
        name: the law.
        passed: None where it could not be decided, or does not apply.
        words: what was found.

    >>> import torch
    >>> from bridge import check_exact, from_log_prob
    >>> normal = torch.distributions.Normal(0.0, 1.0)
    >>> model = from_log_prob(lambda x: normal.log_prob(x).sum(-1), 2, lambda n: torch.randn(n, 2))
    >>> [(check.name, check.passed) for check in check_exact(model, torch.Generator().manual_seed(0)).checks][0]
    ('mass', True)
    """

    name: str
    passed: bool | None
    words: str


@dataclass(frozen=True)
class Exactness:
    """What :func:`check_exact` found.

    Attributes:
        passed: True if every law that applies was decided and holds; False if one fails; None if neither.
        mass: ∫ p(x) dx; 1 of a normalised density.
        error: of the mass: a standard error, or that of quadrature.
        checks: the laws one by one.

    >>> import torch
    >>> from bridge import check_exact, from_log_prob
    >>> normal = torch.distributions.Normal(0.0, 1.0)
    >>> twice = from_log_prob(lambda x: normal.log_prob(x).sum(-1) + 0.6931, 1, lambda n: torch.randn(n, 1))
    >>> found = check_exact(twice, torch.Generator().manual_seed(0))
    >>> found.passed, round(found.mass, 2)
    (False, 2.0)
    """

    passed: bool | None
    mass: float
    error: float
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        said = {True: "holds", False: "FAILS", None: "undecided"}
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.name:<{width}}  {said[check.passed]:<9}  {check.words}" for check in self.checks]
        verdict = {True: "passed", False: "FAILED", None: "undecided"}[self.passed]
        return "\n".join([f"{verdict}: mass {self.mass:.4f} ± {self.error:.2g}", *lines])


@evaluated
def check_exact(model: Density, generator: Generator | None = None, *, context: Tensor | None = None) -> Exactness:
    r"""Is this density normalised, and do its samples follow it?

    Four laws, of which each sees what the others do not:

    - Mass: ∫ p(x) dx = 1, by quadrature in one and two features, else by importance sampling with a
      :class:`~bridge.exactness.proposal.Proposal` fitted to the model's samples. It sees a constant, and a
      log-determinant that is missing. Where k̂ of the weights is too large, or the error above 0.05, it is undecided.
    - Shares: the samples have the same averages of bounded functions as draws of the proposal weighted by p: a sampler
      of other modes' weights, means or widths. Undecided where the weights are heavy.
    - Scores: E[∇ log p] = 0 and E[x_j ∂_j log p] = −1 under the samples (Stein 1972). Blind to constants, and to the
      weights of distant modes, but needs no proposal. It holds where p vanishes at the edge of its support and does not
      jump; so it is left out where points outside were found, and a failure beside masses and shares that hold is left
      undecided.
    - Samples: log p is finite at them, and equals what ``sample_with_log_prob`` says.

    Points far outside are asked about, too. Where the model cannot be evaluated there, since the solver of a continuous
    flow gives up, all is undecided.

    Statements are tested together at a level of 10⁻⁵, by normal approximation with a margin for rounding.

    Args:
        model: a continuous density with a sampler.
        generator: for all draws.
        context: one vector ``[C]`` at which a conditional density is tried.

    Returns:
        An :class:`Exactness`; print it. About 60,000 evaluations of log p (in 2-D 360,000) and 20,000 of its gradient.

    Raises:
        TypeError: not a Density.
        ValueError: it is one of masses, or the context does not fit.

    >>> from density import StandardNormal
    >>> check_exact(StandardNormal(2), torch.Generator().manual_seed(0)).passed
    True
    """
    if not isinstance(model, Density):
        raise TypeError(f"check_exact takes a Density, which has log_prob and sample; got {type(model).__name__}")
    if model.measure is not Measure.LEBESGUE:
        raise ValueError(
            f"check_exact integrates densities of continuous data; {type(model).__name__} has {model.measure.value} "
            "measure. Sum the masses of all values instead"
        )
    check_context(context, model.context_features, "check_exact", reference=model.reference)
    try:
        return _Trial(model, generator, context).result()
    except ArithmeticError as error:  # a solver gave up
        return Exactness(None, math.nan, math.inf, (Check("evaluation", None, str(error)),))


class _Trial:
    """The draws of a model that the laws are tried on."""

    def __init__(self, model: Density, generator: Generator | None, context: Tensor | None) -> None:
        self.model, self.generator, self.context = model, generator, context
        self.features = model.features
        with torch.no_grad():
            fitted = self._sample(FITTED)
            x, self.said = model.sample_with_log_prob(DRAWS, context=context, generator=generator)
        self.x = x.detach()
        finite = fitted.isfinite().all(-1)
        if int(finite.sum()) < FITTED // 2 or not bool(self.x.isfinite().all(-1).double().mean() > 0.99):
            raise ValueError(f"check_exact: more than 1 % of the samples of {type(model).__name__} are not finite")
        self._propose(fitted[finite])

    def _sample(self, n: int) -> Tensor:
        return self.model.sample(n, context=self.context, generator=self.generator).detach()

    def _propose(self, draws: Tensor) -> None:
        """Fit the proposal and weigh its draws; again, to weighted draws beside the first, while weights are heavy."""
        pool = draws.double()
        for _ in range(ROUNDS):
            self.proposal = Proposal(pool, COMPONENTS, self.generator)
            y = self.proposal.sample(DRAWS, self.generator)
            log_p = self.log_prob(y)
            self.outside = bool((log_p == -math.inf).any())
            log_weights = log_p.nan_to_num(nan=-math.inf) - self.proposal.log_prob(y)
            self.y, self.log_weights = y, log_weights
            self.k = float(pareto_k(log_weights, dtype=self.model.reference.dtype, terms=self.features))
            if self.k <= 0.5 or not bool((log_weights > -math.inf).any()):
                return
            share = (log_weights - log_weights.max()).exp()
            chosen = torch.multinomial(share, FITTED // 2, replacement=True, generator=self.generator)
            pool = torch.cat([draws.double(), y[chosen]])

    def log_prob(self, x: Tensor) -> Tensor:
        """float64 values ``[n]`` of log p at float64 points ``[n, D]``, computed in the model's dtype."""

        def rows(x: Tensor, _: Tensor | None) -> Tensor:
            return self.model.log_prob(x, self.context)

        with torch.no_grad():
            return in_blocks(rows, x.to(self.model.reference.dtype)).double()

    @property
    def reliable(self) -> bool:
        """Whether the weights have a light tail, or are seen to be bounded, where their tail is but rounding."""
        bounded = float((self.log_weights.max() - self.log_weights.logsumexp(0)).exp()) * DRAWS < BOUNDED
        return self.k <= reliability_threshold(DRAWS) or bounded

    def result(self) -> Exactness:
        mass, error, of_mass = self._mass()
        of_shares, of_samples = self._shares(), self._samples()
        of_scores = self._scores(settled=bool(of_mass.passed and of_shares.passed))
        checks = (of_mass, of_shares, of_scores, of_samples)
        passed: bool | None = None
        if any(check.passed is False for check in checks):
            passed = False
        elif (
            of_mass.passed
            and of_shares.passed
            and of_samples.passed
            and not (of_scores.passed is None and not self.outside)
        ):
            passed = True
        return Exactness(passed, mass, error, checks)

    def _mass(self) -> tuple[float, float, Check]:
        if self.features <= 2:
            mass, error = mass_by_quadrature(self.log_prob, self.proposal.centre, self.proposal.scale)
            reliable, allowed, how = True, 3 * error, "quadrature"
        else:
            weights = self.log_weights.exp()
            mass, error = weights.mean().item(), (weights.std() / math.sqrt(DRAWS)).item()
            reliable, allowed = self.reliable, _quantile(1) * error
            how = f"importance sampling, k̂ = {self.k:.2f}"
        decided = reliable and error <= LARGEST_ERROR * max(1.0, mass) and math.isfinite(mass)
        passed = abs(mass - 1) <= allowed + ROUNDING if decided else None
        words = f"{mass:.4f} ± {error:.2g}, {allowed + ROUNDING:.2g} from 1 are allowed ({how})"
        return mass, error, Check("mass", passed, words)

    def _shares(self) -> Check:
        weights = (self.log_weights - self.log_weights.max()).exp()
        weights = weights / weights.sum()
        ours, theirs = self.proposal.features_of(self.x.double()), self.proposal.features_of(self.y)
        mean, of_p = ours.mean(0), weights @ theirs
        error = (ours.var(0) / DRAWS + weights.square() @ (theirs - of_p).square()).sqrt()
        excess = ((mean - of_p).abs() - ROUNDING).clamp_min(0) / error.clamp_min(1e-12)
        worst = int(excess.argmax())
        name = f"component {worst}" if worst < COMPONENTS else f"feature {(worst - COMPONENTS) % self.features}"
        words = f"{name}: {mean[worst]:.4f} of samples, {of_p[worst]:.4f} by weights ± {error[worst]:.2g}"
        decided = self.reliable and float(error.max()) < LARGEST_ERROR
        passed = bool(excess[worst] <= _quantile(len(excess))) if decided else None
        return Check("shares", passed, f"{words}{_apart(excess)}")

    def _scores(self, settled: bool) -> Check:
        if self.outside:
            return Check("scores", None, "not applied: the support has an edge, where p need not vanish")
        score = self._score()
        usable = score.isfinite().all(-1)
        if not bool(usable.double().mean() > 0.99):
            return Check("scores", None, "not applied: gradients are not finite")
        score, x = score[usable], self.x[usable].double()
        products = torch.cat([score, (x - self.proposal.centre) * score + 1], -1)
        error = products.std(0) / math.sqrt(len(products))
        units = torch.cat([self.proposal.scale, torch.ones_like(self.proposal.scale)])
        excess = (products.mean(0).abs() - ROUNDING / units).clamp_min(0) / error.clamp_min(1e-30)
        worst = int(excess.argmax())
        j, value = worst % self.features, products.mean(0)[worst].item()
        words = f"E[∂ log p/∂x_{j}] = {value:.3g} ± {error[worst]:.2g}, 0 is right"
        if worst >= self.features:
            words = f"E[x_{j} ∂ log p/∂x_{j}] = {value - 1:.4f} ± {error[worst]:.2g}, −1 is right"
        words += _apart(excess)
        holds = bool(excess[worst] <= _quantile(len(excess)))
        if not holds and settled:
            return Check("scores", None, f"{words}; mass and shares hold, so p may jump")
        return Check("scores", holds, words)

    def _score(self) -> Tensor:
        parts = []
        for rows in self.x.split(2048):
            leaf = rows.clone().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.model.log_prob(leaf, self.context).sum(), leaf)
            parts.append(gradient.double())
        return torch.cat(parts)

    def _samples(self) -> Check:
        again = self.log_prob(self.x.double())
        lost = float((~again.isfinite()).double().mean())
        if lost > 0.01:
            return Check("samples", False, f"log p is not finite at {100 * lost:.1f} % of the samples")
        gap = float((self.said.double() - again).abs().nan_to_num(nan=0.0, posinf=0.0).median())
        close = gap <= 1e-2 * (1 + float(again[again.isfinite()].abs().median()))
        return Check("samples", close, f"log p of samples with and after drawing differ by {gap:.1g} in the median")


def _apart(excess: Tensor) -> str:
    """The worst of so many deviations, beside what is allowed of it."""
    return f"; {float(excess.max()):.1f} errors apart, {_quantile(len(excess)):.1f} are allowed"


def _quantile(statements: int) -> float:
    """Standard errors beyond which one of so many statements lies with the probability of a false alarm."""
    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * statements))
