"""torch.compile as an option, and what happens where it cannot."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Generator, Tensor

from density import StandardNormal
from density.compilation import functions
from flows import AffineCoupling, Chain, Flow, LULinear, compiled
from tests.laws.transforms import randomise


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler here")
def test_a_compiled_flow_has_the_same_log_prob(generator: Generator) -> None:
    flow = randomise(
        Flow(StandardNormal(4), Chain(LULinear(4), AffineCoupling([True, True, False, False], (8,)))), generator
    )
    log_prob = compiled(flow.log_prob)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(log_prob(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(call(x).sum(), list(flow.parameters())) for call in (log_prob, flow.log_prob)]
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


def test_without_a_compiler_the_function_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(function: object) -> object:
        def fast(*arguments: object) -> object:
            calls.append(arguments)
            raise RuntimeError("no C++ compiler\nand much more")

        return fast

    monkeypatch.setattr(functions.torch, "compile", broken)
    double = compiled(lambda x: 2 * x)
    with pytest.warns(UserWarning, match=r"torch\.compile failed and the function runs as it is: no C\+\+ compiler$"):
        assert double(torch.ones(1)).item() == 2
    assert double(torch.ones(1)).item() == 2  # without trying, or warning, again
    assert len(calls) == 1


def test_an_error_of_the_function_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions.torch, "compile", lambda function: function)

    def fails(x: Tensor) -> Tensor:
        raise ValueError("a shape does not fit")

    with pytest.raises(ValueError, match="a shape does not fit"):
        compiled(fails)(torch.ones(1))
