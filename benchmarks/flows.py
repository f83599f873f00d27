"""Flows against nflows, zuko, normflows and FrEIA: ``python -m benchmarks.flows`` (needs benchmarks/requirements.txt).

Same mathematics and sizes in float32; weights are copied where they can be, and agreement is checked in float64 before
anything is timed. ``--quick`` takes a second a job. Rows go to a CSV file, a plot beside it, a table to the terminal.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nflows.transforms
import normflows
import torch
import zuko
from torch import Tensor, nn

from benchmarks import coupling_peers as peers
from benchmarks.plot import plot
from benchmarks.timing import Row, Work, race, table, use_threads, write
from density import StandardNormal
from flows import Chain, Flow, GaussianAutoregressive, LULinear, QRLinear, SplineCoupling
from flows.compilation import compiled

Jobs = list[tuple[str, dict[str, Work], dict[str, str]]]


def without_gradients(work: Work) -> Work:
    """The work as one evaluates: no graph is built."""

    def call() -> object:
        with torch.no_grad():
            return work()

    return call


def training_step(module: nn.Module, log_prob: Callable[[], Tensor]) -> Work:
    """Gradient and step of the same optimiser, fused Adam, for everybody."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-6, fused=True)

    def call() -> None:
        optimiser.zero_grad()
        (-log_prob().mean()).backward()
        optimiser.step()

    return call


def couplings(features: int, hidden: int, rows: int) -> Jobs:
    """Eight steps of LU and affine coupling, ReLU networks of two hidden layers."""
    builders = {
        "nflows": peers.nflows_flow,
        "zuko": peers.zuko_flow,
        "normflows": peers.normflows_flow,
        "FrEIA": peers.freia_flow,
    }

    def build(dtype: torch.dtype) -> tuple[dict[str, peers.Contestant], Tensor]:
        torch.set_default_dtype(dtype)
        try:
            flow = peers.ours(features, hidden, 8)
            x = torch.randn(rows, features)
            made = {"ours": peers.Contestant(flow, lambda: flow.log_prob(x), lambda: flow.sample(rows))}
            for name, builder in builders.items():
                made[name] = builder(flow, x, hidden)
            return made, x
        finally:
            torch.set_default_dtype(torch.float32)

    exact, _ = build(torch.float64)
    expected = exact["ours"].log_prob().detach()
    for name, tolerance in (("nflows", 1e-8), ("zuko", 1e-8), ("normflows", 0.5)):  # normflows does not bound log σ
        worst = (exact[name].log_prob().detach() - expected).abs().max()
        assert worst < tolerance, f"{name} computes something else: off by {worst:.1e}"
    made, x = build(torch.float32)
    flow = made["ours"].module
    networks = [part.conditioner for part in flow.transform.parts if hasattr(part, "conditioner")]
    seen = torch.randn(rows, features // 2)

    def floor() -> None:
        for part in flow.transform.parts[::2]:
            torch.mm(flow_input, part.factors)
        for network in networks:
            h = seen
            for layer in network:
                if isinstance(layer, nn.Linear):
                    h = torch.mm(h, layer.weight.T)

    flow_input = torch.randn(rows, features)
    size = f"coupling + LU, D={features}, H={hidden}, n={rows}"
    notes = {name: one.note for name, one in made.items()} | {"floor": "the bare matrix products"}
    evaluate = {name: without_gradients(one.log_prob) for name, one in made.items()}
    evaluate["floor"] = without_gradients(floor)
    if torch.get_num_threads() == 1:  # its threads, kept spinning by an OpenMP of their own, would slow the others
        fast = compiled(flow.log_prob)
        evaluate["ours, compiled"] = without_gradients(lambda: fast(x))
        notes["ours, compiled"] = "by torch.compile"
    return [
        (f"log_prob, {size}", evaluate, notes),
        (f"sample, {size}", {name: without_gradients(one.sample) for name, one in made.items()}, notes),
        (f"training step, {size}", {n: training_step(one.module, one.log_prob) for n, one in made.items()}, notes),
    ]


def autoregressive_inverse(features: int, hidden: int, rows: int) -> Jobs:
    """One layer, two hidden layers; each library's own scale function."""
    z = torch.randn(rows, features)
    layer = GaussianAutoregressive(features, (hidden, hidden))
    with torch.no_grad():
        for parameter in layer.conditioner.layers[-1].parameters():
            parameter.normal_(0, 0.3 / hidden**0.5)
    lazy = zuko.flows.MAF(features, transforms=1, hidden_features=(hidden, hidden), activation=nn.Tanh)
    theirs = lazy().transform
    plain = {"num_blocks": 1, "use_residual_blocks": False, "activation": torch.tanh}
    made = nflows.transforms.MaskedAffineAutoregressiveTransform(features, hidden, **plain)
    normal = normflows.flows.MaskedAffineAutoregressive(features, hidden, **plain)
    # Theirs has no activation after the first layer; with it the network is everybody's.
    made_by_them = normal.autoregressive_net
    made_by_them.initial_layer = nn.Sequential(made_by_them.initial_layer, nn.Tanh())
    works: dict[str, Work] = {
        "ours": lambda: layer.inverse(z),
        "nflows": lambda: made.inverse(z),
        "zuko": lambda: theirs.inv(z),
        "normflows": lambda: normal.inverse(z),
        "one forward": lambda: layer.forward(z),
    }
    name = f"autoregressive inverse, D={features}, H={hidden}, n={rows}"
    return [(name, {k: without_gradients(work) for k, work in works.items()}, {"one forward": "ours, for scale"})]


def splines(features: int, hidden: int, rows: int) -> Jobs:
    """Four steps of LU and rational-quadratic coupling, eight bins, bound 5."""
    x = torch.randn(rows, features)
    mask = torch.arange(features) < features // 2
    parts, theirs = [], []
    for _ in range(4):
        parts += [LULinear(features), SplineCoupling(mask, (hidden, hidden), activation=nn.ReLU)]
        net = lambda i, o: peers.NoContext(peers.network(i, o, hidden))  # noqa: E731
        theirs += [
            nflows.transforms.LULinear(features),
            nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(
                (~mask).int(), net, num_bins=8, tails="linear", tail_bound=5.0
            ),
        ]
    ours = Flow(StandardNormal(features), Chain(*parts))
    other = peers.NflowsFlow(nflows.transforms.CompositeTransform(theirs), peers.NflowsNormal([features]))
    size = f"spline coupling + LU, D={features}, H={hidden}, n={rows}"
    flows = {"ours": ours, "nflows": other}
    return [
        (f"log_prob, {size}", {k: without_gradients(lambda f=f: f.log_prob(x)) for k, f in flows.items()}, {}),
        (f"sample, {size}", {k: without_gradients(lambda f=f: f.sample(rows)) for k, f in flows.items()}, {}),
        (f"training step, {size}", {k: training_step(f, lambda f=f: f.log_prob(x)) for k, f in flows.items()}, {}),
    ]


def reflections(features: int, rows: int) -> Jobs:
    """One QR-linear layer with as many reflections as features."""
    x = torch.randn(rows, features)
    layers = {"ours": QRLinear(features), "nflows": nflows.transforms.QRLinear(features, features)}

    def negative_log_prob(layer: nn.Module) -> Tensor:
        z, log_det = layer(x)
        return log_det - 0.5 * z.square().sum(-1)

    size = f"QR, D={features}, {features} reflections, n={rows}"
    return [
        (f"log_prob, {size}", {k: without_gradients(lambda m=m: negative_log_prob(m)) for k, m in layers.items()}, {}),
        (f"inverse, {size}", {k: without_gradients(lambda m=m: m.inverse(x)) for k, m in layers.items()}, {}),
        (
            f"training step, {size}",
            {k: training_step(m, lambda m=m: negative_log_prob(m)) for k, m in layers.items()},
            {},
        ),
    ]


def main() -> None:
    """Run every job, print its table, write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second a job, for a look")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of every library (default: 1, then 2)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu (default), cuda, ...")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/flows.csv"), help="where the rows go")
    options = parser.parse_args()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # of the peers, about their own calls
    rows: list[Row] = []
    for threads in options.threads:
        use_threads(threads)
        for name, contestants, notes in jobs(options.device):
            seconds = 1.0 if options.quick else 12.0
            more = race(name, contestants, notes=notes, seconds=seconds, device=options.device)
            print(table(more), flush=True)
            rows += more
    write(rows, options.out)
    plot(rows, options.out.with_suffix(".png"))
    print(f"rows: {options.out}")


def jobs(device: torch.device) -> Iterator[tuple[str, dict[str, Work], dict[str, str]]]:
    """All of them, one after the other, with what the contestants hold on a device."""
    makers: list[Callable[[], Jobs]] = [
        lambda: autoregressive_inverse(8, 128, 512),
        lambda: autoregressive_inverse(63, 512, 512),
        lambda: couplings(6, 128, 512),
        lambda: couplings(64, 512, 1024),
        lambda: splines(6, 128, 512),
        lambda: splines(64, 128, 1024),
        lambda: reflections(64, 1024),
    ]
    for make in makers:
        with device:  # left before anything is timed: it has a price at every call
            made = make()
        yield from made


if __name__ == "__main__":
    main()
