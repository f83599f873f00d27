"""Which of the models that a file of yours names is best, how sure is that, and is what they call exact exact?

In short: On rings zuko's spline flow is best of six models, by 0.107 nats or more over all whose log p(x) is known: of
    these fits.

Claim: anybody's models can be put on one scale of log p(x): each number with its kind (exact, bound, estimate) and its
    interval, each two models compared point by point, and every verdict by Holm's procedure over all of them, of these
    fits and, over several seeds, of models that are fitted anew. The file of the expected numbers names six models: of
    this library, zuko, nflows, scikit-learn, and of plain modules.

Paper: Holm 1979; Satterthwaite 1946 and Banerjee 1960 for the error over seeds; Stein 1972 for one of the laws that
    densities are tried by.

Command: python -m studies.judge FILE.py --data mine.csv --seeds 0 1 2 (a file says which models in to_fit and fitted,
    see docs/judge.md, and is run as the code that it is; without options: the six models, of which one needs pip
    install zuko, and sits out without it)

Run time: 8 minutes on one core a seed (--quick: half a minute)

Expected: on rings in the plane, whose density has −2.6489 nats in expectation; seed 0, nats per point ± standard error
    over 1,000 test points; in brackets the mean over seeds 0 and 1.

    =======================  ==========================  ==================  =====================
    model                    log p(x)                    gap of the ELBO     behind the first
    =======================  ==========================  ==================  =====================
    NSF of zuko              −2.839 ± 0.026  (−2.856)    no encoder
    spline flow              −3.006 ± 0.023  (−3.000)    no encoder          0.167 ± 0.020
    mixture of scikit-learn  −3.044 ± 0.027  (−3.022)    0                   0.205 ± 0.023
    MAF of nflows            −3.491 ± 0.014  (−3.506)    no encoder          0.652 ± 0.023
    VAE of plain modules     −3.660 ± 0.019  (−3.651)    0.0269 ± 0.0010     0.821 ± 0.024
    VAE, 4 latents           ≥ −3.711 ± 0.022            ≥ 0.00316           at most 0.872 ± 0.025
    =======================  ==========================  ==================  =====================

    The densities' masses are 0.9998 ± 0.005, 1.0001, 0.9983 ± 0.009 and 1.0000 by quadrature.

Answer: of these fits zuko's spline flow is proven better than all whose log p(x) is known, by 0.107 nats or more. Two
    seeds prove little of models that are fitted anew: that it is better than the affine flow of nflows, and our spline
    flow, which is of its size and kind, better than the VAE of plain modules; none of the flows had done improving
    after 2,000 steps. The VAE with 4 latents is known from below: nothing is proven to be better than it. What the
    three libraries' densities and ours say of log p(x) is exact, by every law that applies.
"""
