"""One network, read as a diffusion's chain and as a differential equation: how far apart are the two models?

Claim: they are two models, whose log p(x) differ at every point. The chain reports a bound, the equation a density, and
    one column of both misjudges the chain by the looseness of the bound, which depends on the number of steps.

Paper: Ho et al. 2020, Song et al. 2021, Kingma et al. 2021 (diffusions); Chen et al. 2018, Grathwohl et al. 2019,
    Lipman et al. 2023 (continuous flows).

Command: python -m studies.diffusion

Run time: --quick

Expected: numbers

Answer: answer
"""
