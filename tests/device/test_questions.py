# ruff: noqa: ANN401
"""Whatever else the models of the tables are asked, they answer on a device as on the CPU, and seldom wait for it."""

from __future__ import annotations

from types import FunctionType
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
        about, answers = given(case, model, device), []
        for question, ask in QUESTIONS.items():
            if hasattr(type(model), question):
                with asking_nothing(device, waits=LOOKS.get(question, 0)):
                    answers.append(answer(ask, model, about))
        left = public(type(model)) - {*QUESTIONS, *ELSEWHERE}
        assert not left, f"nobody asks for {left}: each is a new line in the table of questions"
        return answers

    both(call)


ELSEWHERE = {
    *("forward", "log_prob", "sample", "sample_with_log_prob", "inverse", "elbo", "log_density"),  # in other laws
    *("domain", "image", "support", "check_image", "check_support"),
    *("fit", "fit_moments", "in_float64", "parameters_on", "set_parameters", "take", "summarise"),  # in fits
    *("aic", "check_input", "check_settings", "check_pathwise", "check_prior"),  # in other questions
    *("decoder", "encoder", "prior", "links", "parts", "factors", "monotone", "reference"),  # parts
    *("unreachable", "description", "method", "level_features", "parameter_count"),  # words and numbers of Python's
}


def public(kind: type) -> set[str]:
    """The public methods and properties of a class that are the library's."""
    found = set()
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("density", "flows", "lvm", "bridge"):
            found |= {name for name, own in vars(base).items() if isinstance(own, property | FunctionType)}
    return {name for name in found if not name.startswith("_")}
