"""Models in files that are written whole or not at all and execute nothing when read."""
