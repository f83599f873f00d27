"""Do the builders' defaults lose anything to flows of other libraries, on tables that neither side was tuned for?

In short: Not with the better builder: over three seeds better on 5 of 12 tables and worse on none. Of these fits single
    builders lose to simple models 12 times in 120.

Claim: a comparison of model families must not be decided by defaults. On each side the builder is chosen by held-out
    rows, on the same training rows and budget of steps; zuko's NSF is trained by early stopping, too, as its users do.
    Tables are real ones without atoms, and toys: rings, groups with heavy tails, a nearly singular Gaussian.

Paper: Durkan et al. 2019 (neural spline flows); Holm 1979 for the verdicts.

Command: python -m studies.defaults --data-directory DIR --tables digits breast-cancer wine-red boston concrete
    power-plant protein oil-flow galaxies rings tails near-singular (without options: the shipped tables; zuko's
    flows need pip install zuko, or --peers with those of nflows alone)

Run time: 70 minutes on one core a seed, all tables (--quick: 20 seconds)

Expected: three seeds. Ours minus theirs, paired over test rows, nats; * by Holm at 5 %, over seeds too.

    =============  ==================  ==================
    table          best of each side   second best
    =============  ==================  ==================
    breast-cancer  +4.75 ± 0.55 *      +11.01 ± 1.53 *
    boston         +0.08 ± 0.41        +1.19 ± 1.82
    concrete       +0.03 ± 0.32        −0.04 ± 0.24
    digits         −0.30 ± 0.40        +3.95 ± 0.94
    wine-red       +0.06 ± 0.21        +0.33 ± 0.32
    oil-flow       +1.26 ± 0.15 *      +2.94 ± 0.18 *
    near-singular  +0.729 ± 0.070 *    +2.38 ± 0.13 *
    rings          +0.082 ± 0.059      −0.085 ± 0.018
    power-plant    −0.039 ± 0.034      −0.014 ± 0.031
    tails          +0.051 ± 0.047      +0.15 ± 0.11
    protein        +2.073 ± 0.041 *    +1.46 ± 0.12 *
    galaxies       +1.406 ± 0.076 *    +2.008 ± 0.042 *
    =============  ==================  ==================

Answer: not with the better builder. The best of ours has 0.849 ± 0.075 nats more than the best of theirs in the mean
    over the 12 tables, and by Holm over seeds it is better on 5 tables and worse on none; so is the second best, 2.11 ±
    0.22. Of these fits they are better on 6 tables each, the second best worse on rings. Between tables the difference
    varies much (standard errors 0.41 and 0.89). A fit of nsf or spline-maf takes 25 or 21 seconds of processor time in
    the mean, of zuko's NSF 29. Missed: better on half of the tables; no loss to full Gaussian or mixture in 120
    comparisons is proven over seeds, but of these fits 12 are: to the Gaussian where the data is one, to the mixture on
    tails, concrete and oil-flow, four of them of real-nvp, which has no LU layers. real-nvp falls 1.97 nats behind
    glow's kind on oil-flow, spline-maf 1.08 behind nsf on protein. A fifth to two fifths of the fits say that they were
    still climbing at 6,000 steps: with twice as many spline-maf has 0.145 ± 0.013 more in the mean and less on no table
    (seed 0, an arm). Of 21 other settings on concrete, wine-red and oil-flow (seed 0) the best are averaged weights,
    +0.156 ± 0.044, and decay, +0.116 ± 0.066; rotations, no LU, dropout, a slow rate, a bound of 3 and a spline of
    each marginal first lose 0.2 to 1.1. Some of these tables (breast-cancer, wine-red, boston, concrete, oil-flow,
    tails, near-singular, rings, power-plant, galaxies) were looked at, by held-out rows of other seeds or one of
    these, when the defaults were chosen.
"""
