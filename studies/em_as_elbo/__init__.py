"""Is EM coordinate ascent on the ELBO, and how fast is it beside gradient ascent and the closed form?

In short: Yes, half step by half step. EM is fast where data tell their component, and slow where they do not: 114
    passes to L-BFGS's 17.

Formula: log p(x|θ) = ELBO(q, θ) + KL(q ‖ p(z|x, θ))

Claim: the E-step makes q the posterior, so that the ELBO touches log p(x); the M-step raises the ELBO at fixed q and
    opens a gap, KL(old posterior ‖ new posterior); log p(x) never falls. EM is fast where knowing z would
    tell little more of the parameters, and slow in mixtures that overlap and in PPCA with little noise. There gradient
    ascent with curvature needs fewer passes over the data.

Paper: Neal & Hinton 1998 (coordinate ascent); Salakhutdinov, Roweis & Ghahramani 2003 (EM and gradients); Petersen,
    Winther & Hansen 2005 (low noise); Liu, Rubin & Wu 1998 (expanded EM).

Command: python -m studies.em_as_elbo

Run time: 2 minutes on one core (--quick: 15 seconds)

Expected: passes over 1,000 points, and CPU milliseconds, to within 0.0001 nats a point of the maximum, medians over
    seeds 0 to 4. An evaluation of value and gradient is a pass. Milliseconds are those of the committed rows' machine.

    =========================  ==============  ===========  =============  ==============  ===========
    ..                         EM              expanded EM  L-BFGS         Adam            closed form
    =========================  ==============  ===========  =============  ==============  ===========
    mixture, separated         2 (1.3 ms)                   7 (5.7 ms)     77 (55.2 ms)
    mixture, overlapping       114 (53.5 ms)                17 (14.7 ms)   152 (108.5 ms)
    PPCA, noise variance 1     11 (1.9 ms)     9 (1.7 ms)   24 (25.6 ms)   116 (105.6 ms)  1 (0.7 ms)
    PPCA, noise variance 0.01  720 (84.8 ms)   7 (1.2 ms)   80 (90.4 ms)   199 (183.0 ms)  1 (0.7 ms)
    =========================  ==============  ===========  =============  ==============  ===========

    After every E-step the bound is log p(x) to 1e-14 nats, and the gap that an M-step leaves is KL(old ‖ new posterior)
    to the same: 0.001 nats or more after the first of a mixture, 0.79 or more of PPCA. Neither the bound nor log p(x)
    ever falls, to rounding.

Answer: yes, half step by half step, and which method is fast depends on the problem. EM wins where the data say which
    component a point is from, and in PPCA with much noise. Where mixtures overlap it needs seven times the passes of
    L-BFGS and four times its time. In PPCA with little noise it crawls: nine times the passes of L-BFGS, though each
    is so cheap that both take the same time. One change of the M-step, which also fits the latent's covariance, mends
    that: 7 passes instead of 720. The closed form of PPCA costs what a few passes do. Adam at one learning rate for
    all is the slowest everywhere, and in the last case does not settle from every start.
"""
