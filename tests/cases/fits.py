"""The table of fits, of each model and by each means, a few steps of each: a new one is one new line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from bridge import GaussianRelaxation, MarginalBound, Max, UniformDequantisation, layered, with_posterior
from bridge.hybrids import coupling_posterior
from density import (
    BernoulliLikelihood,
    Category,
    Checkpoint,
    Chunks,
    Columns,
    DiagonalGaussian,
    DiscretisedLogistic,
    Gaussian,
    GaussianLikelihood,
    History,
    Poisson,
    StandardNormal,
    Training,
    select,
)
from flows import FlowMatching, continuous_flow, image_flow, maf, neural_spline_flow, real_nvp
from lvm import (
    EM,
    PPCA,
    VAE,
    Diagonal,
    EMSolver,
    FiniteMixture,
    Full,
    GaussianDiffusion,
    GaussianMixture,
    Given,
    HierarchicalVAE,
    KMeansPlusPlus,
    LinearVAE,
    RandomPoints,
    RandomResponsibilities,
    StochasticEM,
    StochasticLink,
    Tied,
)
from lvm.ppca.observed_em import MissingEM
from lvm.vae.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    ScoreFunction,
    StickingTheLanding,
)
from lvm.vae.kl_weights import WarmUp
from lvm.vae.linear import FULL_BATCH
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.cases.transforms import CONVOLUTIONS

FEATURES, NARROW = 4, (8,)
ROWS = 40
QUIET = Training(epochs=1, batch_size=18, progress=False)
FEW = EM(max_iterations=5, progress=False)
KINDS = Columns([GaussianLikelihood(), Category(3), BernoulliLikelihood(), GaussianLikelihood()])

Fit = Callable[[Tensor, Generator], nn.Module]  # of rows ``[ROWS, FEATURES]``, on their device


def fitted(model: nn.Module, *arguments: object, **settings: object) -> nn.Module:
    """The model after its ``fit``."""
    history = model.fit(*arguments, **settings)  # type: ignore[operator]
    assert isinstance(history, History)
    return model


def observed(model: nn.Module, *arguments: object, **settings: object) -> nn.Module:
    """The model after the ``fit`` of its view of incomplete rows."""
    model.observed.fit(*arguments, **settings)  # type: ignore[operator, union-attr]
    return model


def vae(**settings: object) -> VAE:
    return VAE.gaussian(FEATURES, 2, hidden=NARROW, **settings)  # type: ignore[arg-type]


def by(estimator: object, model: Callable[[], nn.Module] = vae) -> Fit:
    """A fit by an estimator of the gradient."""
    return lambda x, g: fitted(model(), x, QUIET, estimator=estimator, generator=g)


def holes(x: Tensor) -> Tensor:
    return x.masked_fill(x > 1.5, torch.nan)


def bits(x: Tensor) -> Tensor:
    return (x > 0).to(x)


def counts(x: Tensor) -> Tensor:
    return (3 * x.abs()).floor()


def table(x: Tensor) -> Tensor:
    """A row of each of those kinds."""
    return torch.cat([x[:, :1], x[:, 1:2].abs().floor().clamp(0, 2), bits(x[:, 2:3]), x[:, 3:]], 1)


def many(x: Tensor) -> Tensor:
    """2,000 rows, so that features are worth making."""
    return torch.cat([x * (1 + 0.01 * step) for step in range(50)])


def chunks(x: Tensor) -> list[tuple[Tensor, ...]]:
    return [(part,) for part in x.split(15)]


def pair() -> StochasticLink:
    """Encoder and decoder in the units of the data."""
    return StochasticLink(vae().encoder, vae().decoder)


def selected(x: Tensor, generator: Generator) -> nn.Module:
    """The better of two flows."""
    candidates = {
        "couplings": (lambda: real_nvp(FEATURES, 2, NARROW), QUIET),
        "autoregressive": (lambda: maf(FEATURES, 1, NARROW), QUIET),
    }
    chosen: nn.Module = select(candidates, x, generator=generator).model
    return chosen


FLOWS: dict[str, Fit] = {
    "flow": lambda x, g: fitted(real_nvp(FEATURES, 2, NARROW), x, QUIET, generator=g),
    "flow, context": lambda x, g: fitted(maf(2, 2, NARROW, 2), x[:, :2], QUIET, context=x[:, 2:], generator=g),
    "flow, weights and held-out rows": lambda x, g: fitted(
        real_nvp(FEATURES, 2, NARROW), x[10:], QUIET, weights=x[10:, 0].exp(), validation=x[:10], generator=g
    ),
    "flow, averaged and decayed": lambda x, g: fitted(
        real_nvp(FEATURES, 2, NARROW), x, replace(QUIET, averaging=0.9, weight_decay=0.1, refit=True), generator=g
    ),
    "flow, in parts": lambda x, g: fitted(real_nvp(FEATURES, 2, NARROW), x, replace(QUIET, parts=2), generator=g),
    "flow, stream": lambda x, g: fitted(real_nvp(FEATURES, 2, NARROW), chunks(x), QUIET, generator=g),
    "spline flow": lambda x, g: fitted(neural_spline_flow(FEATURES, 2, NARROW), x, QUIET, generator=g),
    "image flow": lambda x, g: fitted(image_flow((1, 2, 2), 1, 1, CONVOLUTIONS), x, QUIET, generator=g),
    "continuous flow, matched": lambda x, g: fitted(
        continuous_flow(FEATURES, NARROW, tolerance=1e-2), x, replace(QUIET, validation=0.0),
        objective=FlowMatching(), generator=g,
    ),
    "relaxation": lambda x, g: fitted(GaussianRelaxation(real_nvp(FEATURES, 2, NARROW), 0.3), x, QUIET, generator=g),
    "marginal bound": lambda x, g: fitted(
        MarginalBound(real_nvp(FEATURES, 2, NARROW), GaussianMixture(FEATURES, 1).to(x)),
        holes(x), QUIET, draws=3, generator=g,
    ),
    "selection": selected,
}  # fmt: skip

VAES: dict[str, Fit] = {
    "VAE": lambda x, g: fitted(vae(), x, QUIET, generator=g),
    "VAE, bits": lambda x, g: fitted(VAE.bernoulli(FEATURES, 2, hidden=NARROW), bits(x), QUIET, generator=g),
    "VAE, counts": lambda x, g: fitted(
        VAE.of(FEATURES, 2, Poisson(), hidden=NARROW), counts(x), QUIET, generator=g
    ),
    "VAE, levels of images": lambda x, g: fitted(
        VAE.image((1, 2, 2), 2, DiscretisedLogistic(9), channels=(4,)), counts(x).clamp_max(8), QUIET, generator=g
    ),
    "VAE of a table, missing values": lambda x, g: observed(
        VAE.of(FEATURES, 2, KINDS, hidden=NARROW, mask=True), holes(table(x)), QUIET, generator=g
    ),
    "VAE, missing values in a stream": lambda x, g: observed(vae(mask=True), chunks(holes(x)), QUIET, generator=g),
    "VAE, embedded context": lambda x, g: fitted(
        VAE.gaussian(2, 1, hidden=NARROW, context_features=2, embedding=nn.Linear(2, 3)),
        x[:, :2], QUIET, context=x[:, 2:], generator=g,
    ),
    "VAE, flow prior": lambda x, g: fitted(vae(prior=maf(2, 2, NARROW)), x, QUIET, generator=g),
    "VAE, coupling posterior": lambda x, g: fitted(
        with_posterior(vae(), coupling_posterior(FEATURES, 2, layers=2, hidden=NARROW)), x, QUIET, generator=g
    ),
    "VAE, KL warmed up": by(AnalyticKL(2, WarmUp(3), free_nats=0.1)),
    "VAE, score function": by(ScoreFunction(2)),
    "VAE, leave one out": by(LeaveOneOut(2)),
    "VAE, sticking the landing": by(StickingTheLanding(2, True)),
    "VAE, importance weighted": by(ImportanceWeighted(3)),
    "VAE, doubly reparametrised": by(DoublyReparametrised(3)),
    "VAE, by its mixture": by(MixtureLikelihood(9)),
    "VAE, by its mixture of fresh nodes": by(
        MixtureLikelihood(9), lambda: VAE.gaussian(FEATURES, 3, hidden=NARROW)
    ),
    "VAE, by its mixture of fixed nodes": by(
        MixtureLikelihood(9, seed=0), lambda: VAE.gaussian(FEATURES, 3, hidden=NARROW, prior=DiagonalGaussian(3))
    ),
    "hierarchical VAE": lambda x, g: fitted(
        HierarchicalVAE.above(vae(), (1,), hidden=NARROW), x, QUIET, generator=g
    ),
    "diffusion": lambda x, g: fitted(
        GaussianDiffusion.of_vectors(FEATURES, hidden=NARROW, steps=4), x, QUIET, generator=g
    ),
    "diffusion, simple": lambda x, g: fitted(
        GaussianDiffusion.of_vectors(2, hidden=NARROW, steps=4, context_features=2),
        x[:, :2], QUIET, context=x[:, 2:], simple=True, generator=g,
    ),
    "layers": lambda x, g: fitted(layered(StandardNormal(2), pair()), x, QUIET, generator=g),
    "layers, importance weighted": lambda x, g: fitted(
        layered(maf(FEATURES, 1, NARROW), UniformDequantisation(FEATURES)), counts(x), QUIET, draws=2,
        importance_weighted=True, generator=g,
    ),
    "layers, tight": lambda x, g: fitted(layered(maf(2, 1, NARROW), Max(2, 2)), x, QUIET, generator=g),
    "linear VAE": lambda x, g: fitted(LinearVAE(FEATURES, 2), x, replace(FULL_BATCH, epochs=4), generator=g),
}  # fmt: skip

CLOSED: dict[str, Fit] = {
    "Gaussian": lambda x, g: fitted(Gaussian(FEATURES), x),
    "Gaussian, stream": lambda x, g: fitted(Gaussian(FEATURES), chunks(x), weights=None),
    "diagonal Gaussian": lambda x, g: fitted(DiagonalGaussian(FEATURES), x),
    "PPCA": lambda x, g: fitted(PPCA(FEATURES, 2), x, weights=x[:, 0].exp()),
    "PPCA, stream": lambda x, g: fitted(PPCA(FEATURES, 2), chunks(x)),
    "PPCA, EM": lambda x, g: fitted(PPCA(FEATURES, 2), x, EMSolver(max_iterations=5, tolerance=0.0, progress=False)),
    "PPCA, missing values": lambda x, g: observed(
        PPCA(FEATURES, 2), holes(x), MissingEM(max_iterations=5, tolerance=0.0, progress=False)
    ),
}

MIXTURES: dict[str, Fit] = {
    "mixture": lambda x, g: fitted(GaussianMixture(FEATURES, 2), x, em=FEW, generator=g),
    "mixture, weights": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2, Tied()), x, em=replace(FEW, start=RandomPoints(), restarts=2),
        weights=x[:, 0].exp(), generator=g,
    ),
    "mixture, random responsibilities": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2, Diagonal()), x, em=replace(FEW, start=RandomResponsibilities()), generator=g
    ),
    "mixture, given means, ways up": lambda x, g: fitted(
        GaussianMixture(FEATURES, 3), x, em=EM(max_iterations=60, progress=False, start=Given(x[:1].expand(3, -1)))
    ),
    "mixture of many rows, tied": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2, Tied()), many(x), em=FEW, generator=g
    ),
    "mixture of many rows, diagonal": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2, Diagonal()), many(x), em=FEW, generator=g
    ),
    "mixture, stream": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2, Full()), chunks(x), em=replace(FEW, start=KMeansPlusPlus(3)), generator=g
    ),
    "mixture, weights in a stream": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2), Chunks([(part, part[:, 0].exp()) for part in x.split(15)], weighted=True),
        em=FEW, generator=g,
    ),
    "mixture, stochastic": lambda x, g: fitted(
        GaussianMixture(FEATURES, 2), x, em=StochasticEM(epochs=2, batch_size=20, progress=False), generator=g
    ),
    "mixture, missing values": lambda x, g: observed(GaussianMixture(FEATURES, 2), holes(x), FEW, generator=g),
    "mixture, missing values, diagonal": lambda x, g: observed(
        GaussianMixture(FEATURES, 2, Diagonal()), holes(x), FEW, generator=g
    ),
    "mixture of kinds": lambda x, g: fitted(FiniteMixture(FEATURES, 2, KINDS), table(x), em=FEW, generator=g),
    "mixture of counts": lambda x, g: fitted(FiniteMixture(FEATURES, 2, Poisson()), counts(x), em=FEW, generator=g),
    "mixture of kinds, missing values": lambda x, g: observed(
        FiniteMixture(FEATURES, 2, KINDS), holes(table(x)), FEW, generator=g
    ),
}  # fmt: skip

FITS: dict[str, Fit] = FLOWS | VAES | CLOSED | MIXTURES

RESUMED: dict[str, Callable[[Checkpoint], Fit]] = {  # of two steps or more, each of which is written
    "flow, averaged": lambda to: lambda x, g: fitted(
        real_nvp(FEATURES, 2, NARROW), x, replace(QUIET, averaging=0.9, epochs=2, checkpoint=to), generator=g
    ),
    "flow, stream": lambda to: lambda x, g: fitted(
        real_nvp(FEATURES, 2, NARROW), chunks(x), replace(QUIET, epochs=2, checkpoint=to), generator=g
    ),
    "linear VAE": lambda to: lambda x, g: fitted(
        LinearVAE(FEATURES, 2), x, replace(FULL_BATCH, epochs=4, checkpoint=to), generator=g
    ),
    "PPCA, missing values": lambda to: lambda x, g: observed(
        PPCA(FEATURES, 2), holes(x), MissingEM(max_iterations=5, tolerance=0.0, progress=False, checkpoint=to)
    ),
    "mixture": lambda to: lambda x, g: fitted(
        GaussianMixture(FEATURES, 2), x, em=replace(FEW, checkpoint=to), generator=g
    ),
    "mixture, stochastic": lambda to: lambda x, g: fitted(
        GaussianMixture(FEATURES, 2), x,
        em=StochasticEM(epochs=4, batch_size=20, progress=False, checkpoint=to), generator=g,
    ),
    "mixture of kinds": lambda to: lambda x, g: fitted(
        FiniteMixture(FEATURES, 2, KINDS), table(x), em=replace(FEW, checkpoint=to), generator=g
    ),
}  # fmt: skip
