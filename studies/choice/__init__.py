"""How many components, how many latents: does held-out evidence, BIC or the ELBO pick the true number?

Claim: held-out evidence, compared row by row, tells too few from enough at once, and enough from too many hardly: what
    is too much costs a hundredth of a nat. So the least number within a standard error of the best is picked, or BIC's.
    The ELBO adds a gap to this that may grow with the number.

Paper: Schwarz 1978 (BIC), Breiman et al. 1984 (the rule of one standard error), Minka 2000 (latents of PPCA);
    velocities of 82 galaxies of Roeder 1990, oil flow of Bishop & James 1993.

Command: python -m studies.choice (--data oil-flow --data-directory DIR)

Run time: 230 seconds of CPU in one thread, 4 with --quick.

Expected: seed 0, 20 simulated sets of 400 rows to fit and 400 to judge by; the share of sets in which the true number
    is picked, with its binomial error, and the mean number. The evidence of mixtures and of PPCA is exact, that of the
    VAE importance-weighted with 200 draws.

    =====================  =====  ===================  =======================  ===================  ===================
    number of              truth  evidence             least within an error    BIC                  ELBO
    =====================  =====  ===================  =======================  ===================  ===================
    mixture: components    4      1.000 ± 0.044, 4.00  1.000 ± 0.044, 4.00      1.000 ± 0.044, 4.00  = evidence
    PPCA: latents          3      0.800 ± 0.089, 3.40  1.000 ± 0.044, 3.00      1.000 ± 0.044, 3.00  = evidence
    linear VAE: latents    3      0.800 ± 0.089, 3.35  1.000 ± 0.044, 3.00      1.000 ± 0.044, 3.00  0.800 ± 0.089, 3.35
    VAE: latents           2      0.300 ± 0.099, 3.00  0.40 ± 0.10, 2.90        0.750 ± 0.095, 2.15  0.300 ± 0.099, 3.10
    =====================  =====  ===================  =======================  ===================  ===================

    Velocities of galaxies, ten folds: evidence picks 4 components, 3 within an error, BIC 3; fewer are behind by
    0.35 ± 0.11 nats (1) and 0.199 ± 0.091 (2), 3 by 0.08 ± 0.13, and 5 by 0.12 ± 0.14.

Answer: where the model is right and its fit is a maximum (mixtures, PPCA, the linear VAE), the least number within a
    paired standard error of the best, and BIC, picked the truth in 20 of 20 sets, and the best alone in 16 of PPCA's:
    one more latent than needed changes nothing that 400 rows could show. The ELBO of the linear VAE picked as its
    evidence did. Latents of a nonlinear VAE are another matter: with more than the two that made the rows it predicts
    held-out rows better, since two are folded and hard to fit, so that evidence and ELBO pick three on average, and
    that is no mistake about prediction; BIC, which counts weights of the network, picks two in 15 of 20 sets, nine
    times where the evidence does not and never the other way round. The velocities say 3 or 4. On oil flow nothing
    says stop: PPCA takes all 11 latents, by every criterion, mixtures 13 components by evidence and BIC the 14 that
    were the most asked for, but the VAE 3 of 4 by all: the rows lie near a curved surface.
"""
