"""The former address of :mod:`flows.layers.conditional.coupling`."""

from flows.layers.conditional.coupling import AffineCoupling, Coupling, SplineCoupling

__all__ = [
    "AffineCoupling",
    "Coupling",
    "SplineCoupling",
]
