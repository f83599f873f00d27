"""Flows against nflows, zuko, normflows and FrEIA.

Same mathematics and sizes in float32; weights are copied where they can be, and agreement is checked in float64 before
anything is timed. All is built on the CPU, so that weights and data are the same on every device, and moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.contestants import (
    Absent,
    Contestant,
    Contestants,
    Work,
    Works,
    agreeing,
    built,
    compiled,
    each,
    notes_of,
    peer,
    present,
    training_step,
    warm,
    without,
    without_gradients,
    works_of,
)
from benchmarks.couplings import coupling_flow
from benchmarks.timing import Race
from density import StandardNormal
from flows import Chain, Flow, GaussianAutoregressive, LULinear, QRLinear, SplineCoupling

TOLERANCE = 1e-8  # nats, of log p(x) in float64
UNBOUNDED = 0.5  # of normflows, which does not bound log σ
PEERS = "nflows", "zuko", "normflows", "FrEIA"
SPINNING = Absent("threads of the compiler's, kept spinning by an OpenMP of their own, would slow the others")


def couplings(features: int, hidden: int, rows: int, device: torch.device) -> Iterator[Race]:
    """Eight steps of LU and affine coupling, ReLU networks of two hidden layers."""
    checked, x = built(lambda: _couplings(features, hidden), (rows, features), torch.float64, device)
    agreed = agreeing(checked, x, {"nflows": TOLERANCE, "zuko": TOLERANCE, "normflows": UNBOUNDED})
    made, x = built(lambda: _couplings(features, hidden), (rows, features), torch.float32, device)
    made = without(made, agreed)
    size = f"coupling + LU, D={features}, H={hidden}, n={rows}"
    notes = notes_of(made) | {"floor": "the bare matrix products"}
    steps, evaluate, sample = works_of(made, x)
    evaluate["floor"] = without_gradients(_products(made["ours"].module, x))
    yield Race(f"training step, {size}", steps, notes)
    yield Race(f"log_prob, {size}", evaluate, notes)
    yield Race(f"sample, {size}", sample, notes)


def compiled_couplings(features: int, hidden: int, rows: int, device: torch.device) -> Iterator[Race]:
    """The same flow beside itself as one graph by torch.compile, on CUDA a CUDA graph, and beside nflows."""
    made, x = built(lambda: _couplings(features, hidden, ("nflows",)), (rows, features), torch.float32, device)
    steps, evaluate, _ = works_of(made, x)
    name = f"compiled coupling + LU, D={features}, H={hidden}, n={rows}"
    one_thread = device.type == "cuda" or torch.get_num_threads() == 1

    def compiled_race(job: str, works: Works, compiling: Callable[[Flow], Work]) -> Race:
        flow = coupling_flow(features, hidden, 8).to(device)
        works["ours, compiled"] = present(lambda: warm(compiling(flow))) if one_thread else SPINNING
        return Race(f"{job}, {name}", works)

    yield compiled_race("training step", steps, lambda flow: _compiled_step(flow, x, device))
    yield compiled_race("log_prob", evaluate, lambda flow: without_gradients(_compiled(flow, x, device)))


def splines(features: int, hidden: int, rows: int, device: torch.device) -> Iterator[Race]:
    """Four steps of LU and rational-quadratic coupling, eight bins, bound 5."""
    made, x = built(lambda: _splines(features, hidden), (rows, features), torch.float32, device)
    size = f"spline coupling + LU, D={features}, H={hidden}, n={rows}"
    for job, works in zip(("training step", "log_prob", "sample"), works_of(made, x), strict=True):
        yield Race(f"{job}, {size}", works)


def autoregressive_inverse(features: int, hidden: int, rows: int, device: torch.device) -> Iterator[Race]:
    """One layer, two hidden layers; each library's own scale function."""
    layer = GaussianAutoregressive(features, (hidden, hidden))
    with torch.no_grad():
        for parameter in layer.conditioner.layers[-1].parameters():
            parameter.normal_(0, 0.3 / hidden**0.5)
    layer.to(device)
    z = torch.randn(rows, features).to(device)
    inverses: dict[str, Callable[[Tensor], object] | Absent] = {
        "ours": layer.inverse,
        "nflows": present(lambda: peer("nflows").autoregressive(features, hidden).to(device).inverse),
        "zuko": present(lambda: peer("zuko").autoregressive_inverse(features, hidden, device)),
        "normflows": present(lambda: peer("normflows").autoregressive(features, hidden).to(device).inverse),
        "one forward": layer.forward,
    }
    works = each(inverses, lambda inverse: without_gradients(lambda: inverse(z)))
    name = f"autoregressive inverse, D={features}, H={hidden}, n={rows}"
    yield Race(name, works, {"one forward": "ours, for scale"})


def reflections(features: int, rows: int, device: torch.device) -> Iterator[Race]:
    """One QR-linear layer with as many reflections as features."""
    x = torch.randn(rows, features).to(device)
    layers: dict[str, nn.Module | Absent] = {
        "ours": QRLinear(features).to(device),
        "nflows": present(lambda: peer("nflows").reflections(features).to(device)),
    }

    def log_prob(layer: nn.Module) -> Tensor:
        z, log_det = layer(x)
        return log_det - 0.5 * z.square().sum(-1)

    size = f"QR, D={features}, {features} reflections, n={rows}"
    yield Race(f"training step, {size}", each(layers, lambda m: training_step(m, lambda: -log_prob(m).mean())))
    yield Race(f"log_prob, {size}", each(layers, lambda m: without_gradients(lambda: log_prob(m))))
    yield Race(f"inverse, {size}", each(layers, lambda m: without_gradients(lambda: m.inverse(x))))


def _couplings(features: int, hidden: int, peers: Sequence[str] = PEERS) -> Contestants:
    flow = coupling_flow(features, hidden, 8)
    made: Contestants = {"ours": Contestant(flow, flow.log_prob, flow.sample)}
    for name in peers:
        made[name] = present(lambda name=name: peer(name).coupling(flow, hidden))
    return made


def _splines(features: int, hidden: int) -> Contestants:
    mask, parts = torch.arange(features) < features // 2, []
    for _ in range(4):
        parts += [LULinear(features), SplineCoupling(mask, (hidden, hidden), activation=nn.ReLU)]
    flow = Flow(StandardNormal(features), Chain(*parts))
    theirs = present(lambda: peer("nflows").spline(features, hidden))
    return {"ours": Contestant(flow, flow.log_prob, flow.sample), "nflows": theirs}


def _compiled(flow: Flow, x: Tensor, device: torch.device) -> Work:
    fast = compiled(flow.log_prob, device)
    return lambda: fast(x)


def _compiled_step(flow: Flow, x: Tensor, device: torch.device) -> Work:
    fast = compiled(lambda x: -flow.log_prob(x).mean(), device)
    return training_step(flow, lambda: fast(x))


def _products(flow: Flow, x: Tensor) -> Work:
    """The floor of an evaluation: the bare matrix products."""
    seen = torch.randn_like(x[:, : x.shape[1] // 2])

    def work() -> None:
        for linear, coupling in zip(flow.transform.parts[::2], flow.transform.parts[1::2], strict=True):
            torch.mm(x, linear.factors)
            h = seen
            for layer in coupling.conditioner:
                if isinstance(layer, nn.Linear):
                    h = torch.mm(h, layer.weight.T)

    return work
