"""Increasing functions of one number with parameters of its own: what couplings and autoregressive layers apply."""
