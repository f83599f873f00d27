"""What is computed with models beside their own methods: public functions, and parts with no model of their own.

Each is a function of points ``[6, 4]`` and of a generator on their device: a new one is one new line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as TheirMixture
from torch import Generator, Tensor, nn

from bridge import (
    Augmentation,
    DiagonalJacobianEncoder,
    GaussianRelaxation,
    JacobianEncoder,
    MarginalBound,
    RelaxedDecoder,
    as_autoregressive,
    as_flow,
    as_linear_vae,
    as_mixture,
    as_ppca,
    as_vae,
    autoregressive_posterior,
    check_exact,
    compare,
    coupling_posterior,
    flow_with_vae_top,
    from_functions,
    from_score,
    from_velocity,
    layered,
    mixture_from_sklearn,
    mixture_to_sklearn,
    ppca_from_sklearn,
    ppca_to_sklearn,
    probability_flow,
    with_flow_decoder,
    with_flow_prior,
    with_posterior,
)
from bridge.estimator.density_estimator import DensityEstimator
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
    Moments,
    Poisson,
    StandardNormal,
    examine,
    kl,
    load,
    save,
    sharded,
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
    PPCA,
    VAE,
    CosineSchedule,
    Diagonal,
    FiniteMixture,
    GaussianDiffusion,
    GaussianMixture,
    HierarchicalVAE,
    LinearSchedule,
    LinearVAE,
)
from lvm.evidence import (
    Adaptive,
    Box,
    LatentStates,
    Pilot,
    Sigmoid,
    annealed,
    audit,
    evidence,
    gap,
    importance,
    quadrature,
)
from lvm.prior_nodes import PriorNodes
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradient_quality import gradient_quality
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
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.cases.densities import ADAPTED
from tests.cases.fits import KINDS, bits, counts, holes, table
from tests.cases.transforms import CONVOLUTIONS
from tests.laws.density_case import DensityCase
from tests.laws.transforms import randomise

Work = Callable[[Tensor, Generator], object]
Ready = Callable[[Tensor], Callable[[Generator], object]]  # makes a model for points like these, and then computes
FEATURES, NARROW = 4, (6,)
LOOSE = 1e-1  # nats
TEN_DRAWS = partial(importance, draws=10)
PILOT = Pilot(chains=2, temperatures=2, transitions=1)
SHORT: dict[str, Any] = {"steps": 3, "chains": 2, "leapfrog": 2, "pilot": PILOT}


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


# These wait for nothing, and send nothing to the device.
QUIET: dict[str, Ready] = {
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


def saved(make: Callable[[], Any]) -> Work:
    """And read again."""

    def work(x: Tensor, generator: Generator) -> object:
        with tempfile.TemporaryDirectory() as folder:
            save(there(make(), x), Path(folder) / "model.pt")
            return load(Path(folder) / "model.pt", device=x.device)

    return work


def converted(
    convert: Callable[[Any], Any], make: Callable[[], Any], *questions: Callable[[Any, Tensor], object]
) -> Work:
    """A model as another one, which is asked."""

    def work(x: Tensor, generator: Generator) -> object:
        other = convert(there(make(), x))
        return [other, *(ask(other, x) for ask in questions)]

    return work


def log_prob(model: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return model.log_prob(x)  # type: ignore[no-any-return]


def learned(estimator: Any) -> list[object]:  # noqa: ANN401
    """What scikit-learn calls the results of a fit."""
    return [value for name, value in vars(estimator).items() if name.endswith("_")]


def claims(x: Tensor, generator: Generator) -> object:
    """Two claims, what they come to together, and apart."""
    first, second = (there(make(), x).log_density(x) for make in (flow, lambda: Gaussian(FEATURES)))
    return [
        first, first - second, (first - second).mean, first.mean, first.standard_error, str(first),
        first.bits_per_dimension(FEATURES), type(first).concatenate([first, first]),
    ]  # fmt: skip


# Of seconds.
DEAR: dict[str, Work] = {
    "is a flow exact": lambda x, g: check_exact(there(real_nvp(3, 2, NARROW), x), g),
}


def adapted(case: DensityCase) -> Work:
    """log p(x) of a density whose code is somebody else's, and draws."""

    def work(x: Tensor, generator: Generator) -> object:
        density, seed = case.make(Generator().manual_seed(0)), Generator().manual_seed(0)
        points, context = case.points(density, seed, 5).to(x), case.context(density, seed, 5)
        density, context = density.to(x), None if context is None else context.to(x)
        return density.log_prob(points, context), density.sample(2, context=context, generator=generator)

    return work


LOOKING: dict[str, Work] = {
    "marginal bound": lambda x, g: MarginalBound(there(flow(), x), there(GaussianMixture(FEATURES, 2), x)).log_weights(
        holes(x), 3, generator=g
    ),
    "marginal bound, PPCA": lambda x, g: MarginalBound(there(flow(), x), there(PPCA(FEATURES, 2), x)).log_density(
        holes(x), draws=7, generator=g
    ),
    "estimator, mixture": lambda x, g: estimated(MixtureLikelihood(9))(x)(g),
    "nodes of Sobol": lambda x, g: nodes(lambda: DiagonalGaussian(3))(x)(g),
    "mixture of bits": converted(
        lambda m: as_mixture(m, 9), lambda: VAE.bernoulli(FEATURES, 1, hidden=NARROW), lambda m, x: m.log_prob(bits(x))
    ),
    "mixture of Gaussians": converted(lambda m: as_mixture(m, 9), vae, log_prob),
    "mixture of a hierarchy": converted(
        lambda m: as_mixture(m, 9), lambda: HierarchicalVAE.above(vae(), (1,), hidden=NARROW), log_prob
    ),
    "mixture of a table": converted(
        lambda m: as_mixture(m, 9), lambda: VAE.of(FEATURES, 1, KINDS, hidden=NARROW), lambda m, x: m.log_prob(table(x))
    ),
    "flow of PPCA": converted(as_flow, lambda: PPCA(FEATURES, 2), log_prob),
    "flow of a Gaussian": converted(as_flow, lambda: Gaussian(FEATURES), log_prob),
    "linear VAE of PPCA": converted(as_linear_vae, lambda: PPCA(FEATURES, 2), log_prob),
    "PPCA of a linear VAE": converted(as_ppca, lambda: LinearVAE(FEATURES, 2), log_prob),
    "scikit-learn's mixture": converted(
        lambda m: learned(mixture_to_sklearn(m, TheirMixture())), lambda: GaussianMixture(FEATURES, 2, Diagonal())
    ),
    "scikit-learn's mixture, back": converted(
        lambda m: mixture_from_sklearn(mixture_to_sklearn(m, TheirMixture())).to(m.reference),
        lambda: GaussianMixture(FEATURES, 2),
    ),
    "scikit-learn's PCA": converted(lambda m: learned(ppca_to_sklearn(m, PCA())), lambda: PPCA(FEATURES, 2)),
    "scikit-learn's PCA, back": converted(
        lambda m: ppca_from_sklearn(ppca_to_sklearn(m, PCA())).to(m.reference), lambda: PPCA(FEATURES, 2)
    ),
    "scikit-learn's estimator": lambda x, g: DensityEstimator(
        lambda features: GaussianMixture(features, 1).to(x), random_state=0
    ).fit(x.cpu().numpy()).score_samples(x.cpu().numpy()),
    "saved flow": saved(flow),
    "saved VAE": saved(vae),
    "saved mixture": saved(lambda: FiniteMixture(FEATURES, 2, KINDS)),
    "sharded": lambda x, g: sharded(
        partial(lambda model, x, g: model.log_density(x, draws=7, generator=g), there(vae(), x)),
        x, parts=2, generator=g,
    ),
    "claims": claims,
    "findings": lambda x, g: str(examine(torch.cat([x, x[:, :1], x[:, :1].round()], 1))),
    "moments": lambda x, g: Moments.of(x),
    "is it exact": lambda x, g: check_exact(there(Gaussian(1), x), g),
    "side by side": lambda x, g: str(
        compare({"flow": there(flow(), x), "VAE": there(vae(), x)}, x, method={"VAE": TEN_DRAWS}, generator=g)
    ),
    "annealing, sigmoid": lambda x, g: annealed(there(vae(), x), x, schedule=Sigmoid(), **SHORT, generator=g),
    "annealing, adaptive": lambda x, g: annealed(there(vae(), x), x, schedule=Adaptive(), **SHORT, generator=g),
    "quadrature of bits": lambda x, g: quadrature(there(of_bits(), x), bits(x)),
    "evidence of categories": lambda x, g: evidence(there(of_categories(), x), bits(x)),
    "audit of a box": lambda x, g: audit(
        there(vae(1, 1), x), Box((-9.0,), (9.0,), 11), method=TEN_DRAWS, passes=2, generator=g
    ),
    "gap of missing values": lambda x, g: gap(there(vae(mask=True), x).observed, holes(x), draws=7, generator=g),
    "quality of gradients": lambda x, g: gradient_quality(
        Reparametrised(), there(vae(), x), x, repeats=3, generator=g, progress=False
    ),
    **{f"adapted: {name}": adapted(case) for name, case in ADAPTED.items()},
}  # fmt: skip
