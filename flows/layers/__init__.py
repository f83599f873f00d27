"""Invertible layers: linear, elementwise, permutations, couplings, autoregressive."""
