"""Likelihoods as descriptions: how many numbers of a network a feature takes, and the density that these make."""
