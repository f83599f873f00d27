"""Steps whose cost on a device has a budget: each a computation that does as many of them as it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from density import (
    BernoulliLikelihood,
    Category,
    Columns,
    ConditionalGaussian,
    FixedScale,
    GaussianLikelihood,
    History,
    LogDensity,
    Poisson,
    StandardNormal,
    Training,
    lbfgs,
)
from flows import glow, iaf, maf, neural_spline_flow, real_nvp
from lvm import (
    EM,
    PPCA,
    VAE,
    Diagonal,
    FiniteMixture,
    Full,
    GaussianMixture,
    LinearVAE,
    RandomPoints,
    StochasticEM,
    Tied,
)
from lvm.evidence import Linear, Pilot, annealed, quadrature
from lvm.mixture.covariance import Covariance
from lvm.ppca.observed_em import MissingEM
from lvm.vae.linear import FULL_BATCH
from tests.device.pretended import Generator

Run = Callable[[int], object]
FEATURES, HIDDEN, ROWS = 8, (8, 8), 32
KINDS = Columns([GaussianLikelihood(), Category(3), BernoulliLikelihood(), Poisson()])

MODELS: dict[str, Callable[[], Any]] = {
    "real_nvp, 8 layers": lambda: real_nvp(FEATURES, 8, HIDDEN),
    "glow, 8 layers": lambda: glow(FEATURES, 8, HIDDEN),
    "neural_spline_flow, 5 layers": lambda: neural_spline_flow(FEATURES, 5, HIDDEN),
    "maf, 5 layers": lambda: maf(FEATURES, 5, HIDDEN),
    "iaf, 5 layers": lambda: iaf(FEATURES, 5, HIDDEN),
    "VAE": lambda: VAE.gaussian(FEATURES, 2, hidden=HIDDEN),
}


def data(rows: int = ROWS, features: int = FEATURES) -> torch.Tensor:
    generator = Generator("cpu")
    generator.manual_seed(0)
    return torch.randn(rows, features, generator=generator).to("cuda")


def calls(make: Callable[[], nn.Module], call: Callable[[Any, torch.Tensor], object]) -> Callable[[], Run]:
    """Calls without a gradient."""

    def ready() -> Run:
        torch.manual_seed(0)
        model, x = make().to("cuda"), data()

        def run(steps: int) -> None:
            with torch.no_grad():
                for _ in range(steps):
                    call(model, x)

        return run

    return ready


def training(make: Callable[[], Any]) -> Callable[[], Run]:
    """Steps of one epoch of a fit, whose looks at the objective and whose start do not depend on how many they are."""

    def run(steps: int) -> None:
        torch.manual_seed(0)
        rows = 64  # in batches of one size, however many
        make().fit(data(rows), Training(epochs=1, batch_size=rows // steps, validation=0.0, progress=False))

    return lambda: run


def epochs(steps: int) -> History:
    """Epochs of one step, with a look at the objective and at the rows held out."""
    settings = Training(epochs=steps, batch_size=None, progress=False, patience=None)
    return MODELS["VAE"]().fit(data(), settings)


def iterations(fit: Callable[[int], object]) -> Callable[[], Run]:
    """Iterations of a fit from a start that is always the same."""

    def run(steps: int) -> None:
        torch.manual_seed(0)
        fit(steps)

    return lambda: run


def whole(work: Callable[[], object]) -> Callable[[], Run]:
    """A computation as one step."""

    def run(steps: int) -> None:
        torch.manual_seed(0)
        for _ in range(steps - 1):
            work()

    return lambda: run


def em(structure: Covariance) -> Callable[[], Run]:
    return iterations(
        lambda steps: GaussianMixture(FEATURES, 3, structure).fit(
            data(1024), em=EM(max_iterations=2 + steps, tolerance=0.0, progress=False)
        )
    )


def one_iteration(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """L-BFGS that looks at the objective after every iteration."""
    optimiser = lbfgs(parameters, learning_rate)
    optimiser.param_groups[0]["max_iter"] = 1
    return optimiser


def l_bfgs(steps: int) -> History:
    """As many iterations of L-BFGS and one more."""
    settings = replace(FULL_BATCH, epochs=1 + steps, progress=False, optimiser=one_iteration)
    return LinearVAE(FEATURES, 2).fit(data(64), settings)


def table() -> torch.Tensor:
    x = data(1024, 4)
    return torch.stack([x[:, 0], (x[:, 1] > 0) + (x[:, 0] > 0).to(x), (x[:, 2] > 0).to(x), x[:, 3].abs().round()], 1)


def holes() -> torch.Tensor:
    x = data(64)
    x[::2, 0], x[::3, 2] = torch.nan, torch.nan
    return x


def chains(steps: int) -> LogDensity:
    model, pilot = MODELS["VAE"]().to("cuda"), Pilot(chains=2, temperatures=2, transitions=1)
    return annealed(model, data(4), steps=2 + steps, chains=2, schedule=Linear(), leapfrog=2, pilot=pilot)


class Kink(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z - 0.3).abs()


def of_one_latent(
    network: nn.Module, std: float, tolerance: float | None = None, max_evaluations: int | None = None
) -> LogDensity:
    """Of one point: each further round of one kind takes a narrower peak, another digit, or more evaluations."""
    encoder, decoder = ConditionalGaussian(nn.Linear(1, 2), 1, 1), ConditionalGaussian(network, 1, 1, FixedScale(std))
    model = VAE(StandardNormal(1), encoder, decoder).to("cuda")
    x = torch.full((1, 1), 0.3).to("cuda")
    return quadrature(model, x, tolerance=tolerance, max_evaluations=max_evaluations)


STEPS: dict[str, Callable[[], Run]] = {
    **{f"{name}: log_prob": calls(make, lambda m, x: m.log_prob(x)) for name, make in MODELS.items() if name != "VAE"},
    **{f"{name}: sample": calls(make, lambda m, x: m.sample(len(x))) for name, make in MODELS.items()},
    **{f"{name}: training step": training(make) for name, make in MODELS.items()},
    "VAE: elbo": calls(MODELS["VAE"], lambda m, x: m.elbo(x)),
    "VAE: epoch of one step": iterations(epochs),
    "linear VAE: iteration of L-BFGS": iterations(l_bfgs),
    "mixture: log_prob": calls(lambda: GaussianMixture(FEATURES, 3), lambda m, x: m.log_prob(x)),
    "mixture: posterior": calls(lambda: GaussianMixture(FEATURES, 3), lambda m, x: m.posterior(x)),
    "mixture: sample": calls(lambda: GaussianMixture(FEATURES, 3), lambda m, x: m.sample(len(x))),
    "EM, full covariances: iteration": em(Full()),
    "EM, tied covariances: iteration": em(Tied()),
    "EM, diagonal covariances: iteration": em(Diagonal()),
    "EM, a table of several kinds: iteration": iterations(
        lambda steps: FiniteMixture(4, 3, KINDS).fit(
            table(), em=EM(max_iterations=2 + steps, tolerance=0.0, start=RandomPoints(), progress=False)
        )
    ),
    "stochastic EM: epoch of four steps": iterations(
        lambda steps: GaussianMixture(FEATURES, 3).fit(
            data(2048), em=StochasticEM(epochs=1 + steps, batch_size=512, averaging=False, progress=False)
        )
    ),
    "PPCA by closed form": whole(lambda: PPCA(FEATURES, 2).fit(data(256))),
    "PPCA with missing values: iteration": iterations(
        lambda steps: PPCA(FEATURES, 2).observed.fit(
            holes(), MissingEM(max_iterations=2 + steps, tolerance=0.0, progress=False)
        )
    ),
    "annealing: step of two leapfrogs": iterations(chains),
    "quadrature: round of the search": iterations(lambda steps: of_one_latent(nn.Identity(), 0.04 * 4.0**-steps)),
    "quadrature: round of halving": iterations(lambda steps: of_one_latent(Kink(), 1.0, 4e-6 * 4.0**-steps)),
    "quadrature: lattice": iterations(lambda steps: of_one_latent(Kink(), 1.0, 1e-14, 600 + 100 * steps)),
    "quadrature, 4 points in two dimensions": whole(
        lambda: quadrature(VAE.gaussian(3, 2, hidden=(4,)).to("cuda"), data(4, 3))
    ),
}
