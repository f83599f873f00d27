"""Diffusion models: hierarchies of latents whose encoder is fixed."""
