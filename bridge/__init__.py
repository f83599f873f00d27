"""Where flows and latent-variable models meet."""

from bridge.delta import DeltaLink, FlowVAE

__all__ = ["DeltaLink", "FlowVAE"]
