"""Which models of `elbo_gap` have a likelihood without maximum on a table: what they say of it is no achievement."""

from __future__ import annotations

from density.data.findings import Findings
from studies.elbo_gap.settings import ModelName, Settings

FREE: tuple[ModelName, ...] = ("vae-2", "vae-16", "coupling", "maf", "spline-maf", "coupling-vae")  # put mass anywhere
GAUSSIAN: tuple[ModelName, ...] = ("gaussian", "lu-flow")  # unbounded only where a covariance is singular


def unbounded(name: ModelName, settings: Settings, found: Findings | None) -> bool:
    """Whether this model can climb without end on data of which that was found.

    A mixture's covariances have a floor, its ridge. PPCA and the linear VAE have one noise for all directions, which is
    not 0 unless the data lies in fewer dimensions than they have latents, which their fits refuse.
    """
    if not found:
        return False
    if name in FREE or (name == "mixture" and settings.ridge == 0):
        return True
    return name in GAUSSIAN and found.deficient
