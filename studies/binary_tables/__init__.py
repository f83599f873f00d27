"""What is log p of binary tables worth, by an exact mixture, by VAEs, and by a VAE that is trained as a mixture?

In short: trained as the mixture that it is at nodes of the prior, a decoder is on six published tables a higher mixture
    than its ELBO's twin, by 0.049 ± 0.006 to 1.35 ± 0.17 nats, of one seed. nltcs has −5.989, exactly.

Formula: log p(x) = log (1/K) Σₖ p(x|zₖ)

Claim: a decoder at nodes of the prior is a mixture whose log p(x) is exact, and can be trained as that mixture in place
    of the ELBO. It is then a higher mixture than the decoder of the same VAE trained by its ELBO.

Paper: Correia et al. 2023 (continuous mixtures), Burda et al. 2016 (IWAE); tables and splits of Lowd & Davis 2010, Van
    Haaren & Davis 2012, Larochelle & Murray 2011.

Command: python -m studies.binary_tables (--data debd --data-directory DIR: six tables that others have numbers for)

Run time: 50 seconds of CPU in one thread; --data debd, six minutes for its fits. --quick takes 12 seconds.

Expected: seed 0; 12 made-up questions, two traits; mean log p of 2,000 test rows in nats, and less that of the exact
    Bernoulli mixture of 8 components, paired.

    ========================  ================  ================  ================
    model                     log p(x)          less the mixture  between, at 95 %
    ========================  ================  ================  ================
    Bernoulli mixture         −5.384 ± 0.039
    VAE, ELBO                 ≥ −5.373 ± 0.038  0.0115 ± 0.0058   −5.373, −5.364
    that VAE as a mixture     −5.372 ± 0.038    0.0121 ± 0.0058
    VAE trained as a mixture  −5.374 ± 0.040    0.0097 ± 0.0050
    VAE, IWAE                 ≥ −5.376 ± 0.039  0.0079 ± 0.0052   −5.379, −5.368
    VAE, flow prior           ≥ −5.372 ± 0.039  0.0121 ± 0.0052   −5.374, −5.365
    VAE, two levels           ≥ −5.374 ± 0.039  0.0102 ± 0.0052   −5.375, −5.367
    what made them up         −5.358            0.0259 ± 0.0055
    ========================  ================  ================  ================

    Trained as a mixture, the decoder has −0.0025 ± 0.0045 nats more than its ELBO's twin, both compiled: open.

Answer: open on made-up answers, confirmed on real tables. Two traits behind twelve questions are found by every VAE,
    however trained: all end 0.014 to 0.018 nats below what made the table up. On six real tables (eight latents, 2,000
    steps, one seed) the decoder that is trained as a mixture of 512 nodes is a higher mixture than its ELBO's twin, at
    4,096 nodes each: by 0.049 ± 0.006 nats on nltcs, 0.198 ± 0.018 on plants, 0.327 ± 0.018 on jester, 0.654 ± 0.041 on
    accidents, 0.970 ± 0.017 on mushrooms and 1.35 ± 0.17 on dna. nltcs has −5.989 ± 0.053, exactly; published are
    −6.110 (LearnSPN), −6.020 (ID-SPN), −6.011 (RAT-SPN) and −5.99 (CM-TPM), all recalled. VAEs trained by the
    importance-weighted bound have bounds that are higher still on plants, ≥ −12.516, jester, ≥ −51.706, accidents, ≥
    −32.193, and mushrooms, ≥ −12.553. So jester is above ID-SPN's −52.858 and plants about at its −12.535, while
    accidents, mushrooms and dna (−94.703, exactly) stay 5, 3 and 13 nats below the best of others. Two levels of
    latents, of which alone the KL term is warmed up, have higher bounds than the ELBO's single level on all six, a flow
    as prior on plants and mushrooms.
"""
