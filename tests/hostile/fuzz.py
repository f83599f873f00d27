"""What the fuzz draws: arguments of constructors, tensors of any kind, and calls of public methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from bridge import Abs, DeltaLink, FlowVAE, GaussianRelaxation, HalfNormal, Log, Max, Slice, Sort, layered
from bridge.survae.dequantisation import UniformDequantisation
from density import (
    Bernoulli,
    Categorical,
    ConditionalBernoulli,
    ConditionalGaussian,
    DiagonalGaussian,
    FixedScale,
    Gaussian,
    GlobalScale,
    NetworkScale,
    PerFeatureScale,
    Rescaled,
    StandardNormal,
    Training,
    mlp,
)
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    GaussianAutoregressive,
    Inverse,
    Logit,
    LULinear,
    Permutation,
    QRLinear,
    Sigmoid,
    Transform,
    glow,
    iaf,
    linear_flow,
    maf,
    real_nvp,
)
from lvm import EM, PPCA, VAE, Diagonal, EMSolver, Full, GaussianMixture, LinearVAE, Spherical, Tied

ORDINARY = 1e4  # values up to this size are in the range of every model: nothing may become nan

# ---------------------------------------------------------------------------------------------------------------------
# Constructors
# ---------------------------------------------------------------------------------------------------------------------

counts = st.one_of(st.integers(1, 4), st.sampled_from([0, -1, True, 2.0, "3", None, 9]))
numbers = st.sampled_from([1.0, 0.5, 3, 0.0, -1.0, float("nan"), float("inf"), "1", None, 1e-30, 1e30])
hidden = st.one_of(st.lists(st.integers(1, 4), max_size=2), st.sampled_from([(0,), (-1,), (2.5,), 3, "4", None]))
masks = st.one_of(st.lists(st.booleans(), max_size=4), st.sampled_from([None, "ab", 3, [0.5, 1.0]]))
orders = st.one_of(
    st.permutations([0, 1, 2]).map(list), st.lists(st.integers(-1, 3), max_size=4), st.sampled_from([None, "ab", [0.5]])
)
structures = st.sampled_from([Full(), Tied(), Diagonal(), Spherical(), "full", None, Full])
parts = st.sampled_from(
    [StandardNormal(2), Gaussian(3), Bernoulli(2), real_nvp(2, 2, (3,)), LULinear(2), Permutation([1, 0]), None, 3]
)

CONSTRUCTORS: dict[str, tuple[Callable[..., Any], tuple[st.SearchStrategy[Any], ...]]] = {
    "StandardNormal": (StandardNormal, (counts,)),
    "Gaussian": (Gaussian, (counts,)),
    "DiagonalGaussian": (DiagonalGaussian, (counts,)),
    "Bernoulli": (Bernoulli, (counts,)),
    "Categorical": (Categorical, (counts,)),
    "FixedScale": (FixedScale, (numbers,)),
    "GlobalScale": (GlobalScale, (numbers,)),
    "PerFeatureScale": (PerFeatureScale, (counts, numbers)),
    "NetworkScale": (NetworkScale, (numbers,)),
    "mlp": (mlp, (counts, counts, hidden)),
    "Rescaled": (Rescaled, (parts,)),
    "PPCA": (PPCA, (counts, counts)),
    "LinearVAE": (LinearVAE, (counts, counts)),
    "GaussianMixture": (GaussianMixture, (counts, counts, structures)),
    "VAE": (VAE, (parts, parts, parts)),
    "VAE.gaussian": (lambda d, q, h: VAE.gaussian(d, q, hidden=h), (counts, counts, hidden)),
    "VAE.bernoulli": (lambda d, q, h: VAE.bernoulli(d, q, hidden=h), (counts, counts, hidden)),
    "ActNorm": (ActNorm, (counts,)),
    "LULinear": (LULinear, (counts,)),
    "QRLinear": (QRLinear, (counts, counts)),
    "Permutation": (Permutation, (orders,)),
    "Affine": (Affine, (numbers, numbers)),
    "AffineCoupling": (AffineCoupling, (masks, hidden, st.sampled_from([0, 2]), numbers)),
    "GaussianAutoregressive": (GaussianAutoregressive, (counts, hidden, orders, st.sampled_from([0, 2]), numbers)),
    "Chain": (Chain, (parts, parts)),
    "Inverse": (Inverse, (parts,)),
    "linear_flow": (linear_flow, (counts,)),
    "real_nvp": (real_nvp, (counts, counts, hidden)),
    "glow": (glow, (counts, counts, hidden)),
    "maf": (maf, (counts, counts, hidden)),
    "iaf": (iaf, (counts, counts, hidden)),
    "FlowVAE": (FlowVAE, (parts,)),
    "GaussianRelaxation": (GaussianRelaxation, (parts, numbers)),
    "DeltaLink": (DeltaLink, (parts, counts)),
    "HalfNormal": (HalfNormal, (counts,)),
    "Abs": (Abs, (counts, st.one_of(st.none(), st.lists(st.integers(-1, 3), max_size=3)))),
    "Max": (Max, (counts, counts)),
    "Slice": (Slice, (counts, st.lists(st.integers(-1, 3), max_size=3), parts)),
    "Sort": (Sort, (counts,)),
    "layered": (layered, (parts, parts)),
    "EM": (EM, (counts, numbers, numbers, counts)),
    "Training": (Training, (counts, counts, numbers)),
}


# ---------------------------------------------------------------------------------------------------------------------
# Tensors
# ---------------------------------------------------------------------------------------------------------------------

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "zero": lambda x: 0 * x,
    "one": lambda x: 0 * x + 1,
    "large": lambda x: 1e3 * x,
    "small": lambda x: 1e-6 * x,
    "huge": lambda x: 1e30 * x,
    "tiny": lambda x: 1e-30 * x,
    "nan": lambda x: x.index_fill(0, torch.tensor([0]), torch.nan) if x.ndim and len(x) else x,
    "infinite": lambda x: x.index_fill(0, torch.tensor([0]), torch.inf) if x.ndim and len(x) else x,
    "bits": lambda x: (x > 0).double(),
    "positive": lambda x: x.abs() + 0.1,
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "every other": lambda x: torch.stack([x, x], -1)[..., 0],
    "transposed": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    "expanded": lambda x: x[:1].expand(x.shape) if x.ndim and len(x) else x,
    "requires grad": lambda x: x.clone().requires_grad_() if x.is_floating_point() else x,
}


@dataclass(frozen=True)
class Drawn:
    """A tensor, and whether it is data that no model has a reason to refuse but for its shape and dtype."""

    x: Any
    ordinary: bool


@st.composite
def tensors(draw: st.DrawFn, features: int) -> Drawn:
    """Mostly ``[n, features]``, sometimes of another shape, and sometimes no tensor at all."""
    odd = draw(st.integers(0, 9)) == 0
    if odd and draw(st.booleans()):
        return Drawn(draw(st.sampled_from([None, 3.0, "x", [[1.0, 2.0]], torch.zeros(2, 2).numpy()])), False)
    shape = draw(st.lists(st.integers(0, 4), max_size=3)) if odd else [draw(st.integers(0, 9)), features]
    dtype = draw(st.sampled_from(DTYPES if draw(st.integers(0, 3)) == 0 else DTYPES[:2]))
    fill = draw(st.sampled_from(list(FILLS)))
    noise = torch.randn(shape, generator=Generator().manual_seed(draw(st.integers(0, 99))), dtype=torch.float64)
    x = FILLS[fill](noise).nan_to_num() if not dtype.is_floating_point else FILLS[fill](noise)
    x = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](x.to(dtype))
    ordinary = dtype in DTYPES[:2] and bool((x.isfinite() & (x.abs() <= ORDINARY)).all())
    return Drawn(x, ordinary)


# ---------------------------------------------------------------------------------------------------------------------
# Models and calls
# ---------------------------------------------------------------------------------------------------------------------

QUICK = Training(epochs=1, batch_size=4, validation=0.0, progress=False)
EM_QUICK = EM(max_iterations=2, progress=False)


def seeded() -> Generator:
    return Generator().manual_seed(0)


MODELS: dict[str, Callable[[], Any]] = {
    "Gaussian": lambda: Gaussian(2),
    "DiagonalGaussian": lambda: DiagonalGaussian(2),
    "StandardNormal": lambda: StandardNormal(2),
    "Bernoulli": lambda: Bernoulli(2),
    "Categorical": lambda: Categorical(2),
    "ConditionalGaussian": lambda: ConditionalGaussian(nn.Linear(2, 4), 2, 2),
    "ConditionalBernoulli": lambda: ConditionalBernoulli(nn.Linear(2, 2), 2, 2),
    "HalfNormal": lambda: HalfNormal(2),
    "PPCA": lambda: PPCA(2, 1),
    "LinearVAE": lambda: LinearVAE(2, 1),
    "mixture, full": lambda: GaussianMixture(2, 2),
    "mixture, tied": lambda: GaussianMixture(2, 2, Tied()),
    "mixture, diagonal": lambda: GaussianMixture(2, 2, Diagonal()),
    "mixture, spherical": lambda: GaussianMixture(2, 2, Spherical()),
    "VAE": lambda: VAE.gaussian(2, 1, hidden=(3,)),
    "VAE of bits": lambda: VAE.bernoulli(2, 1, hidden=(3,)),
    "linear flow": lambda: linear_flow(2),
    "Real NVP": lambda: real_nvp(2, 2, (3,)),
    "MAF": lambda: maf(2, 2, (3,)),
    "conditional glow": lambda: glow(2, 2, (3,), 2),
    "FlowVAE": lambda: FlowVAE(maf(2, 2, (3,))),
    "relaxation": lambda: GaussianRelaxation(linear_flow(2), 0.3),
    "abs": lambda: layered(HalfNormal(2), Abs(2)),
    "max": lambda: layered(DiagonalGaussian(1), Max(1, 2)),
    "dequantisation": lambda: layered(StandardNormal(2), UniformDequantisation(2)),
    "chain": lambda: Chain(ActNorm(2), QRLinear(2), Permutation([1, 0]), AffineCoupling([True, False], (3,))),
    "autoregressive": lambda: GaussianAutoregressive(2, (3,)),
    "Logit": Logit,
    "Sigmoid": Sigmoid,
    "Log": Log,
}


def _fit(model: Any, x: Any) -> object:  # noqa: ANN401
    match model:
        case GaussianMixture():
            return model.fit(x, em=EM_QUICK, generator=seeded())
        case PPCA() | Gaussian() | DiagonalGaussian():
            return model.fit(x)
        case _:
            return model.fit(x, QUICK, generator=seeded())


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "log_prob": lambda m, x: m.log_prob(x),
    "log_prob given": lambda m, x: m.log_prob(x, x),
    "sample given": lambda m, x: m.sample(2, context=x, generator=seeded()),
    "log_density": lambda m, x: m.log_density(x, draws=3, generator=seeded()).value,
    "log_weights": lambda m, x: m.log_weights(x, 2, generator=seeded()),
    "elbo": lambda m, x: m.elbo(x, generator=seeded()),
    "elbo_terms": lambda m, x: m.elbo_terms(x, generator=seeded()).elbo,
    "encode": lambda m, x: m.encode(x),
    "decode": lambda m, x: m.decode(x),
    "reconstruct": lambda m, x: m.reconstruct(x),
    "posterior": lambda m, x: m.posterior(x).mean if isinstance(m, PPCA) else m.posterior(x),
    "predict": lambda m, x: m.predict(x),
    "em_step": lambda m, x: m.em_step(x),
    "fit": _fit,
    "fit by EM": lambda m, x: m.fit(x, solver=EMSolver(max_iterations=2)) if isinstance(m, PPCA) else None,
    "forward": lambda m, x: m.forward(x),
    "inverse": lambda m, x: m.inverse(x),
    "initialise": lambda m, x: m.initialise(x),
}
PAIRS = [
    (name, call)
    for name, make in MODELS.items()
    for call in CALLS
    if hasattr(model := make(), call.split()[0]) and (call != "forward" or isinstance(model, Transform))
]
