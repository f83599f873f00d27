"""Small modules with the interfaces of other libraries, which need not be installed: named as there."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal, Poisson


class LazyGaussian(nn.Module):
    """zuko: a lazy distribution, whose base shows its width and whose ``hyper`` network reads the context."""

    def __init__(self, features: int, context: int = 0) -> None:
        super().__init__()
        self.base = _Base(features)
        self.order = torch.arange(features)
        self.context = context
        self.factor = nn.Parameter(torch.eye(features) + 0.3 * torch.randn(features, features).tril(-1))
        self.hyper = nn.Sequential(nn.Linear(features + context, 8), nn.Tanh(), nn.Linear(8, features))

    def forward(self, c: Tensor | None = None) -> Distribution:
        features = self.factor.shape[-1]
        if (c is None) != (self.context == 0):
            raise TypeError("a context is missing or superfluous")
        zero = self.factor.new_zeros(*(() if c is None else c.shape[:-1]), features)
        mean = self.hyper(zero if c is None else torch.cat([zero, c], -1))
        return MultivariateNormal(mean, scale_tril=self.factor.tril())


class _Base(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, c: Tensor | None = None) -> Distribution:
        return Independent(Normal(torch.zeros(self.features), 1.0), 1)


class NormalizingFlow(nn.Module):
    """normflows: q0 and one affine layer; ``sample`` returns points and log-densities."""

    def __init__(self, features: int, show: bool = True) -> None:
        super().__init__()
        self.q0 = nn.Module()
        if show:
            self.q0.shape = (features,)  # type: ignore[assignment]
        self.flows = nn.ModuleList()
        self.log_scale = nn.Parameter(0.3 * torch.randn(features))

    def log_prob(self, x: Tensor) -> Tensor:
        return Normal(0.0, self.log_scale.exp()).log_prob(x).sum(-1)

    def sample(self, num_samples: int = 1) -> tuple[Tensor, Tensor]:
        x = torch.randn(num_samples, len(self.log_scale)).to(self.log_scale) * self.log_scale.exp()
        return x, self.log_prob(x)


class SequenceINN(nn.Module):
    """FrEIA: (x, c=[...], rev, jac) → (z, log|det|), z = x · exp(s(c)) + 1 on the last axis."""

    def __init__(self, *dims: int, condition: int = 0) -> None:
        super().__init__()
        self.dims_in = [dims]
        self.shapes = [dims, dims]
        self.log_scale = nn.Parameter(0.3 * torch.randn(dims))
        self.conditions = [0] if condition else [None]
        layer = nn.Linear(condition, 1) if condition else nn.Identity()
        layer.dims_c = [(condition,)]  # type: ignore[assignment]
        self.module_list = nn.ModuleList([layer])

    def forward(
        self, x_or_z: Tensor, c: list[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[Tensor, Tensor]:
        assert jac
        log_scale = self.log_scale.expand_as(x_or_z)
        if c is not None:
            log_scale = log_scale + self.module_list[0](c[0])
        log_det = log_scale.flatten(1).sum(-1)
        return ((x_or_z - 1) * (-log_scale).exp(), -log_det) if rev else (x_or_z * log_scale.exp() + 1, log_det)


class PomegranateNormal(nn.Module):
    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.d = 1
        self.means = nn.Parameter(torch.tensor([mean]), requires_grad=False)
        self.std = std

    def log_probability(self, X: Tensor) -> Tensor:
        return Normal(self.means, self.std).log_prob(X).sum(-1)

    def sample(self, n: int) -> Tensor:
        return self.means + self.std * torch.randn(n, 1)


PomegranateNormal.__name__ = "Normal"
PomegranateBernoulli = type("Bernoulli", (PomegranateNormal,), {})


class IndependentComponents(nn.Module):
    """pomegranate: its parts are in a plain list, so no modules of it."""

    def __init__(self, distributions: list[Any]) -> None:
        super().__init__()
        self.distributions = distributions
        self.d = len(distributions)

    def log_probability(self, X: Tensor) -> Tensor:
        return sum(part.log_probability(X[:, i : i + 1]) for i, part in enumerate(self.distributions))

    def sample(self, n: int) -> Tensor:
        return torch.hstack([part.sample(n) for part in self.distributions])


class PythaeVAE(nn.Module):
    """pythae: encoder and decoder that return records, and a configuration that names the loss."""

    def __init__(self, loss: str, name: str = "VAE") -> None:
        super().__init__()
        self.model_name = name
        self.input_dim, self.latent_dim = (1, 2, 2), 1
        self.model_config = SimpleNamespace(reconstruction_loss=loss, latent_dim=1)
        self.encoder, self.decoder = _PythaeEncoder(), _PythaeDecoder()


class _PythaeEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        assert x.shape[1:] == (1, 2, 2)
        mean, log_variance = self.layer(x.flatten(1)).chunk(2, -1)
        return OrderedDict(embedding=mean, log_covariance=log_variance)


class _PythaeDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 4)

    def forward(self, z: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(reconstruction=self.layer(2 * z).sigmoid().reshape(-1, 1, 2, 2))


class Scvi(nn.Module):
    """scvi-tools' module: ``forward`` of tensors, ``generative``; counts of a Poisson decoder, two batches."""

    n_latent, n_batch, gene_likelihood, latent_distribution, use_observed_lib_size = 1, 2, "poisson", "normal", True

    def __init__(self, genes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(genes, 2), nn.Linear(self.n_latent + 1, genes)

    def inference(self, x: Tensor, n_samples: int) -> dict[str, Any]:
        mean, raw = self.encoder(x.log1p()).chunk(2, -1)
        qz = Normal(mean, (0.3 * raw).exp())
        z = qz.rsample() if n_samples == 1 else qz.sample((n_samples,))
        library = x.sum(-1, keepdim=True).log()
        library = library if n_samples == 1 else library.expand(n_samples, -1, -1)
        return {"z": z, "qz": qz, "ql": None, "library": library}

    def generative(self, z: Tensor, library: Tensor, batch_index: Tensor) -> dict[str, Any]:
        batch = batch_index.to(z.dtype).expand(*z.shape[:-1], 1)
        rate = library.exp() * self.decoder(torch.cat([z, batch], -1)).softmax(-1)
        return {"px": Poisson(rate), "pl": None, "pz": Normal(torch.zeros_like(z), torch.ones_like(z))}

    def forward(
        self, tensors: dict[str, Tensor], inference_kwargs: dict[str, Any], compute_loss: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        assert not compute_loss
        inferred = self.inference(tensors["X"], **inference_kwargs)
        return inferred, self.generative(inferred["z"], inferred["library"], tensors["batch"])

    def marginal_ll(self, tensors: dict[str, Tensor], n: int, per_pass: int) -> Tensor:
        """As scvi-tools 1.4 does: ⌈n/m⌉ passes of m draws, and n as divisor."""
        parts = []
        for _ in range(int(np.ceil(n / per_pass))):
            inferred, made = self(tensors, {"n_samples": per_pass}, compute_loss=False)
            value = made["px"].log_prob(tensors["X"]).sum(-1)
            parts.append(value + (made["pz"].log_prob(inferred["z"]) - inferred["qz"].log_prob(inferred["z"])).sum(-1))
        return torch.cat(parts).logsumexp(0) - np.log(n)


class ScviModel:
    """scvi-tools' model: the module, and managers of registered data."""

    def __init__(self, module: Scvi, counts: np.ndarray[Any, Any], batch: np.ndarray[Any, Any], **more: object) -> None:
        self.module = module
        fields = {"X": counts, "batch": batch[:, None], **more}
        self.adata_manager = SimpleNamespace(data_registry=list(fields), get_from_registry=fields.__getitem__)

    def get_anndata_manager(self, adata: object) -> SimpleNamespace:
        return self.adata_manager


class _Trace:
    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}

    @property
    def stochastic_nodes(self) -> list[str]:
        return [name for name, node in self.nodes.items() if not node["is_observed"]]

    @property
    def observation_nodes(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node["is_observed"]]


_Subsample = type("_Subsample", (), {})


class Pyro(ModuleType):
    """pyro: ``sample``, ``plate`` and ``poutine.trace``, ``poutine.condition``."""

    def __init__(self) -> None:
        super().__init__("pyro")
        self.running: list[tuple[_Trace, dict[str, Tensor]]] = []
        self.poutine = SimpleNamespace(trace=self._trace, condition=self._condition)

    def __deepcopy__(self, memo: object) -> Pyro:
        return self

    def sample(self, name: str, fn: Distribution, obs: Tensor | None = None) -> Tensor:
        trace, given = self.running[-1]
        trace.nodes[name] = {"type": "sample", "fn": fn, "is_observed": obs is not None or name in given}
        return obs if obs is not None else given[name] if name in given else fn.sample()

    @contextmanager
    def plate(self, name: str) -> Iterator[None]:
        self.running[-1][0].nodes[name] = {"type": "sample", "fn": _Subsample(), "is_observed": False}
        yield

    def _condition(self, program: Callable[..., Any], data: dict[str, Tensor]) -> Callable[..., Any]:
        def run(*arguments: object) -> None:
            self.running[-1][1].update(data)
            program(*arguments)

        return run

    def _trace(self, program: Callable[..., Any]) -> SimpleNamespace:
        def get_trace(*arguments: object) -> _Trace:
            self.running.append((_Trace(), {}))
            program(*arguments)
            return self.running.pop()[0]

        return SimpleNamespace(get_trace=get_trace)


class PyroVAE(nn.Module):
    """A Pyro program as in its tutorial: a model and a guide as methods of a module."""

    def __init__(self, pyro: Pyro, sites: int = 1) -> None:
        super().__init__()
        self.pyro, self.sites = pyro, sites
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(1, 3)

    def model(self, x: Tensor) -> None:
        with self.pyro.plate("data"):
            z = self.pyro.sample("z", Independent(Normal(x.new_zeros(len(x), 1), x.new_ones(len(x), 1)), 1))
            for _ in range(self.sites - 1):
                self.pyro.sample("more", Independent(Normal(x.new_zeros(len(x), 1), x.new_ones(len(x), 1)), 1))
            self.pyro.sample("x", Independent(Bernoulli(logits=self.decoder(2 * z)), 1), obs=x)

    def guide(self, x: Tensor) -> None:
        with self.pyro.plate("data"):
            mean, raw = self.encoder(x).chunk(2, -1)
            self.pyro.sample("z", Independent(Normal(mean, raw.exp()), 1))


def installed(monkeypatch: pytest.MonkeyPatch) -> Pyro:
    """The stand-in where ``import pyro`` finds it."""
    pyro = Pyro()
    monkeypatch.setitem(sys.modules, "pyro", pyro)
    return pyro
