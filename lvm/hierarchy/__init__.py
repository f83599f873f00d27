"""Several latents, one above the other: hierarchical VAEs, and chains of links as models of one latent."""
