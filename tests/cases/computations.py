"""What is computed with models beside their own methods, and waits for nothing: parts with no model of their own, too.

Each makes a model for points ``[6, 4]``, and then computes: a new one is one new line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from bridge import (
    Augmentation,
    DiagonalJacobianEncoder,
    GaussianRelaxation,
    JacobianEncoder,
    RelaxedDecoder,
    as_autoregressive,
    as_vae,
    autoregressive_posterior,
    coupling_posterior,
    flow_with_vae_top,
    from_functions,
    from_score,
    from_velocity,
    layered,
    probability_flow,
    with_flow_decoder,
    with_flow_prior,
    with_posterior,
)
from bridge.relaxation import RelaxedEncoder
from density import (
    Bernoulli,
    Categorical,
    CategoricalLevels,
    ConditionalBernoulli,
    ConditionalCategorical,
    Density,
    DiagonalGaussian,
    DiscretisedLogistic,
    FixedScale,
    Gaussian,
    Independent,
    Laplace,
    Poisson,
    StandardNormal,
    kl,
)
from flows import (
    AffineCoupling,
    ExactTrace,
    Flow,
    Hutchinson,
    continuous_flow,
    glow,
    image_flow,
    maf,
    on_half_line,
    real_nvp,
)
from flows.continuous.trace import Trace
from lvm import (
    VAE,
    CosineSchedule,
    GaussianDiffusion,
    LinearSchedule,
)
from lvm.evidence import (
    LatentStates,
)
from lvm.prior_nodes import PriorNodes
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
    WrongGradient,
)
from tests.cases.fits import KINDS, bits, counts, holes, table
from tests.cases.transforms import CONVOLUTIONS
from tests.laws.transforms import randomise

Ready = Callable[[Tensor], Callable[[Generator], object]]  # makes a model for points like these, and then computes
FEATURES, NARROW = 4, (6,)
LOOSE = 1e-1  # nats


def there(model: Any, x: Tensor) -> Any:  # noqa: ANN401
    """The model with random parameters, in the dtype and on the device of points."""
    return randomise(model, Generator().manual_seed(0), 0.3).to(x)


def vae(features: int = FEATURES, latents: int = 2, **settings: Any) -> VAE:  # noqa: ANN401
    return VAE.gaussian(features, latents, hidden=NARROW, **settings)


def flow() -> Flow:
    return real_nvp(FEATURES, 2, NARROW)


def asked(make: Callable[[], Any], of: Callable[[Tensor], Tensor] = lambda x: x) -> Ready:
    """The ELBO where a model has one, else log p(x) of points like these, and draws."""

    def ready(x: Tensor) -> Callable[[Generator], object]:
        model, points = there(make(), x), of(x)

        def run(generator: Generator) -> object:
            bound = hasattr(model, "elbo")
            value = model.elbo(points, draws=2, generator=generator) if bound else model.log_prob(points)
            return value, model.sample(3, generator=generator)

        return run

    return ready


def estimated(estimator: GradientEstimator) -> Ready:
    """The bound of an estimator, and its gradient."""

    def ready(x: Tensor) -> Callable[[Generator], object]:
        model = there(vae(), x)

        def run(generator: Generator) -> object:
            bound = estimator(model, x, generator)
            return bound, torch.autograd.grad(bound.sum(), [*model.parameters()], materialize_grads=True)

        return run

    return ready


def of_bits() -> VAE:
    encoder = ConditionalBernoulli(nn.Linear(FEATURES, 3), 3, FEATURES)
    return VAE(Bernoulli(3), encoder, ConditionalBernoulli(nn.Linear(3, FEATURES), FEATURES, 3))


def of_categories() -> VAE:
    encoder = ConditionalCategorical(nn.Linear(FEATURES, 3), 3, FEATURES)
    return VAE(Categorical(3), encoder, ConditionalBernoulli(nn.Linear(3, FEATURES), FEATURES, 3))


def counted(make: Callable[[], Any]) -> Ready:
    """Sums over the states of latents."""

    def ready(x: Tensor) -> Callable[[Generator], object]:
        model = there(make(), x)

        def run(generator: Generator) -> object:
            states = LatentStates(model)
            return states.log_prob(bits(x)), states.posterior(bits(x))

        return run

    return ready


def nodes(prior: Callable[[], Density]) -> Ready:
    def ready(x: Tensor) -> Callable[[Generator], object]:
        density = there(prior(), x)
        return lambda generator: PriorNodes.of(density, 9, generator)

    return ready


def divergence(make: Callable[[], Density], other: Callable[[], Density]) -> Ready:
    """In closed form."""

    def ready(x: Tensor) -> Callable[[Generator], object]:
        q, p = there(make(), x), there(other(), x)
        return lambda generator: kl(q, p)

    return ready


def relaxed(encoder: Callable[[RelaxedDecoder], RelaxedEncoder] = JacobianEncoder) -> Ready:
    def ready(x: Tensor) -> Callable[[Generator], object]:
        model = GaussianRelaxation(there(flow(), x), 0.1, encoder)
        return lambda generator: (model.elbo(x, generator=generator), model.limiting_gap(x))

    return ready


def of_model(make: Callable[[], Any], *questions: Callable[[Any, Tensor, Generator], object]) -> Ready:
    """A model that is asked."""

    def ready(x: Tensor) -> Callable[[Generator], object]:
        model = there(make(), x)
        return lambda generator: [ask(model, x, generator) for ask in questions]

    return ready


def solved(trace: Trace) -> Ready:
    """A continuous flow there and back."""
    return asked(lambda: continuous_flow(FEATURES, NARROW, trace=trace, tolerance=LOOSE))


def diffusion() -> GaussianDiffusion:
    return GaussianDiffusion.of_vectors(FEATURES, hidden=NARROW, steps=4, schedule=CosineSchedule(-3.0, 3.0))


def images() -> VAE:
    return VAE.image((1, 4, 4), 2, DiscretisedLogistic(9, 2), channels=(3, 4))


def tiles(x: Tensor) -> Tensor:
    return counts(x).clamp_max(8).repeat(1, 4)


COMPUTATIONS: dict[str, Ready] = {
    "VAE of counts": asked(lambda: VAE.of(FEATURES, 2, Poisson(), hidden=NARROW), counts),
    "VAE of levels": asked(lambda: VAE.of(FEATURES, 2, CategoricalLevels(9), hidden=NARROW), lambda x: counts(x) % 9),
    "VAE of a table": asked(lambda: VAE.of(FEATURES, 2, KINDS, hidden=NARROW), table),
    "VAE of a table, missing values": asked(
        lambda: VAE.of(FEATURES, 2, KINDS, hidden=NARROW, mask=True).observed, lambda x: holes(table(x))
    ),
    "VAE of images": asked(images, tiles),
    "VAE, coupling posterior": asked(
        lambda: with_posterior(vae(), coupling_posterior(FEATURES, 2, layers=2, hidden=NARROW, standardise=True))
    ),
    "VAE, autoregressive posterior": asked(
        lambda: with_posterior(vae(), autoregressive_posterior(FEATURES, 2, layers=2, hidden=NARROW))
    ),
    "VAE, flow prior": asked(lambda: with_flow_prior(vae(), maf(2, 1, NARROW))),
    "VAE, flow decoder": asked(lambda: with_flow_decoder(vae(), layers=2, hidden=NARROW)),
    "VAE on a flow": asked(lambda: flow_with_vae_top(flow().transform, vae())),
    "VAE of functions": asked(
        lambda: from_functions(
            nn.Linear(FEATURES, 4), nn.Linear(2, FEATURES), latent_features=2, likelihood=FixedScale(0.5)
        )
    ),
    "flow as a VAE": asked(lambda: as_vae(flow())),
    "flow of images": asked(lambda: image_flow((1, 2, 2), 1, 1, CONVOLUTIONS)),
    "flow on a half-line": asked(
        lambda: Flow(StandardNormal(FEATURES), on_half_line(torch.zeros(FEATURES))), lambda x: x.exp()
    ),
    "coupling as an autoregressive layer": of_model(
        lambda: as_autoregressive(AffineCoupling([True, False] * 2, NARROW)), lambda m, x, g: m.inverse(x)
    ),
    "augmented": asked(lambda: layered(glow(5, 2, NARROW), Augmentation(FEATURES, maf(1, 1, NARROW, FEATURES)))),
    "estimator, score function": estimated(ScoreFunction(2)),
    "estimator, leave one out": estimated(LeaveOneOut(3)),
    "estimator, reparametrised": estimated(Reparametrised(2)),
    "estimator, analytic KL": estimated(AnalyticKL(2, free_nats=0.1)),
    "estimator, sticking the landing": estimated(StickingTheLanding(2)),
    "estimator, importance weighted": estimated(ImportanceWeighted(3)),
    "estimator, doubly reparametrised": estimated(DoublyReparametrised(3)),
    "estimator, wrong gradient": estimated(WrongGradient(3)),
    "relaxation": relaxed(),
    "relaxation, diagonal": relaxed(DiagonalJacobianEncoder),
    "continuous flow": solved(ExactTrace()),
    "continuous flow, Hutchinson": solved(Hutchinson(2)),
    "diffusion": of_model(
        diffusion,
        lambda m, x, g: m.elbo(x, draws=3, generator=g),
        lambda m, x, g: m.noise_matching(x, generator=g),
        lambda m, x, g: m.layer.schedule.slope(x[:, 0].sigmoid()),
    ),
    "linear schedule": of_model(LinearSchedule, lambda m, x, g: (m(x[:, 0].sigmoid()), m.slope(x[:, 0].sigmoid()))),
    "probability flow": asked(lambda: probability_flow(diffusion().double(), tolerance=LOOSE)),
    "flow of a velocity": asked(lambda: from_velocity(lambda x, t: -x * t, FEATURES, tolerance=LOOSE)),
    "flow of a score": asked(lambda: from_score(lambda z, t: -z, FEATURES, LinearSchedule(1.0, 2.0), tolerance=LOOSE)),
    "divergence of Gaussians": divergence(lambda: Gaussian(3), lambda: DiagonalGaussian(3)),
    "divergence of full Gaussians": divergence(lambda: DiagonalGaussian(3), lambda: Gaussian(3)),
    "divergence of bits": divergence(lambda: Bernoulli(3), lambda: Bernoulli(3)),
    "divergence of categories": divergence(lambda: Categorical(3), lambda: Categorical(3)),
    "divergence of counts": divergence(lambda: Independent(3, Poisson()), lambda: Independent(3, Poisson())),
    "divergence of levels": divergence(
        lambda: Independent(3, CategoricalLevels(3)), lambda: Independent(3, CategoricalLevels(3))
    ),
    "divergence of Laplace densities": divergence(lambda: Independent(3, Laplace()), lambda: Independent(3, Laplace())),
    "states of bits": counted(of_bits),
    "states of categories": counted(of_categories),
    "nodes on a lattice": nodes(lambda: StandardNormal(2)),
    "nodes of categories": nodes(lambda: Categorical(3)),
    "nodes of a flow": nodes(lambda: real_nvp(2, 2, NARROW)),
}
