"""Layers that mix features linearly."""
