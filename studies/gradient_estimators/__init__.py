"""Which estimator of a bound's gradient is unbiased, which is quiet, and what does the lecture's wrong one learn?

In short: all but the wrong one and one more are unbiased. Near the posterior signal to noise goes as the theorems
    say; at ten times the distance the doubly reparametrised encoder's falls with K, though three seeds do not prove
    it.

Formula: SNR ∝ K^(−½) encoder,  SNR ∝ K^½ decoder

Claim: moving ∇φ inside E_q as if q did not depend on φ leaves only the gradient of the KL term: the encoder collapses
    onto the prior. Score-function and reparametrised estimators are unbiased and differ in variance; two of them are
    exact where q is the posterior. With K draws in the importance-weighted bound, the signal-to-noise ratio of the
    encoder's gradient falls as K^(−1/2) while that of the decoder's grows as K^(1/2); doubly reparametrised, both grow.

Paper: Rainforth et al. 2018 (tighter bounds are not necessarily better); Tucker et al. 2019 (doubly reparameterized);
    Roeder et al. 2017 (sticking the landing).

Command: python -m studies.gradient_estimators

Run time: 75 seconds on one core (--quick: 10 seconds)

Expected: powers of K in the signal-to-noise ratio for K ≥ 16, mean ± standard error over seeds 0, 1, 2, whose encoders
    are 0.01 or 0.1 (standard deviation, each parameter) from the posterior; ± 0.1 is required at 0.01.

    ==============================  ================  ======  ===========
    ..                              at 0.01           at 0.1  the theorem
    ==============================  ================  ======  ===========
    importance weighted, encoder    −0.498 ± 0.005    −0.296  −½
    importance weighted, decoder    0.498 ± 0.001     0.273   ½
    doubly reparametrised, encoder  0.493 ± 0.009     −0.177  ½
    doubly reparametrised, decoder  0.504 ± 0.001     0.268   ½
    ==============================  ================  ======  ===========

    Variance of the encoder's gradient at 0.1, two draws: score function 3.64e+03, leave-one-out 220, reparametrised
    11.4, analytic KL 6.34, sticking the landing 0.729. Largest bias of an unbiased estimator: 2.1 of its errors. The
    wrong gradient is that of the KL term to 3e-15 and off by 1.634 times the right one at 0.1; the encoder that it
    trains ends 3.90 nats below log p(x).

Answer: every estimator that should be unbiased is. The wrong gradient has no noise at all and leads to the prior, where
    the gap is KL(prior ‖ posterior). Sticking the landing and leave-one-out lose all noise at the posterior, so that
    training by them closes the gap to rounding, while the reparametrised one hovers near 0.02 nats. The powers of K are
    those of the papers near the posterior, where these measured them. At ten times the distance they are not reached by
    K = 256: the encoder's ratio then falls with K, doubly reparametrised too. And sticking the landing with weights,
    which looks like the best of all by its noise, is off by four times the signal.
"""
