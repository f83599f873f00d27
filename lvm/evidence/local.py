"""The best q for each point by itself: how much of the gap is the family's fault, and how much the encoder's?"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from density.checks import settle_counts
from density.contract import Density
from density.data.blocks import rows_in_memory
from density.evaluating import evaluated
from density.families.gaussian import DiagonalGaussian, GaussianFamily
from density.fitting.optimisers import cosine
from density.measure import Measure
from density.parallel import processes
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

POINTS_AT_ONCE = 512
FRAME_DRAWS = 256


@dataclass(frozen=True)
class LocalFit:
    """Settings by which local posteriors are optimised.

    Args:
        family: the family of q, as a reparametrised density over the latent at its starting parameters:
            :class:`~density.families.gaussian.DiagonalGaussian` (if None), :class:`~density.families.gaussian.Gaussian`
            for a full covariance, a flow; ``torch.func.vmap`` must be able to follow it. Each point gets parameters of
            its own; the density passed in stays as it is.
        steps: steps of Adam, of which all points take as many.
        draws: latent draws per point and step.
        learning_rate: at the start of a cosine schedule.
        tolerance: nats of the ELBO that the last quarter of the steps may still have gained where a point counts as
            converged, beyond twice the standard error of that gain, which itself must be within the tolerance.
        progress: show a progress bar, if there is a terminal to show it on.

    >>> LocalFit(steps=100).draws, LocalFit(family=DiagonalGaussian(2)).family.features
    (16, 2)
    """

    family: Density | None = None
    steps: int = 600
    draws: int = 16
    learning_rate: float = 0.1
    tolerance: float = 0.01
    progress: bool = True

    def __post_init__(self) -> None:
        settle_counts(self, "steps", "draws")
        for name in ("learning_rate", "tolerance"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class LocalElbo:
    """ELBO of the best local q of each point, and how far to trust that it is the best.

    Attributes:
        value: mean log-weight over draws that played no part in the optimisation, ``[n]``, float64.
        error: its Monte Carlo standard error, ``[n]``.
        gain: what the last quarter of the steps still gained, ``[n]``.
        converged: where that gain is within tolerance, and known to be, ``[n]``.
        from_encoder: where the start from the encoder did better than the neutral one, ``[n]``.

    >>> from lvm import PPCA
    >>> local = local_elbo(PPCA(3, 1), torch.zeros(2, 3), LocalFit(steps=20, draws=4, progress=False), draws=10)
    >>> local.value.shape, local.converged.dtype
    (torch.Size([2]), torch.bool)
    """

    value: Tensor
    error: Tensor
    gain: Tensor
    converged: Tensor
    from_encoder: Tensor


@evaluated
def local_elbo(
    model: LayeredModel,
    x: Tensor,
    fit: LocalFit = LocalFit(),
    *,
    context: Tensor | None = None,
    draws: int = 1000,
    generator: Generator | None = None,
) -> LocalElbo:
    r"""Maximise the ELBO of each point of x ``[n, D]`` over its own q, the model held fixed (Cremer et al. 2018).

    .. math:: \mathcal L^*(x) = \max_{q \in Q} E_q [\log p(x, z) - \log q(z)]

    All points are optimised in one batch, from two starts, the better of which counts: the family placed where the
    encoder's mean and standard deviation are, and placed on the prior. Gradients stick the landing (Roeder et al.
    2017): they are free of noise where q is the posterior.

    Args:
        model: continuous latent, with ``log_joint``; of a chain of links, all its latents have one q.
        fit: family and settings.
        context: contexts ``[n, C]`` of a conditional model.
        draws: of the final ELBO, at least 2.

    Raises:
        TypeError: the model has no log_joint.
        ValueError: a discrete latent, a family that is discrete, without parameters or over another number of
            features, or unusable data.

    Cost O(n · steps · fit.draws) passes of the decoder, twice, forwards and backwards.

    >>> from lvm import PPCA
    >>> model, x, generator = PPCA(3, 1), torch.zeros(2, 3), torch.manual_seed(0)
    >>> local = local_elbo(model, x, LocalFit(steps=50, draws=4, progress=False), draws=100, generator=generator)
    >>> (local.value - model.log_prob(x)).abs().max().item() < 0.1  # of a Gaussian posterior: log p(x)
    True
    """
    joint = unrolled(model)
    if not isinstance(joint, LatentVariableModel):
        raise TypeError(f"local posteriors need a model with log_joint; {type(model).__name__} has none")
    given = model._data_rows(x, context)
    if joint.prior.measure is not Measure.LEBESGUE:
        raise ValueError(f"local posteriors are continuous; the latent of {type(model).__name__} is discrete")
    if draws < 2:
        raise ValueError(f"the local ELBO needs at least 2 draws to have an error; got {draws}")
    features = joint.prior.features
    family = DiagonalGaussian(features) if fit.family is None else fit.family
    if family.features != features or family.context_features:
        raise ValueError(
            f"the family must be an unconditional density over the {features} latent features; got "
            f"{type(family).__name__} over {family.features} with {family.context_features} context features"
        )
    if family.measure is not Measure.LEBESGUE or not list(family.parameters()):
        raise ValueError(f"the family must be a continuous density with parameters to fit; got {type(family).__name__}")
    family, given = deepcopy(family).to(x).eval(), given.detach()
    hidden = None if fit.progress and processes.is_main() else True
    parts = [
        _local_elbo(joint, rows, family, fit, draws, generator)
        for rows in tqdm(given.split(POINTS_AT_ONCE), desc="local posteriors", leave=False, disable=hidden)
    ]
    return LocalElbo(*(torch.cat([getattr(part, name) for part in parts]) for name in LocalElbo.__annotations__))


def _local_elbo(
    model: LatentVariableModel, x: Tensor, family: Density, fit: LocalFit, draws: int, generator: Generator | None
) -> LocalElbo:
    n = x.shape[0]
    both = torch.cat([x, x])  # the two starts of every point
    q = _Local(family, *_frames(model, x, generator), generator)
    optimiser = torch.optim.Adam(q.parameters, lr=fit.learning_rate)
    frozen = [p for p in model.parameters() if p.requires_grad]
    checkpoints: list[Tensor] = []
    seed = torch.randint(2**31, (1,), generator=generator, device=x.device if generator is None else generator.device)

    def judge() -> Tensor:
        """Log-weights ``[draws, 2n]`` by the same noise at each call."""
        noise = Generator(x.device).manual_seed(int(seed))
        return _log_weights(model, both, q, draws, noise)

    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for step in range(fit.steps):
            if step == (3 * fit.steps) // 4:
                checkpoints.append(judge())
            for group in optimiser.param_groups:
                group["lr"] = fit.learning_rate * cosine(step / fit.steps)
            optimiser.zero_grad()
            z, log_q = q.stuck(fit.draws, generator)
            (log_q - model._log_joint(both, z)).mean(0).sum().backward()
            optimiser.step()
        final = judge()
        gain = final - checkpoints[0]
        by_start = final.mean(0).reshape(2, n)
        best = by_start.nan_to_num(nan=-math.inf).argmax(0)
        pick = best * n + torch.arange(n, device=x.device)
        fresh = _log_weights(model, both, q, draws, generator)[:, pick]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    mean_gain, gain_error = gain.mean(0)[pick], gain.std(0)[pick] / math.sqrt(draws)
    return LocalElbo(
        fresh.mean(0),
        fresh.std(0) / math.sqrt(draws),
        mean_gain,
        (mean_gain.abs() <= fit.tolerance + 2 * gain_error) & (gain_error <= fit.tolerance),
        best == 0,
    )


def _log_weights(model: LatentVariableModel, x: Tensor, q: _Local, draws: int, generator: Generator | None) -> Tensor:
    step = max(1, rows_in_memory(x) // x.shape[0])
    blocks = []
    with torch.no_grad():
        for start in range(0, draws, step):
            z, log_q = q.draw(min(step, draws - start), generator)
            blocks.append((model._log_joint(x, z) - log_q).double())
    return torch.cat(blocks)


def _frames(model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[2n, d]`` that the family starts from: the encoder's, then the prior's."""
    with torch.no_grad():
        if isinstance(model.encoder, GaussianFamily):
            mean, scale = model.encoder.at(x)
            std = scale.dense().square().sum(-1).sqrt().expand_as(mean)
        else:
            z = model.encoder.sample(FRAME_DRAWS, context=x, generator=generator)
            mean, std = z.mean(0), z.std(0)
        z = model.prior.sample(4 * FRAME_DRAWS, context=model._prior_context(x), generator=generator)
        neutral_mean, neutral_std = z.mean(0).expand_as(mean), z.std(0).expand_as(mean)
        return torch.cat([mean, neutral_mean]), torch.cat([std, neutral_std])


class _Local:
    """One copy of a density for each of m problems, each in its own affine frame z = mean + std · y."""

    def __init__(self, family: Density, mean: Tensor, std: Tensor, generator: Generator | None) -> None:
        self.family = family
        self.mean, self.std = mean, std
        parameters, buffers = stack_module_state([family])
        copies = mean.shape[0]
        self.state = {
            name: value.detach().expand(copies, *value.shape[1:]).clone().requires_grad_()
            for name, value in parameters.items()
        }
        self.buffers = {name: value[0] for name, value in buffers.items()}

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.state.values())

    def draw(self, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """z ``[draws, m, d]`` and log q(z) ``[draws, m]``."""
        y, log_q = self._each(_Draw(self.family, draws, generator), self.state)
        return self._place(y), log_q - self.std.log().sum(-1)

    def stuck(self, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """The same, with log q(z) as a function of z alone: its parameters are held fixed."""
        y, _ = self._each(_Draw(self.family, draws, generator), self.state)
        fixed = {name: value.detach() for name, value in self.state.items()}
        log_q = self._each(_Judge(self.family), fixed, y)
        return self._place(y), log_q - self.std.log().sum(-1)

    def _place(self, y: Tensor) -> Tensor:
        return self.mean + self.std * y

    def _each(self, call: nn.Module, state: dict[str, Tensor], *inputs: Tensor) -> Any:  # noqa: ANN401 - what call returns
        def one(parameters: dict[str, Tensor], *arguments: Tensor) -> Any:  # noqa: ANN401
            named = {f"family.{name}": value for name, value in (parameters | self.buffers).items()}
            return functional_call(call, named, arguments)

        run = vmap(one, in_dims=(0, *([1] * len(inputs))), out_dims=1, randomness="different")
        return run(state, *inputs)


class _Draw(nn.Module):
    def __init__(self, family: Density, draws: int, generator: Generator | None) -> None:
        super().__init__()
        self.family, self.draws, self.generator = family, draws, generator

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.family.sample_with_log_prob(self.draws, generator=self.generator)


class _Judge(nn.Module):
    def __init__(self, family: Density) -> None:
        super().__init__()
        self.family = family

    def forward(self, y: Tensor) -> Tensor:
        return self.family.log_prob(y)
