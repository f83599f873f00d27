"""Is a study that takes no time a study?

Claim: thirty rows, each from its own seed, for tests of the kit.
"""
