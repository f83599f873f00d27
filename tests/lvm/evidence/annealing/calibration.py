"""How often, and how far, reverse annealing falls below log p(x) where that is known: the table in docs/evidence.md.

``python -m tests.lvm.evidence.annealing.calibration`` measures all of it and writes the table anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from density import ConditionalGaussian, FixedScale, NetworkScale, StandardNormal
from lvm import PPCA, VAE, LinearVAE
from lvm.evidence import FromEncoder, FromPrior, annealed, quadrature, reverse_annealed
from lvm.evidence.annealing.chains import Start
from lvm.latent import LatentVariableModel
from tests.laws.transforms import randomise
from tests.lvm.evidence.trained import TRAINED

PAGE = Path(__file__).parents[4] / "docs" / "evidence.md"
HEADER = (
    "| model | steps | transitions | below | by > 3 errors | mean − log p | worst | `annealed` − log p |",
    "|---|---|---|---|---|---|---|---|",
)
LENGTHS = ((5, 0), (5, 20), (5, 100), (20, 0), (20, 20), (100, 0), (100, 100))
POINTS = 40

Known = tuple[LatentVariableModel, Tensor, Tensor]


class Fold(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.square()


def linear(generator: Generator) -> Known:
    model = randomise(LinearVAE(12, 8).double(), generator, 0.5)
    with torch.no_grad():
        model.decoder.log_std.fill_(-1.0)
    model.set_optimal_encoder()
    x = model.sample(POINTS, generator=generator).detach()
    return model, x, model.log_prob(x).detach()


def ppca(generator: Generator) -> Known:
    model = randomise(PPCA(6, 3).double(), generator, 0.7)
    x = model.sample(POINTS, generator=generator).detach()
    return model, x, model.log_prob(x).detach()


def wine(generator: Generator) -> Known:
    """A VAE of two latents, and rows that it has not seen."""
    model, x = TRAINED["wine"].fitted(generator, POINTS)
    return model, x, quadrature(model, x, tolerance=1e-5, generator=generator).value


def folded(generator: Generator) -> Known:
    """x = z² and noise, with an encoder at the positive one of two equal modes."""
    encoder = ConditionalGaussian(nn.Linear(1, 2), 1, 1, NetworkScale())
    model = VAE(StandardNormal(1), encoder, ConditionalGaussian(Fold(), 1, 1, FixedScale(0.1))).double()
    with torch.no_grad():
        encoder.network.weight.zero_()
        encoder.network.bias.copy_(torch.tensor([1.0, -2.0]))
    x = 1 + 0.1 * torch.randn(POINTS, 1, generator=generator, dtype=torch.float64)
    return model, x, quadrature(model, x, tolerance=1e-8, generator=generator).value


CASES: dict[str, tuple[Callable[[Generator], Known], Start]] = {
    "PPCA, 3 latents, prior start": (ppca, FromPrior()),
    "linear VAE, 8 latents": (linear, FromEncoder()),
    "VAE of wine, 2 latents": (wine, FromEncoder()),
    "one of two modes known": (folded, FromEncoder()),
}


@dataclass(frozen=True)
class Row:
    """What was measured at one length, over the points of a model: shares, and nats."""

    case: str
    steps: int
    transitions: int
    below: float
    far_below: float
    mean: float
    worst: float
    forward: float

    def __str__(self) -> str:
        return (
            f"| {self.case} | {self.steps} | {self.transitions} | {self.below:.0%} | {self.far_below:.0%} | "
            f"{self.mean:+.3f} | {self.worst:+.2f} | {self.forward:+.3f} |"
        )


def rows(case: str, lengths: tuple[tuple[int, int], ...] = LENGTHS, seed: int = 0) -> Iterator[Row]:
    """Measured on 40 points with 16 chains each."""
    make, start = CASES[case]
    generator = Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model, x, truth = make(generator)
    for steps, transitions in lengths:
        claim = reverse_annealed(model, x, steps=steps, transitions=transitions, start=start, generator=generator)
        forward = annealed(model, x, steps=steps, start=start, generator=generator).value - truth
        assert claim.monte_carlo_error is not None
        off = claim.value - truth
        far = off < -3 * claim.monte_carlo_error
        yield Row(
            case,
            steps,
            transitions,
            (off < 0).double().mean().item(),
            far.double().mean().item(),
            off.mean().item(),
            off.min().item(),
            forward.mean().item(),
        )


def main() -> None:
    """Write the table between its header and the next empty line."""
    table = []
    for case in CASES:
        for row in rows(case):
            print(row, flush=True)
            table.append(str(row))
    before, rest = PAGE.read_text().split("\n".join(HEADER))
    after = rest.split("\n\n", 1)[1]
    PAGE.write_text("\n".join([before + HEADER[0], HEADER[1], *table]) + "\n\n" + after)


if __name__ == "__main__":
    main()
