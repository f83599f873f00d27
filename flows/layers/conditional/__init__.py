"""Layers that are told by other features, or by a context, how to move."""
