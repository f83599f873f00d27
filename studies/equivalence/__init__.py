"""Is maximising a flow's likelihood the same as maximising the ELBO of a VAE with delta encoder and decoder?

In short: Yes: value and gradient agree to rounding, and widths σ in place of the deltas cost σ².

Formula: ELBO(x) = log p(z) − log|det ∂g/∂z| = log p(x),  z = f(x)

Claim: the lecture's theorem. With q(z|x) = δ(z − f(x)) and p(x|z) = δ(x − g(z)), g = f⁻¹, the ELBO is log p(x): as a
    value, as a gradient, along training. The deltas are limits: with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ),
    J = ∂f/∂x, the ELBO and its gradient tend to those of log p(x) as σ².

Paper: Nielsen et al. 2020 (SurVAE Flows), section 2.

Command: python -m studies.equivalence

Run time: 3 minutes on one core (--quick: 15 seconds)

Expected: the worst of seeds 0, 1, 2. Value and gradient are relative to the largest; "weights" are the largest
    difference from those of training by log p(x) after 200 steps of Adam, of training by the ELBO and, to compare with,
    by log p(x) with the rows in another order; powers of σ are means over seeds. Required: 1e-12, 1e-10, no more than
    100 times what the order of rows does, 2 ± 0.05.

    =======================  ======  ========  =============  ===========  ======  ===========
    flow                     value   gradient  weights, ELBO  other order  power   of gradient
    =======================  ======  ========  =============  ===========  ======  ===========
    LU-linear                2e-16   1e-15     3e-15          3e-15        2.0000  2.0000
    affine coupling          3e-17   8e-16     5e-08          2e-09        2.0009  2.0016
    LU + coupling            1e-16   1e-15     8e-07          3e-06        1.9996  1.9986
    autoregressive           2e-16   6e-16     5e-08          1e-07        1.9998  1.9992
    inverse autoregressive   1e-16   3e-15     7e-07          1e-07        1.9993  1.9983
    =======================  ======  ========  =============  ===========  ======  ===========

    What rounding does to weights after a long training is of that size, and another number on another machine.

Answer: yes. Value and gradient agree to rounding, and so do trainings for a hundred steps. Then Adam amplifies
    rounding, by as much where nothing but the order of rows differs, and ends within 1e-6 while weights move by up to
    2. With Gaussians of width 0.1 for the deltas the weights part ways at once, by 0.4 or more in flows that bend.
    Value and gradient of the ELBO tend to those of log p(x) as σ², for five architectures, from σ = 0.001 to 0.03.
"""
