"""Do the builders' defaults lose anything to flows of other libraries, on tables that neither side was tuned for?

Claim: a comparison of model families must not be decided by defaults. On each side the builder is chosen by held-out
    rows, on the same training rows and budget of steps; zuko's NSF is trained by early stopping, too, as its users do.
    Tables are real ones without atoms, and toys: rings, groups with heavy tails, a nearly singular Gaussian.

Paper: Durkan et al. 2019 (neural spline flows); Holm 1979 for the verdicts.

Command: python -m studies.defaults --data-directory DIR --tables digits breast-cancer wine-red boston concrete
    power-plant protein oil-flow galaxies rings tails near-singular (without options: the shipped tables; zuko's
    flows need pip install zuko, or --peers with those of nflows alone)

Run time: 70 minutes on one core a seed, all tables (--quick: 20 seconds)

Expected: one seed. Ours minus theirs, paired over test rows, nats; * by Holm at 5 %.

    =============  ==================  ==================
    table          best of each side   second best
    =============  ==================  ==================
    breast-cancer  +4.44 ± 0.58 *      +8.27 ± 0.77 *
    boston         +0.71 ± 0.52        +0.12 ± 0.70
    concrete       +0.45 ± 0.23        −0.06 ± 0.13
    digits         +0.64 ± 0.33        +4.72 ± 0.82 *
    wine-red       −0.09 ± 0.12        +0.53 ± 0.16 *
    oil-flow       +0.69 ± 0.13 *      +2.52 ± 0.15 *
    near-singular  +0.405 ± 0.060 *    +1.93 ± 0.12 *
    rings          +0.077 ± 0.016 *    +0.029 ± 0.015
    power-plant    −0.054 ± 0.029      +0.074 ± 0.028 *
    tails          +0.102 ± 0.054      +0.28 ± 0.12
    protein        +0.373 ± 0.030 *    +0.857 ± 0.032 *
    galaxies       −0.329 ± 0.028 *    +0.455 ± 0.029 *
    =============  ==================  ==================

Answer: no in the mean, yes on one table. The best of ours has 0.619 ± 0.075 nats more than the best of theirs in the
    mean over the 12 tables, the second 1.64 ± 0.11; but between tables the difference varies much (standard errors
    0.36 and 0.73). By Holm the best is better on 5 tables and worse on galaxies, to an autoregressive spline flow of
    nflows with LU layers, which is near ours in make. A fit of spline-maf takes two thirds of the processor time of
    zuko's NSF. Missed: affine builders lose to a mixture of ten on some tables, and every one to the full Gaussian
    where the data is one; real-nvp, which has no LU layers, falls more than a nat behind glow on oil-flow and
    protein. Three seeds were not run. Some of these tables (breast-cancer, wine-red, concrete, oil-flow, tails,
    power-plant) were looked at, one seed of them, when the defaults were chosen.
"""
