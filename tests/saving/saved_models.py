"""Models that were saved once, and must be readable for good: ``python -m tests.saving.saved_models`` writes new ones.

Every version of the format has a folder. A file that is there is never written again: it is what an earlier version
left behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from bridge import Abs, DeltaLink, FlowVAE, GaussianRelaxation, HalfNormal, InverseSoftplus, LinkChain, layered
from bridge.hybrids import coupling_posterior, with_flow_prior, with_posterior
from density import (
    BernoulliLikelihood,
    Category,
    Columns,
    ConditionalGaussian,
    DiagonalGaussian,
    DiscretisedLogistic,
    FixedScale,
    Gaussian,
    GaussianLikelihood,
    GlobalScale,
    LocationScaleT,
    NetworkScale,
    PerFeatureScale,
    Poisson,
    Rescaled,
    StandardNormal,
    StudentT,
    ZeroInflated,
    load,
    save,
)
from density.saving.files import VERSION
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    ElementwiseSpline,
    Flow,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    Permutation,
    QRLinear,
    RationalQuadratic,
    convolutional_network,
    glow,
    iaf,
    image_flow,
    linear_flow,
    maf,
    neural_spline_flow,
    on_box,
    real_nvp,
    spline_maf,
)
from lvm import (
    PPCA,
    VAE,
    Diagonal,
    FiniteMixture,
    Full,
    GaussianMixture,
    HierarchicalVAE,
    LatentVariableModel,
    LinearGaussian,
    LinearGaussianPosterior,
    LinearVAE,
    Spherical,
    Tied,
)
from tests.laws.transforms import randomise
from tests.places import FIXTURES

FOLDERS = {1: FIXTURES / "saved", 2: FIXTURES / "saved" / "2"}
RECORD = FIXTURES / "saved" / "log_prob.json"
D = 3
INF = float("inf")


def per_feature(latents: int) -> VAE:
    return VAE.gaussian(D, latents, hidden=(4,), scale=PerFeatureScale(D))


def vae_of_networks() -> VAE:
    """Networks by hand, one of them shared between encoder and decoder."""
    shared = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    encoder = nn.Sequential(nn.Linear(D, 4), nn.LayerNorm(4), shared, nn.Linear(4, 2))
    decoder = nn.Sequential(nn.Linear(1, 4), nn.LeakyReLU(0.1), shared, nn.Linear(4, D))
    return VAE(
        StandardNormal(1),
        ConditionalGaussian(encoder, 1, D, NetworkScale(3.0)),
        Rescaled(ConditionalGaussian(decoder, D, 1, GlobalScale(0.5))),
    )


def tied_and_frozen() -> VAE:
    """A weight that two networks have in common, a frozen decoder, and a dropout that is switched off."""
    encoder = nn.Sequential(nn.Linear(D, 4), nn.Dropout(0.5), nn.Tanh(), tied := nn.Linear(4, 4), nn.Linear(4, 2))
    decoder = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, D))
    decoder[2].weight = tied.weight
    model = VAE(StandardNormal(1), ConditionalGaussian(encoder, 1, D), ConditionalGaussian(decoder, D, 1, FixedScale()))
    model.decoder.requires_grad_(False)
    model.encoder.eval()
    return model


def exact_posterior() -> VAE:
    decoder = LinearGaussian(D, 2)
    return VAE(StandardNormal(2), LinearGaussianPosterior(decoder), decoder)


def by_hand() -> Flow:
    return Flow(
        GaussianMixture(D, 2, Diagonal()),
        Chain(
            Affine(0.5, 2.0),
            QRLinear(D, 2),
            Permutation([2, 0, 1]),
            AffineCoupling([True, False, True], (4,), activation=nn.SiLU),
            Inverse(GaussianAutoregressive(D, (4,), [1, 0, 2])),
        ),
    )


def splines() -> Flow:
    """Of each feature by itself and of all, with tails, and a dropout that is switched off."""
    autoregressive = spline_maf(D, 2, (4,), activation=nn.SiLU, dropout=0.1).transform
    first = ElementwiseSpline(D, RationalQuadratic(4, 6.0))
    return Flow(StudentT(D), Chain(ActNorm(D), first, autoregressive)).eval()


KINDS = Columns([GaussianLikelihood(), Category(3), BernoulliLikelihood()])

MODELS: dict[str, Callable[[], nn.Module]] = {
    "gaussian": lambda: Gaussian(D),
    "diagonal_gaussian": lambda: DiagonalGaussian(D),
    "ppca": lambda: PPCA(D, 2),
    "linear_vae": lambda: LinearVAE(D, 2),
    "mixture_full": lambda: GaussianMixture(D, 2, Full()),
    "mixture_tied": lambda: GaussianMixture(D, 2, Tied()),
    "mixture_diagonal": lambda: GaussianMixture(D, 2, Diagonal()),
    "mixture_spherical": lambda: GaussianMixture(D, 2, Spherical()),
    "mixture_of_columns": lambda: FiniteMixture(D, 2, KINDS),
    "linear_flow_lu": lambda: linear_flow(D),
    "linear_flow_qr": lambda: linear_flow(D, QRLinear),
    "lu_from_matrix": lambda: Flow(StandardNormal(D), LULinear.from_matrix(torch.eye(D).flip(0) + 0.5)),
    "real_nvp": lambda: real_nvp(D, 2, (4,)),
    "glow": lambda: glow(D, 2, (4,)),
    "maf": lambda: maf(D, 2, (4,)),
    "iaf": lambda: iaf(D, 2, (4,)),
    "neural_spline_flow": lambda: neural_spline_flow(D, 2, (4,)),
    "spline_maf": splines,
    "image_flow": lambda: image_flow((1, 2, 2), 1, 1, partial(convolutional_network, hidden=(2,))),
    "flow_on_a_box": lambda: Flow(
        real_nvp(D, 2, (4,)), on_box(torch.tensor([-2.0, -3.0, -INF]), torch.tensor([2.0, INF, INF]))
    ),
    "flow_by_hand": by_hand,
    "flow_vae": lambda: FlowVAE(maf(D, 2, (4,))),
    "vae_gaussian": lambda: per_feature(1),
    "vae_bernoulli": lambda: VAE.bernoulli(D, 1, hidden=(4,)),
    "vae_levels": lambda: VAE.of(D, 1, DiscretisedLogistic(4, mixtures=2), hidden=(3,)),
    "vae_counts": lambda: VAE.of(D, 1, ZeroInflated(Poisson()), hidden=(3,)),
    "vae_student": lambda: VAE.of(D, 1, LocationScaleT(), hidden=(3,)),
    "vae_of_networks": vae_of_networks,
    "vae_tied_and_frozen": tied_and_frozen,
    "vae_image": lambda: VAE.image((1, 1, D), 1, GaussianLikelihood(), channels=(2,)),
    "vae_hierarchical": lambda: HierarchicalVAE.above(VAE.gaussian(D, 2, hidden=(4,)), (1, 1), hidden=(3,)),
    "vae_of_columns": lambda: VAE.of(D, 1, KINDS, hidden=(3,)),
    "vae_exact_posterior": exact_posterior,
    "vae_flow_prior": lambda: with_flow_prior(per_feature(2), real_nvp(2, 2, (4,))),
    "vae_coupling_posterior": lambda: with_posterior(
        per_feature(2),
        coupling_posterior(D, 2, layers=2, hidden=(4,), width=4, encoder_hidden=(4,)),
    ),
    "relaxation": lambda: GaussianRelaxation(linear_flow(D), 0.3),
    "abs_on_a_flow": lambda: layered(real_nvp(2, 2, (4,)), LinkChain(Abs(2), DeltaLink(InverseSoftplus(), 2))),
    "half_normal": lambda: HalfNormal(D),
}


def values(model: nn.Module) -> Tensor:
    """Numbers that follow from every tensor of the model without a draw: log p(x), or log p(x, z) and log q(z|x)."""
    with torch.no_grad():
        if isinstance(model, LatentVariableModel) and not hasattr(model, "log_prob"):
            x = points(model.features)
            z = torch.linspace(-1.2, 0.8, 5 * model.prior.features, dtype=torch.float64).reshape(5, -1)
            return torch.stack([model.log_joint(x, z), model.encoder.log_prob(z, x)])
        density = model
        log_prob: Tensor = density.log_prob(points(density.features).abs())  # type: ignore[operator, arg-type]
        return log_prob


def points(features: int) -> Tensor:
    return torch.linspace(-1.5, 1.5, 5 * features, dtype=torch.float64).reshape(5, features).sin()


def files() -> dict[str, Path]:
    """The files of every version, by its number and the model's name."""
    return {
        f"{version}/{path.stem}": path for version, folder in FOLDERS.items() for path in sorted(folder.glob("*.pt"))
    }


def main() -> None:
    folder = FOLDERS[VERSION]
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name, make in MODELS.items():
        if (folder / f"{name}.pt").exists():
            continue
        torch.manual_seed(0)
        model = randomise(make(), Generator().manual_seed(0), 0.3)
        save(model, folder / f"{name}.pt")
        record.setdefault(name, values(load(folder / f"{name}.pt")).tolist())
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
