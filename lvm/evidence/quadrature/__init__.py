"""Log p(x) by adaptive quadrature over few latents."""

from lvm.evidence.quadrature.adaptive import quadrature

__all__ = [
    "quadrature",
]
