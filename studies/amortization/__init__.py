"""Is the gap of a VAE's ELBO the fault of q's family, or of the one encoder that must serve every image?

In short: It is both. A larger encoder narrows the amortisation gap; a larger decoder widens both, against the claim.

Formula: log p(x) − ELBO = (log p(x) − L^∗) + (L^∗ − ELBO)

Claim: log p(x) − ELBO falls into an approximation gap, log p(x) − L*, and an amortisation gap, L* − ELBO, where L* is
    the ELBO of the best q of the family for each image by itself. A larger encoder narrows the amortisation gap, a
    larger decoder the approximation gap, a flow as posterior the approximation gap.

Paper: Cremer, Li & Duvenaud 2018 (Inference Suboptimality in Variational Autoencoders). Published for binarised MNIST,
    recalled and not re-read: log p(x) −89.80, approximation 1.43, amortisation 1.34, gap 2.77 nats (Gaussian q, 50
    latents); Fashion-MNIST 3.06, 4.22, 7.28.

Command: python -m studies.amortization

Run time: 6 CPU minutes a seed (--quick: half a minute)

Expected: on binarised digits, seeds 0 to 2 with 50 test images each, nats ± the larger standard error, over images or
    between seeds.

    ==============  ==================  =================  =============
    model           approximation gap   amortisation gap   whole gap
    ==============  ==================  =================  =============
    baseline        0.26 ± 0.01         0.29 ± 0.04        0.55 ± 0.04
    small encoder   0.20 ± 0.02         0.55 ± 0.08        0.75 ± 0.08
    large encoder   0.31 ± 0.02         0.21 ± 0.02        0.52 ± 0.03
    small decoder   0.17 ± 0.03         0.03 ± 0.01        0.20 ± 0.03
    large decoder   0.35 ± 0.02         0.58 ± 0.06        0.93 ± 0.07
    flow posterior  0.05 ± 0.00         0.48 ± 0.04        0.54 ± 0.04
    ==============  ==================  =================  =============

Answer: confirmed of these fits for the encoder: the larger, the smaller the amortisation gap. Not confirmed for the
    decoder, of whose fits the opposite holds: the larger one has posteriors that are further from a Gaussian and harder
    to serve by one network, and both gaps grow. Confirmed for the flow, of models trained anew too, which three seeds
    do not prove of the others (by Holm at 5 % over all eight claims): as posterior it leaves 0.05 of 0.26 nats of the
    approximation gap; but what it gains there it loses as amortisation gap on test images, so that the whole gap is no
    narrower (0.54 against 0.55; on training images 0.44 ± 0.03 against 0.50 ± 0.03). Part of a larger encoder's gain,
    too, comes back as approximation gap, since the decoder then fits what the encoder can follow less closely.

    On binarised MNIST (--data mnist-binary, seed 0, 50 test images, three models, 20 epochs, also committed) the
    baseline of the published size has approximation 1.94 ± 0.04 and amortisation 2.56 ± 0.21 nats at log p(x) ≥ −95.9
    ± 3.5: the published 1.43, 1.34 and −89.80 are missed, as 20 epochs are a small part of their training. The flow
    posterior halves the approximation gap (0.95 ± 0.02), more than was published, and widens the other (3.11 ± 0.21).
"""
