"""Is a VAE that is trained as a mixture a better density of binary tables than one trained by its ELBO?

Claim:

Paper:

Command: python -m studies.binary_tables

Run time: --quick

Expected:

Answer:
"""
