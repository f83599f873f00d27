"""Multi-scale Glow against normflows and nflows: ``python -m benchmarks.images`` (needs benchmarks/requirements.txt).

Same levels, steps and networks in float32. normflows has our weights, and agreement is checked in float64 before
anything is timed; nflows has as many weights, and lets the other half of the channels go on. ``--quick`` takes a second
a job.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import nflows.transforms
import normflows
import torch
from nflows.distributions import StandardNormal as NflowsNormal
from nflows.flows import Flow as NflowsFlow
from torch import Tensor, nn

from benchmarks.coupling_peers import BOUND, Contestant, NoContext
from benchmarks.flows import training_step, without_gradients
from benchmarks.timing import Row, race, table, use_threads, write
from density import StandardNormal
from density.images.shape import ImageShape
from flows import Chain, Flow, ImageConditioner, OnFeatures, convolutional_network, image_flow

Level = tuple[ImageShape, list[tuple[Chain, ImageConditioner]]]


class NflowsImageCoupling(nflows.transforms.AffineCouplingTransform):
    """Theirs, with our scale, exp(−5 tanh(raw/5)), and our shift, by channels."""

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = transform_params.chunk(2, 1)
        scale = torch.exp(-BOUND * torch.tanh(raw / BOUND))
        return scale, -mean * scale


def ours(shape: tuple[int, int, int], levels: int, steps: int, hidden: int) -> Flow:
    """The flow, away from its start."""
    network = partial(convolutional_network, hidden=(hidden, hidden), activation=nn.ReLU)
    flow = image_flow(shape, levels, steps, network, base=StandardNormal)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.add_(
                0.01 * torch.randn_like(parameter) if "network" in name else 0.1 * torch.randn_like(parameter)
            )
    return flow


def levels_of(flow: Flow, shape: tuple[int, int, int]) -> list[Level]:
    """Of every level, the shape of its squeezed images, and its pairs of affine map and conditioner."""
    found, chain, inner = [], flow.transform, ImageShape(*shape)
    while True:
        inner = inner.squeezed
        parts = list(chain.parts)
        last = parts.pop() if isinstance(parts[-1], OnFeatures) else None
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        found.append((inner, [(affine.transform, coupling.conditioner) for affine, coupling in pairs]))
        if last is None:
            return found
        chain, inner = last.transform, inner._replace(channels=inner.channels // 2)


def normflows_flow(flow: Flow, x: Tensor, shape: tuple[int, int, int], hidden: int) -> Contestant:
    """The flow in normflows, with our weights."""
    levels = levels_of(flow, shape)
    blocks, merges, bases = [], [], []
    for number, (inner, steps) in enumerate(levels):
        of_level = []
        for affine, conditioner in steps:
            block = normflows.flows.GlowBlock(inner.channels, hidden, scale_map="exp", init_zeros=False)
            coupling, mixing, norm = block.flows
            count = inner.channels // 2
            interleave = torch.arange(2 * count).reshape(2, count).T.flatten()
            theirs = [layer for layer in coupling.flows[1].param_map.net if isinstance(layer, nn.Conv2d)]
            mine = [layer for layer in conditioner.network if isinstance(layer, nn.Conv2d)]
            with torch.no_grad():
                for to, of in zip(theirs, mine, strict=True):
                    rows = interleave if of is mine[-1] else slice(None)
                    to.weight.copy_(of.weight[rows])
                    to.bias.copy_(of.bias[rows])
                act, lu = affine.parts
                norm.s.copy_(act.log_scale.reshape(norm.s.shape))
                norm.t.copy_(act.shift.reshape(norm.t.shape))
                norm.data_dep_init_done.fill_(1.0)
                mixing.P.copy_(torch.eye(inner.channels)[lu.permutation])
                mixing.L.copy_(lu.factors)
                mixing.U.copy_(lu.factors)
                mixing.sign_S.copy_(lu.sign)
                mixing.log_S.copy_(lu.factors.diagonal())
            of_level.append(block)
        blocks.append([*reversed(of_level), normflows.flows.Squeeze()])
        last = number == len(levels) - 1
        leaving = inner if last else inner._replace(channels=inner.channels - inner.channels // 2)
        bases.append(normflows.distributions.DiagGaussian(tuple(leaving), trainable=False))
        if not last:
            merges.append(normflows.flows.Merge())
    module = normflows.MultiscaleFlow(bases[::-1], blocks[::-1], merges, class_cond=False)
    images = x.reshape(-1, *shape)
    return Contestant(
        module, lambda: module.log_prob(images, None), lambda: module.sample(len(x)), "log σ is raw, without bound"
    )


def nflows_flow(x: Tensor, shape: tuple[int, int, int], levels: int, steps: int, hidden: int) -> Contestant:
    """A flow of as many weights in nflows."""
    module = nflows.transforms.MultiscaleCompositeTransform(levels)
    now = ImageShape(*shape)
    for _ in range(levels):
        inner = now.squeezed
        parts = [nflows.transforms.SqueezeTransform()]
        for _ in range(steps):
            moved = torch.arange(inner.channels) >= inner.channels // 2
            network = partial(convolutional_network, hidden=(hidden, hidden), activation=nn.ReLU)
            parts += [
                nflows.transforms.ActNorm(inner.channels),
                nflows.transforms.OneByOneConvolution(inner.channels),
                NflowsImageCoupling(moved.int(), lambda i, o, network=network: NoContext(network(i, o))),
            ]
        going_on = module.add_transform(nflows.transforms.CompositeTransform(parts), tuple(inner))
        now = inner if going_on is None else ImageShape(*going_on)
    flow = NflowsFlow(module, NflowsNormal([x.shape[1]]))
    images = x.reshape(-1, *shape)
    flow.log_prob(images)  # their activation norm starts from the first batch
    return Contestant(flow, lambda: flow.log_prob(images), lambda: flow.sample(len(x)), "other weights")


def jobs(shape: tuple[int, int, int], levels: int, steps: int, hidden: int, rows: int, seconds: float) -> list[Row]:
    """Evaluation, sampling and a step of training, raced."""

    def build(dtype: torch.dtype) -> dict[str, Contestant]:
        torch.set_default_dtype(dtype)
        try:
            flow = ours(shape, levels, steps, hidden)
            x = torch.randn(rows, flow.features)
            return {
                "ours": Contestant(flow, lambda: flow.log_prob(x), lambda: flow.sample(rows)),
                "normflows": normflows_flow(flow, x, shape, hidden),
                "nflows": nflows_flow(x, shape, levels, steps, hidden),
            }
        finally:
            torch.set_default_dtype(torch.float32)

    exact = build(torch.float64)
    worst = (exact["normflows"].log_prob() - exact["ours"].log_prob()).abs().max().item()
    assert worst < 0.5, f"normflows computes something else: off by {worst:.1e}"
    made = build(torch.float32)
    size = f"{'×'.join(map(str, shape))}, {levels} levels × {steps} steps, {hidden} channels, n={rows}"
    notes = {name: one.note for name, one in made.items()}
    found: list[Row] = []
    for job, works in (
        ("training step", {name: training_step(one.module, one.log_prob) for name, one in made.items()}),
        ("log_prob", {name: without_gradients(one.log_prob) for name, one in made.items()}),
        ("sample", {name: without_gradients(one.sample) for name, one in made.items()}),
    ):
        more = race(f"{job}, multi-scale Glow, {size}", works, notes=notes, seconds=seconds)
        print(table(more), flush=True)
        found += more
    return found


def main() -> None:
    """Run every job, print its table, write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second a job, for a look")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of every library (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/images.csv"), help="where the rows go")
    options = parser.parse_args()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # of the peers, about their own calls
    rows: list[Row] = []
    for threads in options.threads:
        use_threads(threads)
        for shape, levels, steps, hidden, count in (((1, 8, 8), 2, 4, 32, 128), ((1, 28, 28), 2, 4, 32, 32)):
            rows += jobs(shape, levels, steps, hidden, count, 1.0 if options.quick else 12.0)
    write(rows, options.out)
    print(f"rows: {options.out}")


if __name__ == "__main__":
    main()
