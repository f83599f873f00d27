"""Reverse annealing on real data, from approximate draws of the posterior: an estimate, and no bound."""

from __future__ import annotations

from torch import Generator, Tensor

from density.checks import check_count
from density.data.joined import joined
from density.evaluating import evaluated
from density.importance.bound import solved
from density.log_density import Kind, LogDensity
from lvm.evidence.annealing.bounds import ADAPTIVE, ENCODER, PILOT, claim_of, words_of
from lvm.evidence.annealing.chains import Annealing, Budget, Start
from lvm.evidence.annealing.pilot import Pilot
from lvm.evidence.annealing.schedules import Schedule
from lvm.layered import LayeredModel


@evaluated
def reverse_annealed(
    model: LayeredModel,
    x: Tensor,
    *,
    context: Tensor | None = None,
    steps: int = 200,
    transitions: int = 100,
    chains: int = 16,
    start: Start = ENCODER,
    schedule: Schedule = ADAPTIVE,
    leapfrog: int = 3,
    pilot: Pilot = PILOT,
    generator: Generator | None = None,
) -> LogDensity:
    r"""log p(x) of real data by reverse annealing: from above, *if* the draws that it begins with were exact.

    From an exact draw of the posterior, chains back to the start have weights with E w = 1/p(x), and −log w̄ is an upper
    bound in expectation: on simulated data :func:`~lvm.evidence.annealing.bounds.sandwich` has such a draw (Grosse et
    al. 2015). Of real data nobody has one. Here chains anneal forwards, are resampled by their weights, and move on at
    the posterior; each end is where a reverse chain begins.

    **It may lie below log p(x)**: where the draws have not left the start far enough behind, or know one of several
    modes. So it is an ESTIMATE, and its ``method`` says on which assumption. Beside :func:`annealed` it shows by how
    much the two disagree; that they agree proves nothing of a mode which neither has seen. How often it fails, and how
    far, against the length of the chains, where log p(x) is known: docs/evidence.md.

    Args:
        model, x, context, start, schedule, leapfrog, pilot, generator: as in :func:`annealed`.
        steps: T, of the chains in both directions.
        transitions: at the posterior, between them; 0 for none.
        chains: of each point, in both directions.

    Returns:
        A :class:`~density.log_density.LogDensity` of kind ESTIMATE, float64, with the standard error over reverse
        chains, and nothing in it of what the assumption costs.

    Raises:
        TypeError, ValueError: as in :func:`annealed`; a negative number of transitions.

    Cost: twice that of :func:`annealed`, and that of ``transitions`` more steps.

    >>> import torch
    >>> from lvm.vae.linear import LinearVAE
    >>> model = LinearVAE(4, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> generator = torch.Generator().manual_seed(1)
    >>> x = model.sample(20, generator=generator)
    >>> claim = reverse_annealed(model, x, steps=20, transitions=20, chains=8, generator=generator)
    >>> claim.kind, abs(claim.mean - model.log_prob(x).mean().item()) < 0.1
    (<Kind.ESTIMATE: 'estimate'>, True)
    """
    transitions = check_count(transitions, "transitions", least=0)
    budget = Budget(steps, chains, start, schedule, leapfrog, pilot)
    joint = budget.joint(model)
    rows = model._data_rows(x, context)

    def back(run: Annealing, points: slice, generator: Generator | None) -> tuple[Tensor, float]:
        return run.reverse(run.posterior(transitions, generator), generator)

    ((log_weights, acceptance),) = budget.walked(joint, rows, generator, back)
    what = (
        "reverse annealing of approximate posterior draws, from above only if they were exact: annealed, resampled, "
        f"{transitions} transitions on"
    )
    claim = claim_of(model, x, log_weights, Kind.ESTIMATE, words_of(what, budget, acceptance))
    return solved(model, claim, joined(x, context), generator)
