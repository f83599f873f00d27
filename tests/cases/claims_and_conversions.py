"""What is computed with models and looks at its results: claims, conversions, files, comparisons.

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
from torch import Generator, Tensor

from bridge import (
    MarginalBound,
    as_flow,
    as_linear_vae,
    as_mixture,
    as_ppca,
    check_exact,
    compare,
    flow_with_vae_top,
    from_freia,
    from_normflows,
    from_pythae,
    from_zuko,
    mixture_from_sklearn,
    mixture_to_sklearn,
    ppca_from_sklearn,
    ppca_to_sklearn,
)
from bridge.estimator.density_estimator import DensityEstimator
from density import (
    DiagonalGaussian,
    ExactModel,
    Gaussian,
    Moments,
    examine,
    load,
    save,
    sharded,
)
from flows import maf, real_nvp
from lvm import (
    PPCA,
    VAE,
    Diagonal,
    FiniteMixture,
    GaussianMixture,
    HierarchicalVAE,
    LinearVAE,
)
from lvm.evidence import (
    Adaptive,
    Box,
    Pilot,
    Sigmoid,
    annealed,
    audit,
    evidence,
    gap,
    importance,
    quadrature,
)
from lvm.vae.gradient_quality import gradient_quality
from lvm.vae.gradients import (
    Reparametrised,
)
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.bridge.adapters import stand_ins
from tests.cases.computations import FEATURES, NARROW, estimated, flow, nodes, of_bits, of_categories, there, vae
from tests.cases.densities import ADAPTED
from tests.cases.fits import KINDS, bits, holes, table
from tests.laws.density_case import DensityCase

Work = Callable[[Tensor, Generator], object]
TEN_DRAWS = partial(importance, draws=10)
PILOT = Pilot(chains=2, temperatures=2, transitions=1)
SHORT: dict[str, Any] = {"steps": 3, "chains": 2, "leapfrog": 2, "pilot": PILOT}


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


def foreign(make: Callable[[], Any]) -> Work:
    """A model of another library: its claim, and draws."""

    def work(x: Tensor, generator: Generator) -> object:
        model = make().to(x)
        few = {} if isinstance(model, ExactModel) else {"draws": 7, "generator": generator}
        return model.log_density(x, **few), model.sample(3, generator=generator)

    return work


def claims(x: Tensor, generator: Generator) -> object:
    """Two claims, what they come to together, and apart."""
    first, second = (there(make(), x).log_density(x) for make in (flow, lambda: Gaussian(FEATURES)))
    return [
        first, first - second, (first - second).mean, first.mean, first.standard_error, str(first),
        first.bits_per_dimension(FEATURES), type(first).concatenate([first, first]),
    ]  # fmt: skip


def integrated(make: Callable[[], Any]) -> Work:
    """log p(x) of two points of two features, roughly."""
    return lambda x, g: quadrature(there(make(), x), x[:2, :2], tolerance=0.1, max_evaluations=2000, generator=g)


def adapted(case: DensityCase) -> Work:
    """log p(x) of a density whose code is somebody else's, and draws."""

    def work(x: Tensor, generator: Generator) -> object:
        density, seed = case.make(Generator().manual_seed(0)), Generator().manual_seed(0)
        points, context = case.points(density, seed, 5).to(x), case.context(density, seed, 5)
        density, context = density.to(x), None if context is None else context.to(x)
        return density.log_prob(points, context), density.sample(2, context=context, generator=generator)

    return work


# Of seconds.
DEAR: dict[str, Work] = {
    "quadrature of a hierarchy": integrated(lambda: HierarchicalVAE.above(vae(2, 1), (1,), hidden=NARROW)),
    "is a flow exact": lambda x, g: check_exact(there(real_nvp(3, 2, NARROW), x), g),
}

CLAIMS_AND_CONVERSIONS: dict[str, Work] = {
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
    "quadrature of a mixture as prior": integrated(lambda: vae(2, 1, prior=GaussianMixture(1, 2))),
    "quadrature of a flow as prior": integrated(lambda: vae(2, 1, prior=maf(1, 1, NARROW))),
    "quadrature of layers": integrated(lambda: flow_with_vae_top(real_nvp(2, 2, NARROW).transform, vae(2, 1))),
    "evidence of categories": lambda x, g: evidence(there(of_categories(), x), bits(x)),
    "audit of a box": lambda x, g: audit(
        there(vae(1, 1), x), Box((-9.0,), (9.0,), 11), method=TEN_DRAWS, passes=2, generator=g
    ),
    "gap of missing values": lambda x, g: gap(there(vae(mask=True), x).observed, holes(x), draws=7, generator=g),
    "quality of gradients": lambda x, g: gradient_quality(
        Reparametrised(), there(vae(), x), x, repeats=3, generator=g, progress=False
    ),
    "flow of normflows": foreign(lambda: from_normflows(stand_ins.NormalizingFlow(FEATURES))),
    "flow of zuko": foreign(lambda: from_zuko(stand_ins.LazyGaussian(FEATURES, 0))),
    "flow of FreIA": foreign(lambda: from_freia(stand_ins.SequenceINN(FEATURES))),
    "VAE of pythae": foreign(lambda: from_pythae(stand_ins.PythaeVAE("mse"))),
    **{f"adapted: {name}": adapted(case) for name, case in ADAPTED.items()},
}  # fmt: skip
