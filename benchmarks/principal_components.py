"""PPCA's log_prob and fit against scikit-learn's PCA, whose noise model is the same.

Both fits are exact, by the covariance; beside them stands what scikit-learn chooses when not told.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from benchmarks.contestants import Absent, Work, each, present, require_cpu
from benchmarks.timing import Race
from lvm import PPCA


def problem(n: int, features: int, latent_features: int) -> Tensor:
    """Rows with 2q directions of decaying variance, and noise, in float64."""
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    spread = torch.linspace(3, 0.5, 2 * latent_features, dtype=torch.float64)
    loadings = spread * torch.randn(features, 2 * latent_features, **draw) / features**0.5
    return torch.randn(n, 2 * latent_features, **draw) @ loadings.T + 0.1 * torch.randn(n, features, **draw)


def analyses(n: int, features: int, latent_features: int, device: torch.device) -> Iterator[Race]:
    """Fit and log_prob in float64; the floor is the one product that each needs."""
    d, q = features, latent_features
    data = problem(n, d, q)
    x = data.to(device)
    model = PPCA(d, q)
    model.fit(x)
    compared = present(lambda: _sklearn(data, q, device))
    notes = {"scikit-learn, its choice": "randomised, so approximate, where D is above 500"}
    if not isinstance(compared, Absent):
        difference = np.abs(_evaluate(model, x).numpy() - compared.score_samples(data.numpy())).max()
        if difference > 1e-8 * d:  # rounding of a D × D precision, from an eigendecomposition of another kind
            compared = Absent(f"not the same log-likelihood, off by {difference:.1e} nats")
        notes["scikit-learn"] = f"largest |Δ log p| {difference:.1e} nats"
    loadings, square = torch.randn(d, q, dtype=x.dtype).to(device), torch.empty(d, d, dtype=x.dtype, device=device)
    theirs = {"scikit-learn": compared}
    fit: dict[str, Work | Absent] = {
        "ours": lambda: PPCA(d, q).fit(x),
        **each(theirs, lambda _: lambda: PCA(q, svd_solver="covariance_eigh").fit(data.numpy())),
        **each({"scikit-learn, its choice": compared}, lambda _: lambda: PCA(q, random_state=0).fit(data.numpy())),
        "floor": lambda: torch.mm(x.T, x, out=square),
    }
    log_prob: dict[str, Work | Absent] = {
        "ours": lambda: _evaluate(model, x),
        **each(theirs, lambda pca: lambda: pca.score_samples(data.numpy())),
        "floor": lambda: x @ loadings,
    }
    size = f"D={d} q={q} n={n:,}"
    yield Race(f"PPCA fit, {size}", fit, notes, x.dtype, pools=True)
    yield Race(f"PPCA log_prob, {size}", log_prob, notes, x.dtype, pools=True)


def _sklearn(data: Tensor, latent_features: int, device: torch.device) -> PCA:
    """Fitted, with the variances that maximise the likelihood."""
    require_cpu(device)
    theirs = PCA(latent_features, svd_solver="covariance_eigh").fit(data.numpy())
    theirs.explained_variance_ *= (len(data) - 1) / len(data)  # theirs divide by n − 1, maximum likelihood by n
    theirs.noise_variance_ *= (len(data) - 1) / len(data)
    return theirs


def _evaluate(model: PPCA, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.log_prob(x)
