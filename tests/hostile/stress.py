"""Hostile data, the models that are fitted to it, and what is to come of each pair: an answer, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Generator, Tensor, nn

from density import DiagonalGaussian, Gaussian, History, NonFiniteObjective, StandardNormal, Training
from flows import Flow, linear_flow, maf, real_nvp
from lvm import EM, PPCA, VAE, Diagonal, EMSolver, Full, GaussianMixture, LinearVAE, Spherical, Tied
from lvm.mixture.covariance import Covariance
from lvm.vae.linear import FULL_BATCH
from tests.lvm.mixture.mixtures import dense

K, LATENTS = 3, 1
WIDE = 2000


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


def rows(n: int = 200, features: int = 3, seed: int = 0) -> Tensor:
    """Two overlapping clusters with correlated features, float64."""
    generator = Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64) / math.sqrt(features)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64) @ (mixing + torch.eye(features).double())
    x[::2] += 3
    return x


def changed(row: int | slice, column: int, value: float | Tensor) -> Tensor:
    x = rows()
    x[row, column] = value
    return x


def cauchy() -> Tensor:
    share = torch.rand(200, 3, generator=Generator().manual_seed(5), dtype=torch.float64)
    return (math.pi * (share - 0.5)).tan()


EVERY = slice(None)
DATA: dict[str, Callable[[], Tensor]] = {
    "plain": rows,
    "offset 1e8": lambda: rows() + 1e8,
    "scale 1e8": lambda: rows() * 1e8,
    "scale 1e-8": lambda: rows() * 1e-8,
    "duplicated rows": lambda: rows().repeat(5, 1),
    "collinear columns": lambda: changed(EVERY, 2, rows()[:, 0] + rows()[:, 1]),
    "constant column": lambda: changed(EVERY, 1, 7.3),
    "heavy tails": cauchy,
    "an outlier at 1e12": lambda: changed(17, 1, 1e12),
    "one row": lambda: rows()[:1],
    "two rows": lambda: rows()[:2],
    "one column": lambda: rows()[:, :1],
    "2000 columns": lambda: rows(40, WIDE, 1),
}
# What is done to plain data, as log-Jacobian a feature: a model fitted to it is the model fitted to plain data, moved.
LOG_SCALE = {"plain": 0.0, "offset 1e8": 0.0, "scale 1e8": math.log(1e8), "scale 1e-8": math.log(1e-8)}


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A model and how its fit went.

    Attributes:
        value: mean log p(x) of the rows that it was fitted to, or of a VAE's ELBO, nats.
    """

    model: Any
    history: History
    value: float


def seeded() -> Generator:
    return Generator().manual_seed(3)


def steps(x: Tensor) -> Training:
    """Full batches, so that copies of rows change nothing."""
    return Training(
        epochs=5 if x.shape[1] == WIDE else 15,
        batch_size=None,
        learning_rate=1e-3 if x.shape[1] == WIDE else 1e-2,
        validation=0.0,
        progress=False,
    )


def steps_of_matrix(x: Tensor) -> Training:
    """A step moves D weights of every output at once: it must be 1/D as large."""
    return replace(steps(x), epochs=3, learning_rate=1e-5) if x.shape[1] == WIDE else steps(x)


def em(x: Tensor) -> EM:
    return EM(max_iterations=2 if x.shape[1] == WIDE else 30, progress=False)


def mixture(covariance: Covariance) -> tuple[Callable[[int], nn.Module], Callable[[Any, Tensor], History]]:
    return (
        lambda features: GaussianMixture(features, K, covariance),
        lambda model, x: model.fit(x, em=em(x), generator=seeded()),
    )


MODELS: dict[str, tuple[Callable[[int], nn.Module], Callable[[Any, Tensor], History]]] = {
    "Gaussian": (Gaussian, lambda model, x: model.fit(x)),
    "DiagonalGaussian": (DiagonalGaussian, lambda model, x: model.fit(x)),
    "PPCA": (lambda d: PPCA(d, LATENTS), lambda model, x: model.fit(x)),
    "PPCA by EM": (lambda d: PPCA(d, LATENTS), lambda model, x: model.fit(x, solver=EMSolver())),
    "LinearVAE": (
        lambda d: LinearVAE(d, LATENTS),
        lambda model, x: model.fit(
            x, replace(FULL_BATCH, epochs=100 if x.shape[1] == WIDE else 15), generator=seeded()
        ),
    ),
    "mixture, full": mixture(Full()),
    "mixture, tied": mixture(Tied()),
    "mixture, diagonal": mixture(Diagonal()),
    "mixture, spherical": mixture(Spherical()),
    "VAE": (
        lambda d: VAE.gaussian(d, LATENTS, hidden=(16,)),
        lambda model, x: model.fit(x, replace(steps(x), epochs=15), generator=seeded()),
    ),
    "LU-linear": (linear_flow, lambda model, x: model.fit(x, steps_of_matrix(x), generator=seeded())),
    "coupling": (
        lambda d: real_nvp(d, 2, (16,), base=StandardNormal),
        lambda model, x: model.fit(x, steps(x), generator=seeded()),
    ),
    "autoregressive": (
        lambda d: maf(d, 2, (16,), base=StandardNormal),
        lambda model, x: model.fit(x, steps(x), generator=seeded()),
    ),
}


def fitted(name: str, x: Tensor) -> Fitted:
    make, fit = MODELS[name]
    torch.manual_seed(0)
    model: Any = make(x.shape[1])
    history = fit(model, x)
    with torch.no_grad():
        vae = isinstance(model, VAE)
        value = model.elbo(x, draws=16, generator=seeded()) if vae else model.log_prob(x)
    return Fitted(model, history, value.double().mean().item())


@cache
def fitted_to_plain(name: str, dtype: torch.dtype) -> Fitted:
    return fitted(name, rows().to(dtype))


# ---------------------------------------------------------------------------------------------------------------------
# Expectations
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Error:
    """One error of that class whose message has that phrase.

    Attributes:
        untouched: whether the model is what it was before; else it is a model of finite numbers.
    """

    error: type[Exception]
    phrase: str
    untouched: bool = True


@dataclass(frozen=True)
class Answer:
    """The fit comes to an end, and its value is right.

    Attributes:
        check: raises AssertionError unless it is, given the name of model and data, and the data.
    """

    check: Callable[[str, str, Tensor, Fitted], None]


@dataclass(frozen=True)
class By:
    """What is expected in float64 and what in float32."""

    float64: Answer | Error
    float32: Answer | Error


# What is left to gain where a gradient fit stops, and what Adam makes of a gradient that is zero up to rounding: it
# divides it by its own size, so that fits that differ in rounding alone go different ways where it does not matter.
BY_GRADIENT = {torch.float64: 1e-4, torch.float32: 5e-3}


def near(actual: float, expected: float, dtype: torch.dtype, *, slack: float = 0.0) -> None:
    """Within the rounding of a log-density of |e| nats and of the closed form or EM that led to it, or the slack."""
    tolerance = slack + (1e-7 if dtype is torch.float64 else 2e-4) * max(1.0, abs(expected))
    assert abs(actual - expected) <= tolerance, f"{actual} is not {expected} ± {tolerance:.1g}"


def slack(name: str, dtype: torch.dtype) -> float:
    return BY_GRADIENT[dtype] if name in ("LinearVAE", "VAE", "LU-linear", "coupling", "autoregressive") else 0.0


def _maximum(name: str, data: str, x: Tensor, fit: Fitted) -> None:
    """The maximum of the likelihood, from singular values of the centred columns: no covariance is formed."""
    n, d = x.shape
    centred = (x.double() - x.double().mean(0)).numpy()
    centred -= centred.mean(0)
    if name == "DiagonalGaussian":
        log_det = np.log(np.square(centred).mean(0)).sum()
    elif name == "Gaussian" or d == 1:
        size = np.abs(centred).max(0)
        log_det = 2 * (np.log(np.linalg.svd(centred / size / math.sqrt(n), compute_uv=False)) + np.log(size)).sum()
    else:
        variances = np.square(np.linalg.svd(centred / math.sqrt(n), compute_uv=False))
        noise = variances[LATENTS:].sum() / (d - LATENTS)
        log_det = np.log(variances[:LATENTS]).sum() + (d - LATENTS) * math.log(noise)
    expected = -0.5 * (d * math.log(2 * math.pi) + log_det + d)
    near(fit.value, expected, x.dtype, slack=slack(name, x.dtype))


def _moved(name: str, data: str, x: Tensor, fit: Fitted) -> None:
    """The same as of plain data, but for the log-Jacobian of what was done to it."""
    plain = fitted_to_plain(name, x.dtype)
    # Flows whiten as far as the number of rows says that correlations are known, and copies are rows.
    room = 0.02 if data == "duplicated rows" and name in ("coupling", "autoregressive") else slack(name, x.dtype)
    near(fit.value, plain.value - LOG_SCALE.get(data, 0.0) * x.shape[1], x.dtype, slack=room)


def _rises(name: str, data: str, x: Tensor, fit: Fitted) -> None:
    """EM's likelihood rises, and log_prob is that of the parameters it ends at, as numpy sees them."""
    values = fit.history.objective
    assert values[-1] >= values[0]
    assert min(np.diff(values), default=0) >= -1e-6 * abs(values[-1]), "regularised EM may fall a little, no more"
    value, condition = _by_numpy(fit.model, x)
    near(fit.value, value, x.dtype, slack=torch.finfo(x.dtype).eps * condition)


def _by_numpy(model: GaussianMixture, x: Tensor) -> tuple[float, float]:
    """Mean log-density in float64, by elimination on every correlation matrix, and the largest condition number."""
    model = deepcopy(model).double()
    joint, condition = [], 1.0
    for k in range(K):
        residual = (x.double() - model.means[k].detach()).numpy()
        if model.covariance.dense:
            covariance = dense(model)[k].numpy()
            size = np.sqrt(np.diag(covariance))
            correlation = covariance / size[:, None] / size
            square = (residual / size * np.linalg.solve(correlation, (residual / size).T).T).sum(1)
            log_det = np.linalg.slogdet(correlation).logabsdet
            condition = max(condition, np.linalg.cond(correlation) if x.shape[1] < WIDE else 1.0)
        else:
            size = np.sqrt(model.covariance.variances(model.covariances)[k].detach().numpy())
            size, log_det = np.broadcast_to(size, x.shape[1]), 0.0
            square = np.square(residual / size).sum(1)
        log_det += 2 * np.log(size).sum()
        joint.append(-0.5 * (square + log_det + x.shape[1] * math.log(2 * math.pi)))
    weights = model.weights.detach().numpy()
    return float(logsumexp(np.stack(joint, 1), axis=1, b=weights).mean()), condition


def _trains(name: str, data: str, x: Tensor, fit: Fitted) -> None:
    """A likelihood without a maximum, or one that some steps do not reach: finite, and better than at the start."""
    assert math.isfinite(fit.value)
    assert fit.history.objective[-1] > fit.history.objective[0]
    assert fit.value > fit.history.objective[0]
    if isinstance(fit.model, Flow) and x.shape[1] < WIDE:
        z = fit.model.transform(x)[0]
        back = fit.model.transform.inverse(z)[0]
        scale = x.abs().amax(0).clamp_min(torch.finfo(x.dtype).tiny)
        assert ((back - x).abs() / scale).max() < 1e3 * torch.finfo(x.dtype).eps


maximum, moved, rises, trains = Answer(_maximum), Answer(_moved), Answer(_rises), Answer(_trains)
singular = Error(ValueError, "covariance of the data is singular.*Drop constant or linearly dependent columns")
constant = Error(ValueError, r"column \d is constant, so the likelihood has no maximum.*[dD]rop it")
no_noise = Error(ValueError, "the data varies along no more than 1 axes.*Use fewer latent features")
no_rank = Error(ValueError, "rows vary along no more axes than 1 latents can follow.*Use fewer latent features")
few_rows = Error(ValueError, "of 3 components needs at least as many rows; got [12]")
one_wide = Error(ValueError, "PPCA needs fewer latent features than features.*use density.Gaussian")
overflow = Error(NonFiniteObjective, "the last good weights were kept. Lower the learning rate", untouched=False)
