"""The examples of docs/judge.md: each library's tutorial model, judged in five lines, beside an oracle."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tests.places import ROOT

PAGE = (ROOT / "docs" / "judge.md").read_text()
FENCE = re.compile(
    r"^## (?P<name>[^\n]+)\n(?:(?!^## |^```).*\n)*^```python\n(?P<code>(?!>>>)(?:(?!^```).*\n)*)^```", re.M
)
EXAMPLES = {match["name"]: match["code"] for match in FENCE.finditer(PAGE)}
LIBRARY = {"scikit-learn": "sklearn", "scvi-tools": "scvi", "A VAE of plain modules": "torch", "Pyro": "pyro"}
IN_CI = {"nflows", "scikit-learn", "A VAE of plain modules"}
LINES = 5

Namespace = dict[str, Any]


def grid(features: int) -> tuple[Tensor, Tensor]:
    """Nodes of the trapezoidal rule over standard normal latents, and the logarithms of their weights."""
    axis = torch.linspace(-7, 7, 141)
    z = torch.cartesian_prod(*[axis] * features).reshape(-1, features)
    return z, Normal(0.0, 1.0).log_prob(z).sum(-1) + features * math.log(14 / 140)


def of_bits(decode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log p(x) of a Bernoulli decoder over two latents, from probabilities that it returns."""
    z, log_weights = grid(2)
    p = decode(z).flatten(1).double()
    log_joint = x.double() @ p.log().mT + (1 - x.double()) @ (-p).log1p().mT
    return (log_joint + log_weights).logsumexp(-1)


def scvi_oracle(space: Namespace) -> Tensor:
    module, x = space["vae"].module.eval(), space["x"] if "x" in space else space["model"].data
    z, log_weights = grid(2)
    counts, batch = x[:, :-1], x[:, -1:].long()
    library = counts.sum(-1, keepdim=True).log()
    values = []
    for part in z.split(500):
        spread = part[:, None].expand(-1, len(x), -1)
        made = module.generative(z=spread, library=library.expand(len(part), -1, -1), batch_index=batch)
        values.append(made["px"].log_prob(counts).sum(-1))
    return (torch.cat(values) + log_weights[:, None]).logsumexp(0)


ORACLES: dict[str, Callable[[Namespace], Tensor]] = {
    "zuko": lambda space: space["flow"]().log_prob(space["x"]),
    "nflows": lambda space: space["flow"].log_prob(space["x"]),
    "scikit-learn": lambda space: torch.as_tensor(space["estimator"].score_samples(space["x"].numpy())),
    "normflows": lambda space: space["flow"].log_prob(space["x"]),
    "FrEIA": lambda space: (lambda z, j: Normal(0.0, 1.0).log_prob(z).sum(-1) + j)(*space["inn"](space["x"])),
    "pomegranate": lambda space: space["mixture"].log_probability(space["x"]),
    "pythae": lambda space: of_bits(lambda z: space["vae"].eval().decoder(z)["reconstruction"], space["x"]),
    "Pyro": lambda space: of_bits(lambda z: space["vae"].decoder(z).sigmoid(), space["x"]),
    "scvi-tools": scvi_oracle,
    "A VAE of plain modules": lambda space: of_bits(lambda z: space["decoder"](z).sigmoid(), space["x"]),
}


def test_every_example_has_an_oracle_and_five_lines() -> None:
    assert EXAMPLES.keys() == ORACLES.keys()
    for name, code in EXAMPLES.items():
        judged = code.partition("# judged\n")[2].strip().splitlines()
        assert 1 <= len(judged) <= LINES, name


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")
@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in ORACLES]
)
def test_example(name: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(LIBRARY.get(name, name))
    except ImportError:
        pytest.skip(f"{name} is not installed; its interface is tried on a stand-in in test_libraries")
    space: Namespace = {}
    theirs, _, ours = EXAMPLES[name].partition("# judged\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs to answer for
        exec(theirs, space)
        exec(ours, space)
        with torch.no_grad():
            truth = ORACLES[name](space)
    claim = space["claim"]
    error = (claim.value.double() - truth.double()).abs()
    if claim.monte_carlo_error is None:
        assert error.max() < 1e-6 * (1 + truth.abs().max())
    else:
        mean = (claim.value.double() - truth.double()).mean().abs()
        assert mean < 3 * claim.mean_monte_carlo_error + 1e-6, (claim, truth.mean())
    if "verdict" in space:
        assert space["verdict"].passed is True, str(space["verdict"])
