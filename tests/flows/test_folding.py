"""Chains that fold their affine parts and work on columns compute what their parts compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator
from torch.func import grad, jacfwd, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from density import StandardNormal
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Inverse,
    LULinear,
    Permutation,
    QRLinear,
    Transform,
    glow,
    random_rotation,
)
from flows.folding import Fold, folded
from tests.cases.transforms import actnorm, matrix, vector, whitening
from tests.laws.transforms import randomise

D = 3


def lu(generator: Generator) -> LULinear:
    return LULinear.from_matrix(matrix(generator, D), vector(generator, D))


def qr(generator: Generator) -> QRLinear:
    return QRLinear.from_matrix(matrix(generator, D), vector(generator, D))


def affine(generator: Generator) -> Affine:
    return Affine(vector(generator, D), vector(generator, D).abs() + 0.5)


def permutation(generator: Generator) -> Permutation:
    return Permutation([2, 0, 1])


def no_bias(generator: Generator) -> LULinear:
    return LULinear.from_matrix(matrix(generator, D))


def inverse(generator: Generator) -> Inverse:
    return Inverse(lu(generator))


RUNS: dict[str, list[Callable[[Generator], Transform]]] = {
    "lu": [lu],
    "glow's": [actnorm, lu],
    "norm after": [lu, actnorm],
    "everything": [affine, actnorm, lu, permutation, qr, affine, no_bias, actnorm],
    "permutation first": [permutation, lu],
    "two permutations": [permutation, permutation, no_bias, permutation],
    "no offset": [no_bias, permutation],
    "norms around": [actnorm, actnorm, qr, actnorm],
    "whitening": [actnorm, whitening],
    "whitening within": [permutation, actnorm, whitening, lu, actnorm],
    "broken by an inverse": [lu, actnorm, inverse, lu],
    "nothing to fold": [actnorm, permutation, affine],
}


@pytest.mark.parametrize("rows", [1, 2, 50])
@pytest.mark.parametrize("name", RUNS)
def test_a_fold_is_its_parts_one_by_one(name: str, rows: int, generator: Generator) -> None:
    parts = [make(generator) for make in RUNS[name]]
    chain = Chain(*parts)
    x = torch.stack([vector(generator, D) for _ in range(rows)])
    z, log_det = x, torch.zeros(rows, dtype=x.dtype)
    for part in parts:
        z, term = part.forward(z)
        log_det = log_det + term
    torch.testing.assert_close(chain.forward(x), (z, log_det), rtol=1e-12, atol=1e-12)
    back, log_det = z, torch.zeros(rows, dtype=x.dtype)
    for part in reversed(parts):
        back, term = part.inverse(back)
        log_det = log_det + term
    torch.testing.assert_close(chain.inverse(z), (back, log_det), rtol=1e-11, atol=1e-11)


STEPS: dict[str, list[Callable[[Generator], Transform]]] = {
    "norm": [actnorm],
    "glow's": [actnorm, lu],
    "norms": [actnorm, actnorm],
    "fixed and norm": [affine, actnorm, qr],
    "permuted": [lu, actnorm, permutation],
    "reversed": [lambda _: Permutation([1, 2, 0]), no_bias],
}


def coupling(generator: Generator, number: int) -> Transform:
    return randomise(AffineCoupling([number % 2 == 0, True, number % 2 == 1], (4,)), generator)


@pytest.mark.parametrize("name", STEPS)
def test_runs_that_are_folded_together_keep_what_is_their_own(name: str, generator: Generator) -> None:
    """Values, and gradients of all parameters, with a graph and without, against the parts one by one."""
    steps = [[*(make(generator) for make in STEPS[name]), coupling(generator, number)] for number in range(3)]
    parts = [part for step in steps for part in step]
    parts += parts[:-1][-len(STEPS[name]) :]  # a run whose layers are those of another
    chain = Chain(*parts)
    x = torch.stack([vector(generator, D) for _ in range(7)])
    weights = torch.stack([vector(generator, D) for _ in range(7)])
    for direction, order in (("forward", parts), ("inverse", parts[::-1])):
        y, total = x, torch.zeros(7, dtype=x.dtype)
        for part in order:
            y, term = getattr(part, direction)(y)
            total = total + term
        found = getattr(chain, direction)(x)
        torch.testing.assert_close(found, (y, total), rtol=1e-11, atol=1e-11)
        with torch.no_grad():
            torch.testing.assert_close(getattr(chain, direction)(x), found, rtol=1e-12, atol=1e-12)
        own, expected = (
            torch.autograd.grad((weights * z).sum() + log_det.square().sum(), list(chain.parameters()))
            for z, log_det in (found, (y, total))
        )
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of torch's own rules for forward mode
@pytest.mark.parametrize("outer", [jacrev, pytest.param(jacfwd, marks=pytest.mark.slow)])
def test_a_diagonal_by_a_batch_norm_is_the_same_function(outer: Callable[..., Any], generator: Generator) -> None:
    """What accelerators are given: values, both derivatives, and a batch of diagonals, against the formula."""
    x = torch.stack([vector(generator, 5) for _ in range(D)])
    diagonal, offset, centre = (vector(generator, D) for _ in range(3))
    statistics = torch.zeros_like(diagonal), torch.ones_like(diagonal)

    def moved(x: torch.Tensor, diagonal: torch.Tensor, offset: torch.Tensor, *, batch_norm: bool) -> torch.Tensor:
        fold = Fold(centre, diagonal, offset, diagonal.sum(), statistics if batch_norm else None)
        return fold.forward(x)[0].pow(3) + fold.inverse(x)[0].pow(2)

    by_batch_norm, plain = (partial(moved, batch_norm=batch_norm) for batch_norm in (True, False))
    torch.testing.assert_close(by_batch_norm(x, diagonal, offset), plain(x, diagonal, offset), rtol=1e-12, atol=1e-12)
    found, expected = (
        outer(grad(lambda *inputs, one=one: one(*inputs).sum(), (0, 1, 2)), (0, 1, 2))(x, diagonal, offset)  # type: ignore[misc]
        for one in (by_batch_norm, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    many = torch.stack([diagonal, 2 * diagonal])
    found, expected = (vmap(one, (None, 0, None))(x, many, offset) for one in (by_batch_norm, plain))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_folded(generator: Generator) -> None:
    parts = [make(generator) for make in RUNS["everything"]]
    assert [type(part) for part in folded(parts, 10, inverse=False)] == [Fold]
    assert [type(part) for part in folded(parts, 10, inverse=True)] == [Fold]
    assert folded(parts, D - 1, inverse=True) == parts

    class Own(LULinear):
        """Somebody's layer, which may do anything."""

    assert folded([Own(D)], 10, inverse=False)[0].__class__ is Own


def test_an_offset_is_taken_off_before_anything_is_rounded(generator: Generator) -> None:
    """Data at 10⁸ with spread 10³ in float32 comes in steps of 8; folding must not add to that."""
    x = (1e8 + 1e3 * torch.randn(400, D, generator=generator, dtype=torch.float64)).float()
    chain = Chain(ActNorm(D), LULinear.from_matrix(matrix(generator, D).float()))
    chain.initialise(x)
    exact = Chain(*chain.parts).double()
    expected, _ = exact.forward(x.double())
    chain = chain.float()
    z, _ = chain.forward(x)
    assert (z - expected).abs().max() < 1e-5
    back, _ = chain.inverse(z)
    assert (back - x).abs().max() <= 16


@pytest.mark.parametrize(
    "mask", [[True, True, False, False], [False, False, True, True], [True, False] * 2, [True, False, False, True]]
)
def test_a_loaded_mask_is_obeyed(mask: list[bool], generator: Generator) -> None:
    """Blocks and stripes are views, other masks indices; which of them it is comes with the state."""
    source = randomise(AffineCoupling(mask, (5,)), generator)
    target = AffineCoupling([False, True, True, False], (5,)).double()
    target.load_state_dict(source.state_dict())
    x = torch.stack([vector(generator, 4) for _ in range(6)])
    for direction in ("forward", "inverse"):
        expected = getattr(source, direction)(x)
        torch.testing.assert_close(getattr(target, direction)(x), expected, rtol=0, atol=0)
        assert expected[0][:, torch.tensor(mask)].equal(x[:, torch.tensor(mask)])


@pytest.mark.parametrize("features", [5, 40])
def test_log_determinants_of_couplings_few_and_many_features_wide(features: int, generator: Generator) -> None:
    """Few rows are summed with those of the other parts, many at once."""
    mask = torch.arange(features) % 2 == 0
    parts = [randomise(AffineCoupling(mask ^ (k == 1), (4,)), generator) for k in range(3)]
    x = torch.stack([vector(generator, features) for _ in range(6)])
    z, log_det = Chain(*parts)(x)
    y, total = x, torch.zeros(6, dtype=torch.float64)
    for part in parts:
        y, term = part(y)
        assert term.shape == (6,)
        total = total + term
    torch.testing.assert_close((z, log_det), (y, total), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("features", [2, 4, 5])
@pytest.mark.parametrize("first", [0, 1])
def test_features_are_parted_alike_with_and_without_a_graph(features: int, first: int, generator: Generator) -> None:
    layer = randomise(AffineCoupling(torch.arange(features) % 2 == first, (4,)), generator)
    x = torch.stack([vector(generator, features) for _ in range(6)])
    with torch.no_grad():
        z, log_det = layer(x)
        assert z[:, first::2].equal(x[:, first::2])
    torch.testing.assert_close(layer(x), (z, log_det), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(layer.inverse(z)[0], x, rtol=1e-10, atol=1e-10)


class Calls(TorchDispatchMode):
    """Counts the kernels that a computation starts, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: torch._ops.OpOverload, types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))  # type: ignore[arg-type]


def test_a_step_of_glow_starts_few_kernels(generator: Generator) -> None:
    """Guards the speed of small flows, which is that of launching kernels: 14 a step and 58 beside when written.

    Per step: three products with biases and two activations of the network, the coupling's own, the fold's two.
    """
    counts = []
    with torch.no_grad():
        for layers in (4, 8):
            flow = glow(6, layers, (16, 16), linear=random_rotation(generator), base=StandardNormal)
            with Calls() as calls:
                flow.log_prob(torch.zeros(64, 6))
            counts.append(calls.count)
    per_step = (counts[1] - counts[0]) / 4
    assert per_step <= 15, counts
    assert counts[0] - 4 * per_step <= 62, counts
