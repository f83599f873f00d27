"""Run by torchrun: PPCA and mixtures on several processes, against the same fits on one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Generator, Tensor

from density.parallel import processes
from density.saving.files import read, write
from lvm import EM, Diagonal, Full, GaussianMixture, Given, Present
from lvm.mixture.covariance import Covariance
from lvm.mixture.observed import ObservedMixture
from lvm.ppca.model import PPCA, ClosedForm, EMSolver, MissingEM

Fits = dict[str, list[Tensor]]


def fits() -> Fits:
    """Parameters and objectives of every sort of fit, on however many processes there are."""
    generator = Generator().manual_seed(0)
    tall = torch.randn(61, 2, generator=generator).double() @ torch.randn(2, 6, generator=generator).double() + 1e6
    tall = tall + 0.3 * torch.randn(61, 6, generator=generator).double()
    wide = tall[:5].repeat(1, 3) + 0.3 * torch.randn(5, 18, generator=generator).double()
    weights = torch.rand(61, generator=generator) + 0.5
    holes = torch.where(torch.rand(tall.shape, generator=generator) < 0.3, torch.nan, tall)
    em, missing = EMSolver(max_iterations=20), MissingEM(max_iterations=20)
    found: Fits = {}

    def keep(name: str, model: PPCA | GaussianMixture, objective: list[float]) -> None:
        found[name] = [
            torch.tensor(objective, dtype=torch.float64),
            *(parameter.detach().clone() for parameter in model.parameters()),
        ]

    for name, source in (("whole", tall), ("chunks", [tall[:3], tall[3:4], tall[4:]])):
        for solver in (ClosedForm(), em):
            model = PPCA(6, 2)
            keep(f"{name} {solver}", model, model.fit(source, solver=solver, weights=weights).objective)
    for name, source in (("holes", holes), ("holes in chunks", [holes[:3], holes[3:4], holes[4:]])):
        model = PPCA(6, 2)
        keep(name, model, model.observed.fit(source, missing, weights=weights).objective)
    for solver in (ClosedForm(), em):
        model = PPCA(18, 2)
        keep(f"wide {solver}", model, model.fit(wide, solver=solver).objective)
    for name, data in (("saddle", tall), ("saddle with holes", holes)):
        model = PPCA(6, 2).double()
        with torch.no_grad():
            model.decoder.weight.copy_(torch.tensor([[2.0, 0.0]]).expand(6, 2))
            model.decoder.mean.fill_(1e6)
        if name == "saddle":
            history = model.fit(data, solver=EMSolver(start=Present(), tolerance=1e-6, max_iterations=60))
        else:
            history = model.observed.fit(data, MissingEM(start=Present(), tolerance=1e-6, max_iterations=60))
        assert "saddle point" in history.stopped
        keep(name, model, history.objective)
    apart = tall - 1e6 + 20 * (torch.arange(61) % 2).unsqueeze(1)
    together = Given(apart.mean(0).expand(2, -1) + 1e-3 * torch.arange(2.0).unsqueeze(1))
    mixture = GaussianMixture(6, 2, Diagonal())
    history = mixture.fit(apart, em=EM(start=together, tolerance=0.1))
    assert "saddle point" in history.stopped
    keep("plateau", mixture, history.objective)
    structures: list[Covariance] = [Full(), Diagonal()]
    for structure in structures:
        mixture = GaussianMixture(6, 2, structure)
        start = Given(tall[:2] - 1e6)
        history = ObservedMixture(mixture).fit(holes - 1e6, EM(max_iterations=10, start=start), weights=weights)
        keep(f"mixture {structure}", mixture, history.objective)
    return found


def main(path: Path) -> None:
    """Fit on all processes, and compare with what one process wrote."""
    expected = read(path, "fits")
    with processes.joined():
        found = fits()
        assert processes.world() > 1
        for name, values in found.items():
            everywhere = [processes.gathered(value.reshape(1, -1)) for value in values]
            for own, all_of_them, one in zip(values, everywhere, expected[name], strict=True):
                assert bool((all_of_them == all_of_them[:1]).all()), f"{name}: processes differ"
                # Sums in another order, 20 iterations of EM on them.
                torch.testing.assert_close(
                    own, one, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
                )
        if processes.is_main():
            write(path.with_name("done"), "done", {"fits": len(found)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
