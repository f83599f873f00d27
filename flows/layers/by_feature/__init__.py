"""Layers that move each feature by itself."""
