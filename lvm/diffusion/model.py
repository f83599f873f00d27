"""Gaussian diffusion models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count
from density.data.blocks import rows_at_once
from density.data.joined import parted
from density.data.points import Points
from density.evaluating import evaluated
from density.families.gaussian import StandardNormal
from density.families.nets import mlp
from density.families.noise import stratified_noise
from density.families.timed import Timed
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.log_density import Kind, LogDensity
from density.own_precision import in_own_precision
from lvm.diffusion.denoiser import Denoiser, Prediction, alpha, sigma
from lvm.diffusion.levels import levels
from lvm.diffusion.link import DiffusionLink
from lvm.diffusion.schedule import LinearSchedule, Schedule
from lvm.hierarchy.model import HierarchicalVAE
from lvm.layered import LinkedModel

GROUPS = 8  # of draws, each spread over all times: independent, so that their scatter is the error of their mean


@dataclass(frozen=True, eq=False)
class DiffusionTerms:
    """The terms of a diffusion's ELBO, nats.

    Attributes:
        reconstruction: E log p(x|z_1), ``[*batch]``.
        steps: E KL(q(z_{i−1}|z_i, x) ‖ p(z_{i−1}|z_i)) for i = 2, …, T, ``[T − 1, *batch]``.
        prior: KL(q(z_T|x) ‖ p(z_T)), ``[*batch]``.

    >>> terms = DiffusionTerms(torch.tensor([-1.0]), torch.tensor([[0.2], [0.3]]), torch.tensor([0.1]))
    >>> round(terms.elbo.item(), 4)
    -1.6
    """

    reconstruction: Tensor
    steps: Tensor
    prior: Tensor

    @property
    def elbo(self) -> Tensor:
        return self.reconstruction - self.steps.sum(0) - self.prior


class GaussianDiffusion(LinkedModel):
    r"""A diffusion model: latents z_1, …, z_T of growing noise, of which a network learns the way back.

    Ho et al. 2020, arXiv:2006.11239; Kingma et al. 2021, arXiv:2107.00630.

    .. math:: \mathcal L(x) = E \log p(x|z_1) - \sum_{i=2}^T \tfrac12 (e^{\gamma_i - \gamma_{i-1}} - 1)
              E \|\varepsilon - \hat\varepsilon(z_i, \gamma_i)\|^2 - KL(q(z_T|x) \,\|\, N(0, I))

    It is a hierarchical VAE whose encoder is fixed, and reports a bound as VAEs do: with T = 1 it *is* a VAE. The KL of
    every step is in closed form given z_i. ``elbo`` and ``fit`` draw one step for each point, stratified over a batch;
    :meth:`elbo_terms` has all of them; :meth:`limit` the ELBO as T → ∞. Log-weights, and the importance-weighted bound
    of ``log_density``, are those of the whole chain (:class:`~lvm.diffusion.link.DiffusionLink`). The same network
    read as a differential equation is another model, of which ``bridge.probability_flow`` knows log p(x).

    Args:
        network: module called as ``network(z, gamma)``, or ``network(z, gamma, c)`` if conditional, with latents
            ``[n, D]``, γ ``[n, 1]`` and contexts ``[n, C]``; it returns ``[n, D]``.
        features: D.
        steps: T.
        schedule: γ(t); :class:`~lvm.diffusion.schedule.LinearSchedule` if None.
        prediction: what the network returns: noise, data or velocity.
        context_features: C; 0 for an unconditional model. With contexts it is p(x|c), by a denoiser that sees them.

    Raises:
        TypeError: not a module, a schedule, a prediction.
        ValueError: features or steps is not a positive int; in use, the network returns another shape.

    Cost: ``elbo`` two evaluations of the network a point and draw; everything else T.

    >>> _ = torch.manual_seed(0)
    >>> model = GaussianDiffusion.of_vectors(2, hidden=(16,), steps=100)
    >>> terms = model.elbo_terms(torch.zeros(5, 2))
    >>> terms.steps.shape, terms.elbo.shape
    (torch.Size([99, 5]), torch.Size([5]))
    """

    layer: DiffusionLink

    def __init__(
        self,
        network: nn.Module,
        features: int,
        steps: int = 1000,
        schedule: Schedule | None = None,
        prediction: Prediction = Prediction.NOISE,
        context_features: int = 0,
    ) -> None:
        schedule, denoiser = LinearSchedule() if schedule is None else schedule, Denoiser(network, prediction)
        super().__init__(StandardNormal(features), DiffusionLink(denoiser, schedule, features, steps, context_features))

    @classmethod
    def of_vectors(
        cls,
        features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        steps: int = 1000,
        schedule: Schedule | None = None,
        prediction: Prediction = Prediction.NOISE,
        context_features: int = 0,
    ) -> GaussianDiffusion:
        """The diffusion of vectors, on one perceptron of latent, noise and context, of these hidden widths."""
        network = mlp(features + 1 + context_features, features, hidden, zero_init=True)
        timed = Timed(network, features, context_features, unit=10.0)
        return cls(timed, features, steps, schedule, prediction, context_features)

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        context: Tensor | None = None,
        draws: int = 1,
        importance_weighted: bool = False,
        simple: bool = False,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the ELBO as every layered model does, or with ``simple`` :meth:`noise_matching`, which is no bound.

        Args:
            simple: by Ho et al.'s simple loss. The history is then of that number: no nats, and nothing that a log p(x)
                can be compared with.
            x, training, context, draws, importance_weighted, weights, validation, generator: see
                :meth:`lvm.layered.LinkedModel.fit`.

        Raises:
            ValueError: simple and importance-weighted at once; or as there.
        """
        if not simple:
            return super().fit(
                x, training, context=context, draws=draws, importance_weighted=importance_weighted, weights=weights,
                validation=validation, generator=generator,
            )  # fmt: skip
        if importance_weighted:
            raise ValueError("GaussianDiffusion.fit: the simple loss has no weights; leave importance_weighted out")
        draws = check_count(draws, "draws")
        given = prepare(self, x, training, self._check_support, context=context, weights=weights, validation=validation)

        def matching(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            x, *contexts = batch
            return self.noise_matching(x, context=contexts[0] if contexts else None, draws=draws, generator=generator)

        return given.maximise(self, matching, training, generator)

    @in_own_precision
    def elbo(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """Unbiased estimate of the ELBO ``[*batch]``, nats, differentiable: of one step for each point and draw.

        Steps are drawn in proportion to what multiplies the network's error in their KL, so that its scatter is that of
        the error alone, and stratified over all points and draws. What the scatter of ‖ε‖² does to that error is known
        where data has unit variance, and taken off. All three together lower the variance of the mean over a batch.
        """
        draws = check_count(draws, "draws")
        rows, gammas = self.layer.standardised(self._rows(x, context)), self.layer.gammas()
        many = rows.expand(draws, *rows.shape)
        value = self._reconstruction(self._calm_error(many, gammas[0], generator), gammas[0])
        if self.layer.steps > 1:
            weights = 0.5 * torch.expm1(gammas.diff())
            share = (weights / weights.sum()).detach()
            step = torch.searchsorted(share.cumsum(0), stratified_noise(many[..., 0], generator))
            step = step.clamp(max=len(share) - 1)  # where the shares add up to less than 1 by rounding
            error = self._calm_error(many, gammas[step + 1][..., None], generator)
            value = value - weights[step] / share[step] * error
        return value.mean(0) - self._prior_divergence(rows, gammas[-1])

    @in_own_precision
    def noise_matching(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        r"""Ho et al.'s simple loss with its sign turned, ``[*batch]``: what ``fit(simple=True)`` maximises.

        .. math:: -\frac1T \sum_{i=1}^T E \|\varepsilon - \hat\varepsilon(z_i, \gamma_i)\|^2

        (2020, equation 14.) In the ELBO these errors have the weights of its steps; here all count alike, those of
        much noise for more and those of little, of which most of the density is made, for less. It is no bound on
        log p(x) and no number of nats, and says nothing of the schedule, which gets no gradient.

        Of one step for each point and draw, stratified over all of them. Cost: an evaluation of the network each.
        """
        draws = check_count(draws, "draws")
        rows, gammas = self.layer.standardised(self._rows(x, context)), self.layer.gammas().detach()
        many = rows.expand(draws, *rows.shape)
        step = (stratified_noise(many[..., 0], generator) * len(gammas)).long().clamp(max=len(gammas) - 1)
        return -self._noise_error(many, gammas[step][..., None], generator)[0].mean(0)

    @in_own_precision
    def elbo_terms(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> DiffusionTerms:
        """All terms of the ELBO for x ``[*batch, D]``, differentiable, with its profile over steps; each by draws."""
        draws = check_count(draws, "draws")
        rows, gammas = self.layer.standardised(self._rows(x, context)), self.layer.gammas()
        many = rows.expand(draws, *rows.shape)
        first, *others = [self._noise_error(many, gamma, generator)[0].mean(0) for gamma in gammas]
        weights = 0.5 * torch.expm1(gammas.diff())
        steps = torch.stack([weight * error for weight, error in zip(weights, others, strict=True)]) if others else None
        return DiffusionTerms(
            self._reconstruction(first, gammas[0]),
            rows.new_zeros(0, *rows.shape[:-1]) if steps is None else steps,
            self._prior_divergence(rows, gammas[-1]),
        )

    @evaluated
    def limit(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 128, generator: Generator | None = None
    ) -> LogDensity:
        r"""The ELBO as T → ∞ (Kingma et al. 2021, equation 17), for points ``[n, D]``: a lower bound on log p(x).

        .. math:: E \log p(x|z_0) - \tfrac12 \int_{\gamma(0)}^{\gamma(1)} E\|\varepsilon - \hat\varepsilon\|^2
                  d\gamma - KL(q(z_1|x) \,\|\, N(0, I))

        Of the schedule it depends on γ(0) and γ(1) alone, since the network sees γ and not the time. Draws are spread
        evenly over γ.

        Args:
            draws: of γ and noise a point, rounded up to a multiple of 8; their error is that of 8 groups.

        Returns:
            A claim of kind LOWER, float64, with its Monte Carlo error. Cost: two evaluations a point and draw.
        """
        given, parts = self.layer.standardised(self._data_rows(x, context)), []
        each = -(-check_count(draws, "draws") // GROUPS)
        with torch.no_grad():
            for rows in given.split(max(1, rows_at_once(x) // each)):
                parts.append(torch.stack([self._in_the_limit(rows, each, generator) for _ in range(GROUPS)]).double())
        values = torch.cat(parts, 1)
        return LogDensity(
            values.mean(0),
            Kind.LOWER,
            f"ELBO of continuous time, {each * GROUPS} draws",
            values.std(0) / math.sqrt(GROUPS),
            measure=self.measure,
            points=Points.of(x),
        )

    def hierarchy(self) -> HierarchicalVAE:
        """The chain as a hierarchical VAE of T levels, which it is, on the same network; of the schedule as it is now.

        Its latents (z_1, …, z_T) are one of T·D features, and it has a ``log_joint``: so what asks for that can be
        asked of a diffusion, annealed importance sampling above all, ``annealed(model.hierarchy(), x)``. It pays where
        there are hundreds of latents; of a few, importance weights know more for the same work (docs/continuous.md).

        Raises:
            ValueError: a conditional model.
        """
        if self.context_features:
            raise ValueError(
                f"HierarchicalVAE is unconditional; this diffusion takes a context of {self.context_features} features"
            )
        return HierarchicalVAE(self.prior, *levels(self.layer))

    def _in_the_limit(self, rows: Tensor, draws: int, generator: Generator | None) -> Tensor:
        low, high = self.layer.schedule(torch.arange(2, dtype=rows.dtype, device=rows.device))
        many = rows.expand(draws, *rows.shape)
        start = torch.rand(len(rows), generator=generator, dtype=rows.dtype, device=rows.device)
        share = (torch.arange(draws, dtype=rows.dtype, device=rows.device)[:, None] + start) / draws
        error = self._calm_error(many, (low + (high - low) * share)[..., None], generator)
        value = self._reconstruction(self._calm_error(many, low, generator), low) - 0.5 * (high - low) * error
        return value.mean(0) - self._prior_divergence(rows, high)

    def _prior_divergence(self, rows: Tensor, last: Tensor) -> Tensor:
        variance = torch.sigmoid(last)
        return 0.5 * (variance - 1 - variance.log() + (1 - variance) * parted(rows, self.features)[0].square()).sum(-1)

    def _reconstruction(self, error: Tensor, first: Tensor) -> Tensor:
        """log p(x|z_1) in the units of x, where the error of the noise is ‖ε − ε̂‖² = ‖x − x̂‖² α²/σ²."""
        constant = self.features * (first + math.log(2 * math.pi)) + 2 * self.layer.standardise.scale.log().sum()
        return -0.5 * (error + constant)

    def _noise_error(self, rows: Tensor, gamma: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """‖ε − ε̂‖² ``[*batch]`` at a draw of the latents of standardised rows ``[*batch, D + C]``, and ‖ε‖² − D."""
        x, context = parted(rows, self.features)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        predicted = self.layer.denoiser(alpha(gamma) * x + sigma(gamma) * noise, gamma, context)
        return (noise - predicted).square().sum(-1), noise.square().sum(-1) - self.features

    def _calm_error(self, rows: Tensor, gamma: Tensor, generator: Generator | None) -> Tensor:
        """The same without what its second number, of mean 0, contributes if ε̂ = σ z: α⁴ of it."""
        error, surplus = self._noise_error(rows, gamma, generator)
        return error - torch.sigmoid(-gamma).square().expand(*rows.shape[:-1], 1).squeeze(-1) * surplus
