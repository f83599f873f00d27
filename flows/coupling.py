"""The former address of :mod:`flows.layers.coupling`."""

from flows.layers.coupling import AffineCoupling, Coupling, SplineCoupling

__all__ = [
    "AffineCoupling",
    "Coupling",
    "SplineCoupling",
]
