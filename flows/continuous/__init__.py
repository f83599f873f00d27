"""Continuous flows: points that move with a velocity."""
