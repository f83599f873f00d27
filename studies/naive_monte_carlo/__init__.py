"""How many draws from the prior does log p(x) take, and what does the lecture's average of log p(x|z) converge to?

In short: The average of log p(x|z) never gets there, 32.6 nats off at ten latents. The log-mean-exp does, with draws
    that grow as exp(KL) to the power 1.08 ± 0.04.

Formula: K ≈ exp(KL(p(z|x) ‖ p(z)))

Claim: the average of log p(x|z) over draws from the prior is not log p(x) at any number of draws K: it falls short by
    KL(p(z) ‖ p(z|x)). The log-mean-exp converges, but only with K of the order of exp(KL(p(z|x) ‖ p(z))), which grows
    exponentially with the number of latents. An encoder's draws, weighted, need about exp(KL(p(z|x) ‖ q(z|x))).

Paper: Chatterjee & Diaconis 2018 (the sample size required in importance sampling).

Command: python -m studies.naive_monte_carlo

Run time: 35 seconds on one core (--quick: 10 seconds)

Expected: seed 0, means ± standard errors over 256 points, nats; K is the number of draws to within 0.5 nats.

    =======  ================  =====================  ================  =============  =======  ==========
    latents  KL(post ‖ prior)  the average misses     KL(prior ‖ post)  K, prior       exp(KL)  K, encoder
    =======  ================  =====================  ================  =============  =======  ==========
    1        0.80              3.18 ± 0.18            3.17              6 ± 2          2        ≤ 2
    2        1.46              6.43 ± 0.28            6.44              14 ± 4         4        ≤ 2
    4        3.01              13.25 ± 0.41           13.27             74 ± 19        20       ≤ 2
    6        4.37              18.92 ± 0.48           18.93             279 ± 145      79       ≤ 2
    8        5.92              26.17 ± 0.63           26.17             1,458 ± 392    373      ≤ 2
    10       7.37              32.56 ± 0.64           32.57             7,755 ± 1,846  1,594    ≤ 2
    =======  ================  =====================  ================  =============  =======  ==========

    Draws needed from the prior grow as exp(KL) to the power 1.08 ± 0.04 (within 0.25 of 1 is required). With exp(KL) of
    them log p(x) is missed by 1.14 to 1.90 nats. 128 draws of the encoder miss 0.023 nats at most.

Answer: the average of log p(x|z) stays KL(prior ‖ posterior) below log p(x), from two draws to 2,048: 32.6 nats at ten
    latents. The log-mean-exp gets there, at a price that grows fivefold with every two latents; in units of exp(KL) the
    price is the same for all, a shortfall of 1 to 2 nats at K = exp(KL). That the power is a little above 1 is
    what fluctuations of the log-weights, which grow as the square root of the KL, add. An encoder that is 0.13 nats off
    for each pair of latents needs two draws where the prior needs thousands.
"""
