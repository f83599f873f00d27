"""scvi-tools' VAE of counts of genes (Lopez et al. 2018), given each cell's batch and library size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Never

import torch
from torch import Generator, Tensor

from bridge.adapters.calls import seeded
from density.checks import check_count, check_data, check_points
from density.contract import Bound
from density.importance.bound import importance
from density.log_density import LogDensity
from density.measure import Measure


class FromScvi(Bound):
    """An ``scvi.model.SCVI`` as a bound: all that it has is log-weights. Built by :func:`from_scvi`.

    Points are ``[n, G + 1]``: counts of G genes, and the index of the batch. log p is that of the counts given the
    batch, and given the library size (their sum) where the model takes it as observed. So the last column is not in the
    measure, and carries no density.

    Args:
        module: ``model.module``.
        points: those that the model was registered with; ``sample`` takes batches and library sizes from them.
    """

    data: Tensor

    def __init__(self, module: Any, points: Tensor) -> None:  # noqa: ANN401
        super().__init__()
        self.module = module
        self.features = points.shape[-1]
        self.measure = Measure.LEBESGUE if module.gene_likelihood == "normal" else Measure.COUNTING
        self.register_buffer("data", points, persistent=False)

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        draws = check_count(draws, "draws")
        check_points(x, self.features, type(self).__name__, reference=self.data)
        rows = x.reshape(-1, self.features)
        counts, batch = rows[:, :-1], rows[:, -1:].long()
        tensors = {"X": counts, "batch": batch, "labels": torch.zeros_like(batch)}
        with seeded(generator, x.device):
            inferred, generated = self.module(tensors, inference_kwargs={"n_samples": draws}, compute_loss=False)
        value = generated["px"].log_prob(counts).sum(-1)
        for prior, posterior, draw in (("pz", "qz", "z"), ("pl", "ql", "library")):
            if generated[prior] is not None:
                latent = inferred[draw]
                value = value + (generated[prior].log_prob(latent) - inferred[posterior].log_prob(latent)).sum(-1)
        return value.reshape(draws, *x.shape[:-1])

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Counts at batches and library sizes of random cells of the data, ``[n, G + 1]``."""
        n = check_count(n, "n")
        with torch.no_grad(), seeded(generator, self.data.device):
            cells = self.data[torch.randint(len(self.data), (n,), device=self.data.device)]
            batch, library = cells[:, -1:].long(), cells[:, :-1].sum(-1, keepdim=True).log()
            z = torch.randn(n, self.module.n_latent, device=self.data.device)
            made = self.module.generative(z=z, library=library, batch_index=batch)
            if made["pl"] is not None:
                made = self.module.generative(z=z, library=made["pl"].sample(), batch_index=batch)
            return torch.cat([made["px"].sample(), cells[:, -1:]], -1)

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        """The importance-weighted bound with that many draws, and as its divisor just as many."""
        claim = importance(self, x, draws=draws, generator=generator)
        return replace(claim, method=f"{claim.method}; scvi's log p(counts | {self._given})")

    def fit(self, x: Tensor) -> Never:
        raise TypeError(f"{type(self).__name__} is trained by scvi: model.train()")

    def check_input(self, x: Tensor) -> None:
        name = type(self).__name__
        check_data(x, self.features, name, reference=self.data)
        counts, batch = x[:, :-1], x[:, -1]
        if bool((batch != batch.long()).any() | (batch < 0).any() | (batch >= max(self.module.n_batch, 1)).any()):
            raise ValueError(f"{name} expects the index of a batch, 0 to {self.module.n_batch - 1}, in its last column")
        if self.measure is Measure.COUNTING and bool(((counts < 0) | (counts != counts.round())).any()):
            raise ValueError(f"{name} expects counts, 0, 1, 2, …; got other values. Give the raw counts of the cells")

    @property
    def _given(self) -> str:
        return "batch, library size" if self.module.use_observed_lib_size else "batch"


def from_scvi(model: Any, adata: Any) -> FromScvi:  # noqa: ANN401  # scvi.model.SCVI and anndata.AnnData
    """A trained ``scvi.model.SCVI`` on the scale; its ``data`` are the cells of an AnnData as points ``[n, G + 1]``.

    ``from_scvi(model, adata)`` and then ``.log_density(adapted.data)``: scvi's own ``get_marginal_ll`` draws
    ⌈n/m⌉ · m samples in passes of m and divides by n, which is log(⌈n/m⌉ m / n) too much.

    Raises:
        TypeError: not an SCVI model with one latent of cells.
        ValueError: latents that are no Gaussians, further covariates, or size factors of one's own: these are not
            in the points.
    """
    module = getattr(model, "module", None)
    if not all(hasattr(module, name) for name in ("generative", "inference", "gene_likelihood", "n_latent")):
        raise TypeError(f"from_scvi takes a trained scvi.model.SCVI; got {type(model).__name__}")
    assert module is not None
    manager = model.get_anndata_manager(adata)
    manager = model.adata_manager.transfer_fields(adata) if manager is None else manager
    fields = {str(field) for field in manager.data_registry}
    beyond = sorted(fields & {"extra_continuous_covs", "extra_categorical_covs", "size_factor"})
    if beyond or getattr(module, "latent_distribution", "normal") != "normal":
        what = f"the model has {', '.join(beyond)}" if beyond else f"its latents are {module.latent_distribution!r}"
        raise ValueError(f"from_scvi takes counts, batches and library sizes, with Gaussian latents; {what}")
    counts, batch = (_dense(manager.get_from_registry(name)) for name in ("X", "batch"))
    like = next(module.parameters())
    points = torch.cat([counts.to(like), batch.reshape(-1, 1).to(like)], -1).detach()
    return FromScvi(module, points)


def _dense(values: Any) -> Tensor:  # noqa: ANN401  # an array, dense or sparse, or a column of a data frame
    values = values.toarray() if hasattr(values, "toarray") else values
    return torch.as_tensor(values.to_numpy() if hasattr(values, "to_numpy") else values)
