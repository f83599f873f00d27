"""log p(x) = ELBO + KL(q ‖ posterior): what does each q pay, and what does learning from the bound cost?

In short: 1.5 of the encoder's 1.51 nats are amortisation. Decoders that learn from the bound end 2.91 ± 0.22 nats below
    the same decoders that learn from the likelihood: of these fits.

Formula: log p(x) = ELBO(x) + KL(q(z|x) ‖ p(z|x))

Claim: log p(x) does not depend on q; what the ELBO lacks is exactly the divergence of q from the posterior, in PPCA in
    closed form and in a VAE by quadrature. Most of a trained VAE's divergence is the encoder's (amortisation), little
    is the Gaussian family's. And arg max ELBO ≠ arg max likelihood: a decoder trained by the exact likelihood
    (quadrature over its 2 latents) has a higher log p(x) than the same decoder trained by the ELBO, and a lower ELBO.

Paper: lecture 3, derivations of the ELBO; Cremer, Li & Duvenaud 2018 for the two gaps; Turner & Sahani 2011 for the
    bias of learning from a bound.

Command: python -m studies.decomposition

Run time: 3 minutes on one core a seed (--quick: 20 seconds)

Expected: on digits, nats per point ± standard error; the mean over seeds 0, 1 and 2 (--seeds 0 1 2).

    =========================  ==============================  =======================
    q(z|x), 60 test images     KL(q ‖ posterior)               below the best Gaussian
    =========================  ==============================  =======================
    the encoder's              1.511 ± 0.400                   1.495 ± 0.400
    best, latents independent  0.085 ± 0.036                   0.068 ± 0.036
    best Gaussian              0.017 ± 0.005                   0
    =========================  ==============================  =======================

    =========================  ===============  ===============  ===============  ==============
    decoder trained by         log p(x)         ELBO             log p(x) gained  ELBO changed
    =========================  ===============  ===============  ===============  ==============
    ELBO                       −133.30 ± 1.42   −135.51 ± 1.60
    IWAE, 16 draws             −131.41 ± 1.39   −137.34 ± 1.82   1.88 ± 0.35      −1.83 ± 1.01
    exact likelihood           −130.39 ± 1.35   −138.34 ± 1.88   2.91 ± 0.38      −2.83 ± 1.10
    =========================  ===============  ===============  ===============  ==============

Answer: confirmed. What the ELBO lacks is KL(q ‖ posterior) at every point and every t, to rounding. On test images 1.5
    of the encoder's 1.51 nats are amortisation: the best Gaussian is 0.017 from the posterior. The bound also bends the
    decoder towards posteriors that its encoder can follow: trained without it, these decoders are 2.91 nats better in
    the mean (± 0.38 over test images, by Holm), and the three objectives' ELBOs come in the reverse order of their
    likelihoods. How much better varies from seed to seed, 0.8, 5.9 and 2.0 nats, and with seed 1 the ELBO is higher
    too: of decoders trained anew three seeds prove neither.
"""
