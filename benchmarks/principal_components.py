"""PPCA's log_prob and fit against scikit-learn's PCA, whose noise model is the same.

Both fits are exact, by the covariance; beside them stands what scikit-learn chooses when not told.
"""

from __future__ import annotations

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from benchmarks.timing import Row, Work, race
from lvm import PPCA

SHAPES = (2000, 784, 50), (4000, 2000, 50), (50_000, 64, 8)  # n, D, q


def problem(n: int, features: int, latent_features: int) -> Tensor:
    """Rows with 2q directions of decaying variance, and noise, in float64."""
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    spread = torch.linspace(3, 0.5, 2 * latent_features, dtype=torch.float64)
    loadings = spread * torch.randn(features, 2 * latent_features, **draw) / features**0.5
    return torch.randn(n, 2 * latent_features, **draw) @ loadings.T + 0.1 * torch.randn(n, features, **draw)


def rows(seconds: float) -> list[Row]:
    """Fit and log_prob for three shapes in float64; the floor is the one product that each needs."""
    result = []
    for n, d, q in SHAPES:
        x = problem(n, d, q)
        as_array = x.numpy()
        model, theirs = PPCA(d, q), PCA(q, svd_solver="covariance_eigh").fit(as_array)
        theirs.explained_variance_ *= (n - 1) / n  # theirs divide by n − 1, maximum likelihood by n
        theirs.noise_variance_ *= (n - 1) / n
        model.fit(x)
        value = model.log_prob(x).detach()
        peer = torch.from_numpy(theirs.score_samples(as_array))
        difference = (value - peer).abs().max().item()
        if difference > 1e-8 * d:  # rounding of a D × D precision, from an eigendecomposition of another kind
            raise AssertionError(f"not the same log-likelihood at D={d}: {difference}")
        notes = {"scikit-learn": f"largest |Δ log p| {difference:.1e} nats"}
        notes["scikit-learn, its choice"] = "randomised, so approximate, where D is above 500"
        weight, square = torch.randn(d, q, dtype=torch.float64), torch.empty(d, d, dtype=torch.float64)
        log_prob: dict[str, Work] = {
            "ours": lambda model=model, x=x: _evaluate(model, x),
            "scikit-learn": lambda theirs=theirs, x=as_array: theirs.score_samples(x),
            "floor": lambda x=x, w=weight: x @ w,
        }
        fit: dict[str, Work] = {
            "ours": lambda x=x, d=d, q=q: PPCA(d, q).fit(x),
            "scikit-learn": lambda x=as_array, q=q: PCA(q, svd_solver="covariance_eigh").fit(x),
            "scikit-learn, its choice": lambda x=as_array, q=q: PCA(q, random_state=0).fit(x),
            "floor": lambda x=x, square=square: torch.mm(x.T, x, out=square),
        }
        size = f"D={d} q={q} n={n:,}"
        result += race(f"PPCA log_prob, {size}", log_prob, notes=notes, seconds=seconds, dtype=x.dtype, pools=True)
        result += race(f"PPCA fit, {size}", fit, notes=notes, seconds=seconds, dtype=x.dtype, pools=True)
    return result


def _evaluate(model: PPCA, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.log_prob(x)
