"""The models that a prior and links make: a density where every link is tight, a bound elsewhere."""

from __future__ import annotations

from density.contract import Density
from lvm.layered import ExactLayeredModel, LinkedModel
from lvm.links import Link


class TightLayeredModel(ExactLayeredModel):
    """A prior and a tight link: every log-weight is log p(x), and the model is a density.

    Raises:
        ValueError: the link is loose, or the prior does not fit: its size, its measure, or its support.

    >>> import torch
    >>> from bridge.survae.ranges import HalfNormal
    >>> from bridge.survae.surjections import Abs
    >>> model = TightLayeredModel(HalfNormal(1), Abs(1))  # a normal density, folded and unfolded
    >>> model.log_prob(torch.tensor([[-1.0]])).item()
    -1.4189
    """

    def __init__(self, prior: Density, link: Link) -> None:
        super().__init__(prior, link)


class LooseLayeredModel(LinkedModel):
    """A prior and any link: log-weights whose mean is the ELBO. It is no Density: ask for ``elbo`` or ``log_density``.

    Raises:
        ValueError: the prior does not fit the link: its size, its measure, or its support.

    >>> import torch
    >>> from density.families.gaussian import StandardNormal
    >>> from bridge.survae.dequantisation import UniformDequantisation
    >>> model = LooseLayeredModel(StandardNormal(1), UniformDequantisation(1))
    >>> x = torch.zeros(1, 1)
    >>> claim = model.log_density(x, draws=10_000, generator=torch.Generator().manual_seed(0))
    >>> claim.measure, round(claim.value.exp().item(), 2)  # Φ(1) − Φ(0)
    (<Measure.COUNTING: 'counting'>, 0.34)
    """


def layered(prior: Density, link: Link) -> TightLayeredModel | LooseLayeredModel:
    """The model of a prior and a link: a density exactly when the link is tight, a bound otherwise.

    >>> from density.families.gaussian import StandardNormal
    >>> from bridge.survae.augmentation import Augmentation
    >>> from bridge.survae.surjections import Slice
    >>> type(layered(StandardNormal(1), Slice(2, [0], StandardNormal(1)))).__name__
    'TightLayeredModel'
    >>> type(layered(StandardNormal(2), Augmentation(1, StandardNormal(1)))).__name__
    'LooseLayeredModel'
    """
    tight = isinstance(link, Link) and link.tight  # what is no link is refused by name
    return TightLayeredModel(prior, link) if tight else LooseLayeredModel(prior, link)
