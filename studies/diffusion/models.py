"""The models that `diffusion` compares, fitted to one set of points: a network that is read in two ways, and others."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from density import Training
from flows import Flow, FlowMatching, FlowObjective, MaximumLikelihood, continuous_flow, real_nvp
from lvm import VAE, CosineSchedule, GaussianDiffusion, HierarchicalVAE
from studies.data.load import Dataset
from studies.diffusion.settings import TOYS, Settings
from studies.kit.compute import parameter_count, place, seeded, seeded_start

LOOSER = 1000.0  # is the solver in steps of a fit than in claims
WIDEST = 1024


@dataclass(frozen=True, eq=False)
class Fits:
    """A set of points, and the fits to it.

    Attributes:
        settings: of the study.
        data: the set.
        seed: of starts, batches, draws.
    """

    settings: Settings
    data: Dataset
    seed: int

    @cached_property
    def train(self) -> Tensor:
        """``[m, D]``, where and in what the settings say."""
        return torch.as_tensor(self.data.train).to(*place(self.settings))

    @cached_property
    def test(self) -> Tensor:
        """``[n, D]``, in float64, as all that is asked is computed."""
        test = torch.as_tensor(self.data.test).to(self.train)
        return (test if self.toy else test[: self.settings.images]).double()

    @property
    def toy(self) -> bool:
        """Whether the points are of a known density."""
        return self.data.name in TOYS

    def generator(self, *purpose: str) -> Generator:
        """Random numbers for one purpose."""
        return seeded(self.train.device, self.seed, "diffusion", self.data.name, *purpose)

    def training(self, steps: int) -> Training:
        """Of every fit, for so many steps; the weights that do best on held-out rows are kept."""
        settings = self.settings
        return Training(
            steps=steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            patience=None,
            progress=False,
        )

    @cached_property
    def diffusion(self) -> Fitted:
        """The network, fitted to the ELBO of the longest chain."""
        return self._fitted("chain", self._network)

    @cached_property
    def simple(self) -> Fitted:
        """The same network from the same start, in as many steps, fitted by Ho et al.'s simple loss."""
        return self._fitted("chain", self._network, simple=True)

    def _network(self) -> GaussianDiffusion:
        settings, width = self.settings, self.data.features
        first, last = settings.ends
        return GaussianDiffusion.of_vectors(
            width, hidden=settings.widths(self.data), steps=max(settings.chain), schedule=CosineSchedule(first, last)
        )

    def chain(self, steps: int, *, simple: bool = False) -> GaussianDiffusion:
        """The same network read as a chain of so many steps."""
        model = deepcopy((self.simple if simple else self.diffusion).model)
        assert isinstance(model, GaussianDiffusion)
        model.layer.steps = steps
        return model

    def matching(self) -> Fitted:
        """A velocity of the diffusion's widths, by flow matching."""
        return self._continuous("matching", FlowMatching(), self.settings.fit_steps)

    def likelihood(self) -> Fitted:
        """The same velocity, from the same start, by maximum likelihood, with an exact trace."""
        return self._continuous("likelihood", MaximumLikelihood(LOOSER), self.settings.likelihood_steps)

    def _continuous(self, name: str, objective: FlowObjective, steps: int) -> Fitted:
        settings, data = self.settings, self.data
        with seeded_start(self.seed, "diffusion", data.name, "velocity"):
            flow = continuous_flow(data.features, settings.widths(data), tolerance=settings.solved_to(data))
        flow = flow.to(self.train)
        started = time.process_time()
        flow.fit(self.train, self.training(steps), objective=objective, generator=self.generator(name, "fit"))
        return Fitted(flow.double(), time.process_time() - started)

    def coupling(self) -> Fitted:
        """A coupling flow of about as many parameters as the network."""
        return self._of_equal_size(
            "coupling", lambda width: real_nvp(self.data.features, self.settings.layers, (width, width))
        )

    def vae(self) -> Fitted:
        """A VAE of about as many parameters; of a toy it has as many latents as there are dimensions."""
        latents = self.data.features if self.toy else self.settings.latents
        return self._of_equal_size(
            "vae", lambda width: VAE.gaussian(self.data.features, latents, hidden=(width, width))
        )

    def hierarchy(self) -> Fitted:
        """A VAE of two levels, of about as many parameters: the upper one has half as many latents, one at least."""
        below = self.data.features if self.toy else self.settings.latents
        above = max(1, below // 2)

        def make(width: int) -> HierarchicalVAE:
            vae = VAE.gaussian(self.data.features, below, hidden=(width, width))
            return HierarchicalVAE.above(vae, (above,), hidden=(width, width))

        return self._of_equal_size("hierarchy", make)

    def _of_equal_size(self, name: str, make: Callable[[int], Flow | VAE | HierarchicalVAE]) -> Fitted:
        width = matched_width(make, parameter_count(self.diffusion.model))
        return self._fitted(name, lambda: make(width))

    def _fitted(
        self, name: str, make: Callable[[], Flow | VAE | HierarchicalVAE | GaussianDiffusion], *, simple: bool = False
    ) -> Fitted:
        with seeded_start(self.seed, "diffusion", self.data.name, name):
            model = make()
        model = model.to(self.train)
        started = time.process_time()
        training, generator = self.training(self.settings.fit_steps), self.generator(name, "fit")
        if simple:
            assert isinstance(model, GaussianDiffusion)
            model.fit(self.train, training, simple=True, generator=generator)
        else:
            model.fit(self.train, training, generator=generator)
        return Fitted(model.double(), time.process_time() - started)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model in float64, and the seconds of CPU that its fit in the settings' dtype took."""

    model: Flow | VAE | HierarchicalVAE | GaussianDiffusion
    seconds: float


def matched_width(make: Callable[[int], nn.Module], wanted: int) -> int:
    """The width by which a model's number of parameters, which grows with it, is nearest to a wanted one."""
    low, high = 1, WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameter_count(make(middle)) <= wanted else (low, middle)
    return min((low, high), key=lambda width: abs(parameter_count(make(width)) - wanted))
