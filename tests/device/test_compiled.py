"""What a compiled training step launches, beside what the budgets say of one that is not compiled.

Counted in the code that torch's compiler writes for the CPU: its loop nests, each of which is a kernel on an
accelerator, and its calls of libraries. How it is got at is private to torch, and used here alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lvm.vae.gradients import AnalyticKL
from tests.device.steps import FEATURES, MODELS, ROWS

LOOP_NEST = re.compile(r"^    \{$", re.MULTILINE)
LIBRARY_CALL = re.compile(r"^\s+(?:\w+ = torch\.ops|extern_kernels)\.\S+\(", re.MULTILINE)

LAUNCHES = {  # of objective and gradient, without the optimiser
    "real_nvp, 8 layers": 193,
    "glow, 8 layers": 308,
    "neural_spline_flow, 5 layers": 351,
    "VAE": 35,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler here")
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_compiled_step_launches_no_more_than(name: str) -> None:
    torch.manual_seed(0)
    model, x, estimator = MODELS[name](), torch.randn(ROWS, FEATURES), AnalyticKL()
    found = launches(lambda: -(estimator(model, x) if name == "VAE" else model.log_prob(x)).mean())
    print(f"{name}: {found}")
    assert found <= 1.05 * LAUNCHES[name]  # for other processors it fuses a little otherwise


def launches(loss: Callable[[], Tensor]) -> int:
    """Kernels and calls of libraries of a loss and its gradient, as one graph."""
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    fast = torch.compile(loss, fullgraph=True, dynamic=False, options={"fallback_random": True})
    _, codes = run_and_get_code(lambda: fast().backward())
    assert len(codes) == 2, "forward and backward are a graph each"
    return sum(len(pattern.findall(code)) for code in codes for pattern in (LOOP_NEST, LIBRARY_CALL))
