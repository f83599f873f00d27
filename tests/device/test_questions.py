# ruff: noqa: ANN401
"""Whatever else the models of the tables are asked, they answer on a device as on the CPU, and seldom wait for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.layered_models import LOOSE, TIGHT
from tests.cases.likelihoods import LIKELIHOODS
from tests.cases.questions import QUESTIONS, Given, answer
from tests.cases.transforms import TRANSFORMS
from tests.device.comparing import asking_nothing, both, made, seed
from tests.laws.bounds import BoundCase

ROWS = 6
CASES: dict[str, Any] = {**TRANSFORMS, **DENSITIES, **LIKELIHOODS, **BOUNDS, **TIGHT, **LOOSE}
LOOKS = {  # how often a question waits, at most: where it checks data, sorts rows by what they lack, or makes a model
    **{"bic": 10, "check_domain": 7, "conditional": 20, "draw": 1, "em_step": 5, "hierarchy": 3, "impute": 1},
    **{"initialise": 16, "limit": 4, "marginal": 6, "observed": 51, "principal_axes": 1, "update": 3},
}


def given(case: Any, model: Any, device: str) -> Given:
    """Points and contexts of a case, the same on every device."""
    if isinstance(case, BoundCase):
        x, context = case.points(model, seed("cpu"), ROWS), case.given(model, seed("cpu"), ROWS).get("context")
    else:
        own = (model,) if hasattr(case, "values") else ()
        x, context = case.points(*own, seed("cpu"), ROWS), case.context(model, seed("cpu"), ROWS)
    return Given(x.to(device), None if context is None else context.to(device), lambda: seed(device))


@pytest.mark.parametrize("name", CASES)
def test_questions(name: str) -> None:
    case = CASES[name]

    def call(device: str) -> list[Any]:
        model = made(case, device)
        about, answers = given(case, made(case, "cpu"), device), []
        for question, ask in QUESTIONS.items():
            if hasattr(type(model), question):
                with asking_nothing(device, waits=LOOKS.get(question, 0)):
                    answers.append(answer(ask, model, about))
        return answers

    both(call)


ELSEWHERE = {
    *("log_prob", "sample", "sample_with_log_prob", "check_support", "support", "inverse", "elbo", "log_density"),
    *("domain", "image", "check_image", "generate", "infer_once"),  # with the others, in the same tests
    *("fit", "fit_moments"),
    *("aic", "in_float64", "parameters_on", "set_parameters", "take", "summarise"),  # in "bic" and fits
    *("check_input", "check_settings", "check_pathwise", "check_prior", "unreachable", "description", "method"),
    *("decoder", "encoder", "prior", "links", "parts", "factors", "monotone", "reference"),  # parts
    *("level_features", "parameter_count"),  # numbers of Python's
}


def test_every_public_method_is_asked() -> None:
    """Of the models of the tables: one that is not is a new line in the table of questions."""
    left = set()
    for case in CASES.values():
        kind = type(made(case, "cpu"))
        for name in set(dir(kind)) - {"training", "T_destination", "dump_patches", "call_super_init"}:
            owner = next(base for base in kind.__mro__ if name in vars(base))
            if owner.__module__.split(".")[0] in ("density", "flows", "lvm", "bridge") and not name.startswith("_"):
                own = vars(owner)[name]
                if not isinstance(own, classmethod | staticmethod) and (callable(own) or isinstance(own, property)):
                    left.add(name)
    left -= {"forward", *QUESTIONS, *ELSEWHERE}
    assert not left
