"""What models and their parts are asked beside log p(x), bounds and draws: a new public method is one new line.

Laws ask each model of the tables whatever it has a method for, and compare answers, a refusal among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from density import CategoricalFamily
from density.data.joined import joined, parted

Ask = Callable[[Any, "Given"], object]


@dataclass(frozen=True)
class Given:
    """What a model may be asked about: all that lies on its device.

    Attributes:
        x: points ``[n, D]``.
        context: contexts ``[n, C]`` of a conditional model.
        seeded: makes generators that are alike.
    """

    x: Tensor
    context: Tensor | None
    seeded: Callable[[], Generator]

    @property
    def beside(self) -> dict[str, Tensor]:
        """The contexts as a keyword, which models without them need not have."""
        return {} if self.context is None else {"context": self.context}

    @property
    def holes(self) -> Tensor:
        """The points without the last feature of the first one, and without a whole row."""
        x = self.x.clone()
        x[0, -1], x[1] = torch.nan, torch.nan
        return x

    @property
    def alike(self) -> dict[str, Any]:
        """Contexts and a generator, as keywords."""
        return self.beside | {"generator": self.seeded()}


def latents(model: Any, given: Given) -> Tensor:  # noqa: ANN401
    """Draws ``[2, n, d]`` of the encoder."""
    return model.draw_latents(given.x, 2, **given.alike)[0]


def logits(density: Any, given: Given) -> Tensor:  # noqa: ANN401
    """Of categories, they are known up to what all have in common."""
    found: Tensor = density.logits_at(given.context)
    return found.log_softmax(-1) if isinstance(density, CategoricalFamily) else found


def alphabet(density: Any, given: Given) -> list[Tensor]:  # noqa: ANN401
    return [each.values for each in density.alphabets]


def of_link(model: Any, given: Given) -> list[object]:  # noqa: ANN401
    """There, once and often, and back; and what prior, decoder and encoder say of that."""
    link, rows = model.link, model._rows(given.x, given.context)
    behind = parted(rows, model.features)[1]
    z = link.infer_once(rows, given.seeded())[0]
    below = joined(z, behind)
    answers: list[object] = [
        link.infer(rows, 2, generator=given.seeded()),
        link.generate(below, generator=given.seeded()),
        link.simulate(below, generator=given.seeded()) if link.deterministic else [],
        of_part(model.prior, given, z, behind),
    ]
    if hasattr(model, "decoder"):
        answers += [of_part(model.decoder, given, given.x, below), of_part(model.encoder, given, z, rows)]
    return answers


def of_part(density: Any, given: Given, x: Tensor, context: Tensor | None) -> list[object]:  # noqa: ANN401
    """What a density inside of a model says, about points of its own."""
    about = Given(x, context if density.context_features else None, given.seeded)
    return [answer(ask, density, about) for name, ask in DENSITIES.items() if hasattr(type(density), name)]


def answer(ask: Ask, model: Any, about: Given) -> object:  # noqa: ANN401
    """What is said, or why nothing is."""
    try:
        return ask(model, about)
    except (TypeError, ValueError) as refusal:
        return str(refusal)


def of_observed(model: Any, given: Given) -> list[Any]:  # noqa: ANN401
    """Of rows with holes: the bound or the density, what is missing, and draws of it."""
    view, few = model.observed, {"draws": 7} if hasattr(model.observed, "elbo") else {}
    context = given.beside if hasattr(view, "elbo") else {}
    return [
        view.log_density(given.holes, **(few | context | {"generator": given.seeded()} if few else {})),
        view.impute(given.holes, **(few | context | {"generator": given.seeded()} if few else {})),
        view.draw(given.holes, 2, **few, **context, generator=given.seeded()),
    ]


DENSITIES: dict[str, Ask] = {
    "expectation": lambda m, g: m.expectation(g.context),
    "alphabets": alphabet,
    "enumerate": lambda m, g: m.enumerate(),
    "at": lambda m, g: [m.at(g.context)[0], m.at(g.context)[1].log_det()],
    "given": lambda m, g: m.given(g.context).log_prob(g.x),
    "logits_at": logits,
    "raw_at": lambda m, g: m.raw_at(g.context),
    "parameters_at": lambda m, g: m.parameters_at(g.context),
    "log_scale_at": lambda m, g: m.log_scale_at(g.context),
    "log_prob_each": lambda m, g: m.log_prob_each(g.x, g.context),
    "log_probs": lambda m, g: m.log_probs(g.x, g.context),
    "covariance": lambda m, g: m.covariance,
    "degrees": lambda m, g: m.degrees,
    "split": lambda m, g: m.split(g.x),
    "log_det": lambda m, g: m.log_det(),
    "log_prob_of_each": lambda m, g: m.log_prob_of_each(g.x),
    "log_ratio_of_each": lambda m, g: m.log_ratio_of_each(g.x).log_softmax(-1),  # up to what all have in common
}

TRANSFORMS: dict[str, Ask] = {
    "diagonal": lambda m, g: m.diagonal(g.x.shape[-1]),
    "matrix": lambda m, g: m.matrix(),
    "log_abs_det": lambda m, g: m.log_abs_det(),
    "orthogonal": lambda m, g: m.orthogonal(),
    "mask": lambda m, g: m.mask,
    "velocities": lambda m, g: m.velocities(g.x, g.x.new_full((), 0.3), g.context),
    "check_domain": lambda m, g: m.check_domain(g.x),
}

LATENT_VARIABLE_MODELS: dict[str, Ask] = {
    "link": of_link,
    "log_weights": lambda m, g: m.log_weights(g.x, 2, **g.alike),
    "log_joint": lambda m, g: m.log_joint(g.x, latents(m, g), **g.beside),
    "draw_latents": lambda m, g: m.draw_latents(g.x, 2, **g.alike),
    "elbo_terms": lambda m, g: m.elbo_terms(g.x, draws=2, **g.alike),
    "encode": lambda m, g: m.encode(g.x, **g.beside),
    "decode": lambda m, g: m.decode(latents(m, g), **g.beside),
    "reconstruct": lambda m, g: m.reconstruct(g.x, **g.beside),
    "observed": of_observed,
    "impute": lambda m, g: m.impute(g.holes, draws=7, **g.alike),
    "draw": lambda m, g: m.draw(g.holes, 2, draws=7, **g.alike),
    "elbo_closed_form": lambda m, g: m.elbo_closed_form(g.x),
    "closed_form_gap": lambda m, g: m.closed_form_gap(),
    "marginal_log_prob": lambda m, g: m.marginal_log_prob(g.x),
    "latent_factor": lambda m, g: m.latent_factor().log_det_precision(),
    "whiten": lambda m, g: m.whiten(g.x),
    "noise_variance": lambda m, g: m.noise_variance,
    "level_kl": lambda m, g: m.level_kl(g.x, draws=2, generator=g.seeded()),
    "levels": lambda m, g: m.levels(latents(m, g)),
    "noise_matching": lambda m, g: m.noise_matching(g.x, draws=2, **g.alike),
    "limit": lambda m, g: m.limit(g.x, draws=8, **g.alike),
    "hierarchy": lambda m, g: m.hierarchy().elbo(g.x, generator=g.seeded()),
}

EXACT_MODELS: dict[str, Ask] = {
    "weights": lambda m, g: m.weights,
    "means": lambda m, g: m.means,
    "covariances": lambda m, g: m.covariances,
    "posterior": lambda m, g: m.posterior(g.x),
    "predict": lambda m, g: m.predict(g.x),
    "marginal": lambda m, g: m.marginal([0]),
    "conditional": lambda m, g: m.conditional([0], g.x[0, :1]),
    "principal_axes": lambda m, g: m.principal_axes,
    "bic": lambda m, g: [m.bic(g.x), m.aic(g.x)],
}

CHANGING: dict[str, Ask] = {  # the model, and so asked last
    "em_step": lambda m, g: [m.em_step(g.x), m],
    "update": lambda m, g: [m.update(m.summarise(g.x), ridge=0.1), m],
    "set_optimal_encoder": lambda m, g: [m.set_optimal_encoder(), m],
    "initialise": lambda m, g: [m.initialise(g.x, g.context), m],
}

QUESTIONS = DENSITIES | TRANSFORMS | LATENT_VARIABLE_MODELS | EXACT_MODELS | CHANGING
