"""A flow is a VAE with delta encoder and decoder: in value, in gradient, along training (lecture's last theorem).

The two sides are computed apart. The flow's side sums the analytic log-determinants of its layers. The VAE's side takes
z = f(x) from the encoder, and its log-ratio from the decoder alone: −log|det ∂g/∂z|, by differentiating ``generate``.

Beside the theorem, ``FlowVAE`` itself: it evaluates what the flow evaluates, in the same order, so that value, gradient
and a whole fit are the flow's to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from bridge import FlowVAE
from density import Training
from flows import Flow
from lvm.evidence import gap
from tests.cases import flows as cases
from tests.equivalence.examples import FEATURES, FLOWS, random_flow, randomise

Record = Callable[[str, float, float], None]

# Both sides do some hundred operations on numbers of size 1 to 100, through matrices of condition ≤ 100: 1e-12 is
# some 50 roundings of 2.2e-16 in the worst of them. Steps of Adam divide gradients by their size and so magnify what is
# small: 1e-9 is the rounding of the gradients, 1e-12, over fifty such steps.
VALUE, GRADIENT, WEIGHTS = 1e-12, 1e-10, 1e-9
# nflows inverts a spline by the root of a quadratic whose coefficients cancel: that costs up to five of sixteen digits.
BORROWED = {"spline by nflows": 1e3}


def entry(theorem: str, name: str, tolerance: float) -> tuple[str, float]:
    """Name and tolerance of a measurement: borrowed transforms are reported apart."""
    return (f"{theorem} ({name})", BORROWED[name] * tolerance) if name in BORROWED else (theorem, tolerance)


def elbo_from_the_decoder(vae: FlowVAE, x: Tensor) -> Tensor:
    """log p(z) − log|det ∂g/∂z| at z = f(x), the Jacobian of ``generate`` by autograd, differentiable again."""
    z = vae.link.infer(x)[0].squeeze(0)
    if not z.requires_grad:
        z = z.requires_grad_()
    generated = vae.link.generate(z)
    rows = [
        torch.autograd.grad(generated[:, i].sum(), z, create_graph=True, retain_graph=True)[0] for i in range(FEATURES)
    ]
    return vae.prior.log_prob(z) - torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet


def points(generator: Generator, n: int = 32) -> Tensor:
    return torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)


def relative(error: Tensor, scale: Tensor) -> float:
    return float((error.detach().abs() / scale.detach().abs().clamp_min(1)).max())


@pytest.mark.parametrize("name", FLOWS)
def test_elbo_is_the_log_likelihood(name: str, generator: Generator, record_measurement: Record) -> None:
    flow = random_flow(name, generator)
    vae = FlowVAE(flow)
    x = points(generator)
    log_likelihood = flow.log_prob(x).detach()
    elbo = elbo_from_the_decoder(vae, x)
    assert log_likelihood.std() > 0.1  # the points differ, so that an error would show
    theorem, tolerance = entry("1  ELBO = log-likelihood", name, VALUE)
    record_measurement(theorem, relative(elbo - log_likelihood, log_likelihood), tolerance)
    theorem, tolerance = entry("1b DeltaLink's log-weight = both", name, VALUE)
    record_measurement(
        theorem,
        max(relative(vae.log_weights(x, 3) - side, log_likelihood) for side in (elbo, log_likelihood)),
        tolerance,
    )
    report = gap(vae, x, draws=4)
    assert report.difference.value.abs().max() <= VALUE * log_likelihood.abs().max()


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_equal_in_every_parameter(name: str, generator: Generator, record_measurement: Record) -> None:
    flow = random_flow(name, generator)
    vae = FlowVAE(flow)
    x = points(generator)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    likelihood = torch.autograd.grad(flow.log_prob(x).mean(), parameters)
    decoder = torch.autograd.grad(elbo_from_the_decoder(vae, x).mean(), parameters)
    shipped = torch.autograd.grad(vae.elbo(x).mean(), parameters)
    scale = max(float(gradient.abs().max()) for gradient in likelihood)
    for of_likelihood, of_decoder, of_shipped in zip(likelihood, decoder, shipped, strict=True):
        assert of_likelihood.abs().max() > 1e-6 * scale
        error = max(float((other - of_likelihood).abs().max() / scale) for other in (of_decoder, of_shipped))
        theorem, tolerance = entry("2  gradients of ELBO and log-likelihood", name, GRADIENT)
        record_measurement(theorem, error, tolerance)


@pytest.mark.parametrize("name", FLOWS)
def test_training_follows_the_same_path(name: str, generator: Generator, record_measurement: Record) -> None:
    """Fifty steps of Adam on either objective, the ELBO's log-ratio from the decoder's Jacobian."""
    by_likelihood = random_flow(name, generator)
    by_elbo = deepcopy(by_likelihood)
    start = deepcopy(by_likelihood.state_dict())
    x = points(generator, 64)
    vae = FlowVAE(by_elbo)
    objectives: list[tuple[torch.nn.Module, Callable[[Tensor], Tensor]]] = [
        (by_likelihood, by_likelihood.log_prob),
        (by_elbo, lambda batch: elbo_from_the_decoder(vae, batch)),
    ]
    for module, objective in objectives:
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for step in range(50):
            optimiser.zero_grad()
            (-objective(x[(step % 4) * 16 :][:16]).mean()).backward()
            optimiser.step()
    moved = max(
        float((a - start[k]).abs().max()) for k, a in by_likelihood.state_dict().items() if a.is_floating_point()
    )
    assert moved > 0.05  # they did train
    error = max(
        float((a - b).detach().abs().max())
        for a, b in zip(by_likelihood.parameters(), by_elbo.parameters(), strict=True)
    )
    theorem, tolerance = entry("3  weights after 50 steps", name, WEIGHTS)
    record_measurement(theorem, error, tolerance)


SAME_BITS: dict[str, Callable[[Generator], Flow]] = {
    **FLOWS,
    **{name: (lambda _, build=build: build()) for name, build in cases.FLOWS.items()},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 5), marks=pytest.mark.slow)], ids=["2", "3 more"])
@pytest.mark.parametrize("name", SAME_BITS)
def test_a_flow_and_its_vae_are_one_computation(name: str, seeds: range, dtype: torch.dtype) -> None:
    """Five seeds: values, gradients and all weights after a fit of fifty steps are equal to the last bit.

    One seed and ten steps of conditional flows, whose operations are the same but for the context.
    """
    conditional = SAME_BITS[name](Generator().manual_seed(0)).context_features > 0
    for seed in seeds[:1] if conditional else seeds:
        generator = Generator().manual_seed(seed)
        flow = SAME_BITS[name](generator).to(dtype)
        randomise(flow, generator, 0.1)
        vae = FlowVAE(deepcopy(flow))
        x = torch.randn(100, flow.features, generator=generator, dtype=torch.float64)
        x = (x + 0.3 * x.flip(-1).square()).to(dtype)
        width = flow.context_features
        context = torch.randn(100, width, generator=generator, dtype=torch.float64).to(dtype) if width else None

        likelihood = flow.log_prob(x, context)
        elbo = vae.elbo(x, context=context, draws=3)
        assert elbo.equal(likelihood)
        assert vae.log_weights(x, 3, context=context).equal(likelihood.expand(3, -1))
        (-likelihood.mean()).backward()
        (-elbo.mean()).backward()
        gradients = [[p.grad for p in model.parameters() if p.grad is not None] for model in (flow, vae)]
        assert gradients[0]
        for of_flow, of_vae in zip(*gradients, strict=True):
            assert of_vae.equal(of_flow)

        training = Training(epochs=1 if conditional else 5, batch_size=9, validation=0.1)
        by_likelihood, by_elbo = (
            model.fit(x, training, context=context, generator=Generator().manual_seed(1)) for model in (flow, vae)
        )
        assert by_elbo.objective == by_likelihood.objective
        for of_flow, of_vae in zip(flow.parameters(), vae.parameters(), strict=True):
            assert of_vae.equal(of_flow)
