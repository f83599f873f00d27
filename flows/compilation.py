"""The former address of :mod:`density.compilation.functions`."""

from density.compilation.functions import compiled

__all__ = ["compiled"]
