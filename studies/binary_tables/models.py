"""The models of `binary_tables`: one start, one way to train, and what differs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Generator, Tensor

from bridge import as_mixture, with_flow_prior
from density import BernoulliLikelihood, LogDensity, Model, Training
from flows import real_nvp
from lvm import EM, VAE, AmortisedModel, FiniteMixture, HierarchicalVAE
from lvm.evidence import importance
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import AnalyticKL, DoublyReparametrised
from lvm.vae.kl_weights import WarmUp
from lvm.vae.mixture_likelihood import MixtureLikelihood
from studies.binary_tables.settings import Settings
from studies.binary_tables.source import Answers, BinaryTable
from studies.kit.compute import gauss_hermite, place, seeded, seeded_start

TOLERANCE = 1e-6  # of EM, nats a row
COUPLINGS, COUPLING_HIDDEN = 4, (32,)
NODES_OF_TRUTH = 60  # along each trait


@dataclass(frozen=True)
class Course:
    """What a fit came to.

    Attributes:
        valid: mean log p of the validation rows, or the bound that was trained.
        size: components of a mixture, or steps.
        seconds: of CPU.
    """

    valid: float
    size: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model, what it says of the test rows, and its fit."""

    model: Model
    claim: LogDensity
    course: Course


@dataclass(frozen=True, eq=False)
class Fits:
    """A table where it is computed on, and the models that others are compared with, each fitted once."""

    settings: Settings
    table: BinaryTable
    seed: int

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """To fit, to choose by, to test on."""
        device, dtype = place(self.settings)
        split = self.table.split
        parts = (split.train, split.valid, split.test)
        train, valid, test = (torch.as_tensor(part).to(device, dtype) for part in parts)
        return train, valid, test

    @property
    def test(self) -> Tensor:
        """``[n, D]``."""
        return self.rows[2]

    def generator(self, *purpose: str) -> Generator:
        """Random numbers for one purpose."""
        return seeded(self.test.device, self.seed, "binary_tables", *purpose)

    @cached_property
    def mixture(self) -> Fitted:
        """The Bernoulli mixture with as many components as the validation rows like best."""
        train, valid, test = self.rows
        started = time.process_time()
        em = EM(max_iterations=self.settings.iterations, tolerance=TOLERANCE, progress=False)
        found: list[tuple[float, int, FiniteMixture]] = []
        for components in self.settings.components:
            model = FiniteMixture(self.table.features, components, BernoulliLikelihood())
            model.fit(train, em, generator=self.generator("mixture", str(components)))
            found.append((model.log_density(valid).mean, components, model))
        value, components, best = max(found, key=lambda each: each[0])
        course = Course(value, components, time.process_time() - started)
        return Fitted(best, best.log_density(test), course)

    @cached_property
    def by_elbo(self) -> Fitted:
        """The VAE trained by its ELBO."""
        return self.bounded("ELBO", lambda vae: vae, AnalyticKL())

    @cached_property
    def compiled(self) -> Fitted:
        """That VAE as a mixture."""
        model = self.by_elbo.model
        assert isinstance(model, AmortisedModel)
        return self.as_mixture(model, self.by_elbo.course)

    @cached_property
    def through(self) -> Fitted:
        """The same decoder from the same start, trained as a mixture."""
        model = self.fresh()
        return self.as_mixture(model, self.fit(model, "through", MixtureLikelihood(self.settings.nodes)))

    @cached_property
    def weighted(self) -> Fitted:
        """The VAE trained by the importance-weighted bound."""
        return self.bounded("IWAE", lambda vae: vae, DoublyReparametrised(self.settings.iwae_draws))

    @cached_property
    def with_flow(self) -> Fitted:
        """A VAE with couplings for its prior."""
        latents = self.settings.latents
        couplings = partial(real_nvp, latents, layers=COUPLINGS, hidden=COUPLING_HIDDEN)
        return self.bounded("flow", lambda vae: with_flow_prior(vae, couplings()), AnalyticKL())

    @cached_property
    def hierarchy(self) -> Fitted:
        """A level of half as many latents above those of the VAE."""
        above = (self.settings.latents // 2,)
        hidden = self.settings.hidden
        warmed = AnalyticKL(kl_weight=WarmUp(steps=max(1, self.settings.steps // 2)))  # else upper levels stay unused
        return self.bounded("hierarchy", lambda vae: HierarchicalVAE.above(vae, above, hidden=hidden), warmed)

    def fresh(self, changed: Callable[[VAE], AmortisedModel] = lambda vae: vae) -> AmortisedModel:
        """The VAE that every fit starts from, with what is changed of it."""
        with seeded_start(self.seed, "binary_tables", "start"):
            return changed(VAE.bernoulli(self.table.features, self.settings.latents, hidden=self.settings.hidden))

    def bounded(self, name: str, changed: Callable[[VAE], AmortisedModel], estimator: GradientEstimator) -> Fitted:
        """A fit of which log p is bounded by importance weights."""
        model = self.fresh(changed)
        course = self.fit(model, name, estimator)
        claim = importance(model, self.test, draws=self.settings.draws, generator=self.generator("bound", name))
        return Fitted(model, claim, course)

    def fit(self, model: AmortisedModel, name: str, estimator: GradientEstimator) -> Course:
        """Train a model until the validation rows say that it is enough."""
        s = self.settings
        train, valid, _ = self.rows
        training = Training(
            steps=s.steps, batch_size=s.batch_size, learning_rate=s.learning_rate, patience=s.patience, progress=False
        )
        generator, started = self.generator("fit", name), time.process_time()
        history = model.fit(train, training, estimator=estimator, validation=valid, generator=generator)
        seconds = time.process_time() - started
        return Course(max(history.validation), len(history.objective) * math.ceil(len(train) / s.batch_size), seconds)

    def as_mixture(self, model: AmortisedModel, course: Course) -> Fitted:
        """A model as a mixture, with the nodes that all have."""
        mixture = as_mixture(model, self.settings.compiled_nodes, generator=self.generator("nodes"))
        valid = mixture.log_density(self.rows[1]).mean
        return Fitted(mixture, mixture.log_density(self.test), replace(course, valid=valid))


def log_p_of(truth: Answers, x: Tensor) -> Tensor:
    """log p of rows ``[n, D]`` under what made them up, by a Gauss-Hermite rule over the traits."""
    z, mass = gauss_hermite(len(truth.loadings), NODES_OF_TRUTH, x.double())
    loadings, ease = (torch.as_tensor(each).to(z) for each in (truth.loadings, truth.ease))
    mean = z @ loadings + ease
    yes, no = torch.special.log_ndtr(mean), torch.special.log_ndtr(-mean)
    x = x.double()
    return (x @ yes.mT + (1 - x) @ no.mT + mass.log()).logsumexp(-1)
