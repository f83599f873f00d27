"""EM for a Gaussian mixture: the same start, the same iterations, the same result, and then the time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from benchmarks.contestants import Absent, Work, present, require_cpu
from benchmarks.timing import CPU, Race, use_threads
from lvm import EM, Full, GaussianMixture, Given
from lvm.mixture.covariance import Covariance

ITERATIONS = 5
MOST_RESIDUALS = 2 * 10**7  # that torchgmm is asked to form
REGULARISATION = 1e-6  # scikit-learn's default: added to every variance


class Shape(NamedTuple):
    """n rows, D features, K components."""

    n: int
    features: int
    components: int

    def __str__(self) -> str:
        return f"n={self.n:,} D={self.features} K={self.components}"


class Start(NamedTuple):
    """Where all contestants begin."""

    weights: Tensor
    means: Tensor
    variances: Tensor


def problem(shape: Shape, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Start]:
    """Rows of an overlapping mixture of correlated Gaussians, and a start away from its parameters."""
    generator = torch.Generator().manual_seed(0)
    n, d, k = shape
    draw = {"generator": generator, "dtype": torch.float64}
    centres = 2 * torch.randn(k, d, **draw)
    root = torch.eye(d, dtype=torch.float64) + 0.3 / d**0.5 * torch.randn(k, d, d, **draw)
    which = torch.randint(k, (n,), generator=generator)
    x = torch.randn(n, d, **draw)
    for component in range(k):
        own = which == component
        x[own] = x[own] @ root[component] + centres[component]
    means = centres + 0.5 * torch.randn(k, d, **draw)
    start = Start(torch.full((k,), 1 / k, dtype=torch.float64), means, x.var(0))
    return x.to(dtype), start


def covariances(start: Start, structure: Covariance) -> Tensor:
    """The same diagonal covariance for every component, in the structure's shape."""
    diagonal = start.variances.expand(len(start.means), -1)
    return torch.diag_embed(diagonal) if structure == Full() else diagonal.contiguous()


def ours(x: Tensor, start: Start, structure: Covariance, iterations: int = ITERATIONS) -> GaussianMixture:
    """Fitted by ``iterations`` M-steps and one E-step more."""
    given = Given(start.means, start.weights, covariances(start, structure))
    em = EM(max_iterations=iterations, tolerance=0.0, regularisation=REGULARISATION, start=given, progress=False)
    model = GaussianMixture(x.shape[1], len(start.means), structure)
    model.fit(x, em=em)
    return model


def sklearn(
    x: np.ndarray, start: Start, structure: Covariance, device: torch.device = CPU, iterations: int = ITERATIONS
) -> SklearnMixture:
    """The same in scikit-learn, which also ends with an E-step."""
    require_cpu(device)
    model = SklearnMixture(
        len(start.means),
        covariance_type="full" if structure == Full() else "diag",
        tol=0.0,
        reg_covar=REGULARISATION,
        max_iter=iterations,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=_inverse(covariances(start, structure)).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x)


def pomegranate(x: Tensor, start: Start, structure: Covariance, iterations: int = ITERATIONS) -> Tensor:
    """The same in pomegranate, without the last E-step and without regularisation; returns the means."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    parts = [
        Normal(mean.clone().to(x), covariance.clone().to(x), covariance_type="full" if structure == Full() else "diag")
        for mean, covariance in zip(start.means, covariances(start, structure), strict=True)
    ]
    priors = start.weights.clone().to(x)  # theirs write into what they are given
    model = GeneralMixtureModel(parts, priors=priors, max_iter=iterations, tol=-np.inf)
    model.fit(x)
    return torch.stack([part.means for part in model.distributions])


def torchgmm(x: Tensor, start: Start, structure: Covariance, iterations: int = ITERATIONS) -> Tensor:
    """As many iterations in torchgmm, which takes means to start from and finds covariances itself; returns means."""
    from torchgmm.bayes import GaussianMixture as TorchMixture

    if x.numel() * len(start.means) > MOST_RESIDUALS:
        raise Absent("forms the residuals of all rows at once, several times")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    model = TorchMixture(
        len(start.means),
        covariance_type="full" if structure == Full() else "diag",
        init_means=start.means.clone().to(x),
        convergence_tolerance=0.0,
        covariance_regularization=REGULARISATION,
        trainer_params={
            "max_epochs": iterations,
            "logger": False,
            "accelerator": "gpu" if x.is_cuda else "cpu",
            "precision": 64 if x.dtype == torch.float64 else 32,
            **quiet,
        },
    )
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x)
    return model.model_.means.detach()


def products(shape: Shape, structure: Covariance, dtype: torch.dtype, device: torch.device) -> Work:
    """The floor: the matrix products of the iterations, on quadratic features that are already there and in cache.

    Log-densities are [K, F] [F, n] and the sums of the M-step [K, n] [n, F], with F = (D + 1)(D + 2)/2 or 2D + 1.
    """
    n, d, k = shape
    width = (d + 1) * (d + 2) // 2 if structure == Full() else 2 * d + 1
    rows = min(n, 2**20) if device.type == "cuda" else max(256, 2**17 // width)
    features, coefficients = (torch.randn(size, dtype=dtype).to(device) for size in ((width, rows), (k, width)))
    joint, sums = (torch.empty(size, dtype=dtype, device=device) for size in ((k, rows), (k, width)))

    def work() -> None:
        for step in range(2 * ITERATIONS + 1):
            for _ in range(-(-n // rows)):
                if step % 2 == 0:
                    torch.mm(coefficients, features, out=joint)
                else:
                    torch.mm(joint, features.T, out=sums)

    return work


def mixtures(shape: Shape, structure: Covariance, dtype: torch.dtype, device: torch.device) -> Iterator[Race]:
    """A few iterations of EM, after all contestants have shown that they end at the same means."""
    threads = torch.get_num_threads()
    data, start = problem(shape, dtype)
    x, as_array = data.to(device), data.numpy()
    model = ours(x, start, structure)
    peers: dict[str, Callable[[], Tensor]] = {
        "scikit-learn": lambda: torch.from_numpy(sklearn(as_array, start, structure, device).means_),
        "pomegranate": lambda: pomegranate(x, start, structure),
        "torchgmm": lambda: torchgmm(x, start, structure),
    }
    found: dict[str, Tensor | Absent] = {name: present(peers[name]) for name in peers}
    use_threads(threads)  # imports of peers change it
    notes, tolerance = {}, 1e-5 if dtype == torch.float64 else 1e-2
    contestants: dict[str, Work | Absent] = {"ours": lambda: ours(x, start, structure)}
    for name, means in found.items():
        contestants[name] = means if isinstance(means, Absent) else peers[name]
        if name == "torchgmm":
            notes[name] = "as many iterations from the same means; its own first covariances"
        elif not isinstance(means, Absent):
            off = (means.to(model.means) - model.means).abs().max().item()
            notes[name] = f"largest |Δμ| {off:.1e}"
            if name == "scikit-learn" and not off < tolerance:
                contestants[name] = Absent(f"not the same fit, {notes[name]}")
    contestants["floor"] = products(shape, structure, dtype, device)
    job = f"EM {type(structure).__name__.lower()}, {ITERATIONS} iterations, {shape}"
    yield Race(job, contestants, notes, dtype, pools=True)


def _inverse(given: Tensor) -> Tensor:
    return torch.linalg.inv(given) if given.ndim == 3 else 1 / given
