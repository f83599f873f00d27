"""Invertible layers: linear maps, by feature, conditional on other features or a context, at every pixel."""
