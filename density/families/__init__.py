"""Small densities, conditional and not, and what they are made of: scales, networks, closed-form KL divergences."""
