"""Conditional VAEs against the closed form of the linear one, row by row, by every estimator of the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import FlowVAE, compare, with_flow_decoder, with_flow_prior
from density import (
    ConditionalCategorical,
    ConditionalGaussian,
    GlobalScale,
    Kind,
    LogDensity,
    PerFeatureScale,
    Standardisation,
    Training,
)
from flows import glow, real_nvp
from lvm import VAE
from lvm.evidence import (
    FromPrior,
    LocalFit,
    annealed,
    evidence,
    gap,
    importance,
    kl_parts,
    prior_average,
    prior_importance,
    quadrature,
    sandwich,
)
from lvm.vae import gradients
from tests.cases.bounds import BOUNDS, CONTEXT, FEATURES, by_scipy_given
from tests.laws.transforms import randomise

LINEAR = BOUNDS["VAE, linear, context"]
SIGMAS = 4.5


def linear(generator: Generator, n: int) -> tuple[VAE, Tensor, Tensor, Tensor]:
    """A model whose parts are all linear, points of it, their contexts and log p(x|c) by scipy."""
    model = LINEAR.make(generator)
    assert isinstance(model, VAE)
    context = LINEAR.given(model, generator, n)["context"]
    with torch.no_grad():
        x = model.sample(1, context=context, generator=generator).squeeze(0)
    return model, x, context, by_scipy_given(model, x, context)


ESTIMATORS: dict[str, Callable[..., LogDensity]] = {
    "importance": partial(importance, draws=2000),
    "smoothed": partial(importance, draws=2000, smooth=True),
    "prior": partial(prior_importance, draws=4000),
    "annealed": partial(annealed, steps=20, chains=8),
    "annealed from the prior": partial(annealed, steps=20, chains=8, start=FromPrior()),
    "quadrature": quadrature,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_agree_with_the_closed_form(name: str, generator: Generator) -> None:
    """Prior p(z|c), decoder and encoder read what a linear embedding makes of c; rows are of many blocks."""
    model, x, context, log_p = linear(generator, 70 if name in ("importance", "prior") else 10)
    claim = ESTIMATORS[name](model, x, context=context, generator=generator)
    if claim.kind is Kind.EXACT:
        torch.testing.assert_close(claim.value, log_p, rtol=0, atol=1e-8)
        return
    assert claim.monte_carlo_error is not None
    error, bias = claim.monte_carlo_error, claim.monte_carlo_error.square()
    assert (error < 0.6).all(), "too noisy to test anything"
    assert ((claim.value - log_p).abs() <= SIGMAS * error + bias + 1e-9).all()
    total = (claim.value + 0.5 * bias - log_p).sum()  # to first order the bias is half the variance
    assert total.abs() <= SIGMAS * error.square().sum().sqrt() + bias.sum()


def test_gap_and_its_parts(generator: Generator) -> None:
    """The best local q is diagonal, the posterior N(m, C) of a linear decoder is not: what is left is known."""
    model, x, context, log_p = linear(generator, 6)
    q = model.encoder
    fit = LocalFit(steps=120, draws=8, progress=False)
    found = gap(model, x, context=context, draws=1000, local=fit, generator=generator)
    assert found.parts is not None
    decoder, prior = model.decoder, model.prior
    assert isinstance(decoder, ConditionalGaussian)
    assert isinstance(prior, ConditionalGaussian)
    assert isinstance(decoder.network, nn.Linear)
    weight = decoder.network.weight.detach()[:, :2]
    sigma, s = decoder.scale.log_std.exp().item(), prior.scale.log_std.exp().item()  # type: ignore[operator, union-attr]
    precision = weight.mT @ weight / sigma**2 + torch.eye(2).double() / s**2
    expected = 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision).logabsdet)
    best, error = found.parts.local_elbo.value, found.parts.local_elbo.monte_carlo_error
    assert error is not None
    assert ((log_p - best - expected).abs() <= SIGMAS * error + fit.tolerance).all()
    # KL(q ‖ posterior) of the encoder, in closed form
    mean, scale = q.at(model._rows(x, context))  # type: ignore[operator]
    seen = model.embedding(context)  # type: ignore[misc]
    shift = (x - decoder.network(torch.cat([torch.zeros(6, 2).double(), seen], -1))) @ weight / sigma**2
    posterior_mean = torch.linalg.solve(precision, (shift + prior.at(seen)[0] / s**2).mT).mT
    distance = mean - posterior_mean
    quadratic = ((distance @ precision) * distance).sum(-1) + (scale.std.square() * precision.diagonal()).sum(-1)
    kl = 0.5 * (quadratic - 2 - torch.linalg.slogdet(precision).logabsdet) - scale.log_det()
    error = found.difference.monte_carlo_error
    assert error is not None
    assert ((found.difference.value - kl.detach()).abs() <= SIGMAS * error + error.square() + 1e-3).all()


def test_the_naive_average_and_the_sandwich(generator: Generator) -> None:
    model, x, context, log_p = linear(generator, 20)
    average = prior_average(model, x, context=context, generator=generator)
    assert (average.value < log_p).all()
    sandwiched = sandwich(model, 20, context=context, steps=20, chains=8, generator=generator)
    truth = by_scipy_given(model, sandwiched.x, context)
    for bound, sign in ((sandwiched.lower, 1), (sandwiched.upper, -1)):
        excess = sign * (bound.value - truth)
        assert excess.mean() <= SIGMAS * excess.std() / math.sqrt(20)
    with pytest.raises(ValueError, match="sandwich expects a context for each of the 20 points; got 3"):
        sandwich(model, 20, context=context[:3], generator=generator)


class Lifted(nn.Module):
    """Rows whose contexts an embedding of their own replaces."""

    def __init__(self, width: int, embedding: nn.Module) -> None:
        super().__init__()
        self.width, self.embedding = width, embedding

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([rows[:, : self.width], self.embedding(rows[:, self.width :])], -1)


@pytest.mark.parametrize(
    "estimator",
    [
        gradients.ScoreFunction(3),
        gradients.LeaveOneOut(3),
        gradients.Reparametrised(3),
        gradients.AnalyticKL(3),
        gradients.StickingTheLanding(3),
        gradients.ImportanceWeighted(3),
        gradients.DoublyReparametrised(3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_shared_embedding_has_the_gradients_of_two(
    estimator: gradients.GradientEstimator, generator: Generator
) -> None:
    """Of the encoder's, whose score some estimators leave out or weigh again, and of the decoder's."""
    base = randomise(VAE.gaussian(3, 2, hidden=(5,), context_features=4, standardise=False), generator, 0.3)
    encoder, decoder = base.encoder, base.decoder
    assert isinstance(encoder, ConditionalGaussian)
    assert isinstance(decoder, ConditionalGaussian)
    embedding = randomise(nn.Sequential(nn.Linear(CONTEXT, 4), nn.Tanh()), generator, 0.3)
    shared = VAE(base.prior, encoder, decoder, CONTEXT, embedding)
    own = [deepcopy(embedding) for _ in range(2)]
    reads_x = nn.Sequential(Lifted(3, own[0]), encoder.network)
    reads_z = nn.Sequential(Lifted(2, own[1]), decoder.network)
    apart = VAE(
        base.prior,
        ConditionalGaussian(reads_x, 2, 3 + CONTEXT, encoder.scale),
        ConditionalGaussian(reads_z, 3, 2 + CONTEXT, decoder.scale),
        CONTEXT,
    )
    x, context = (torch.randn(6, size, generator=generator, dtype=torch.float64) for size in (3, CONTEXT))
    bounds = [estimator(model, x, Generator().manual_seed(1), context) for model in (shared, apart)]
    torch.testing.assert_close(bounds[0], bounds[1], rtol=1e-12, atol=1e-12)
    of_one = torch.autograd.grad(bounds[0].sum(), list(embedding.parameters()))
    of_two = torch.autograd.grad(bounds[1].sum(), [p for each in own for p in each.parameters()])
    for one, first, second in zip(of_one, of_two[:2], of_two[2:], strict=True):
        assert first.abs().max() > 1e-3
        torch.testing.assert_close(one, first + second, rtol=1e-10, atol=1e-10)


def test_a_constant_context_is_a_bias(generator: Generator) -> None:
    """The model at one context is the unconditional one whose first layers have it in their biases."""
    model = randomise(VAE.gaussian(3, 2, hidden=(6,), context_features=2), generator).double()
    assert isinstance(model.embedding, Standardisation)
    plain = randomise(VAE.gaussian(3, 2, hidden=(6,)), generator).double()
    c = torch.tensor([0.7, -1.3], dtype=torch.float64)
    state = model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith("embedding")}
    for name in ("encoder.network.1.0", "decoder.density.network.0"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        state[f"{name}.weight"], state[f"{name}.bias"] = weight[:, :-2].clone(), bias + weight[:, -2:] @ c
    for name in ("encoder.network.0.shift", "encoder.network.0.scale"):
        state[name] = state[name][:3]
    plain.load_state_dict(state)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def same(mine: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)

    def seeded() -> Generator:
        return Generator().manual_seed(1)

    same(model.log_weights(x, 4, context=c, generator=seeded()), plain.log_weights(x, 4, generator=seeded()))
    same(model.elbo(x, context=c, generator=seeded()), plain.elbo(x, generator=seeded()))
    same(model.sample(6, context=c, generator=seeded()), plain.sample(6, generator=seeded()))
    same(model.reconstruct(x, c), plain.reconstruct(x))
    many = c.expand(5, 2)
    for claim in (quadrature, partial(importance, draws=9), partial(annealed, steps=3, chains=2)):
        same(claim(model, x, context=many, generator=seeded()).value, claim(plain, x, generator=seeded()).value)  # type: ignore[operator]


def test_other_priors(generator: Generator) -> None:
    """Categorical given c: the exact sum. A flow given c: no quadrature, and annealing instead of it."""
    encoder = ConditionalCategorical(nn.Linear(FEATURES + CONTEXT, 3), 3, FEATURES + CONTEXT)
    decoder = ConditionalGaussian(nn.Linear(3 + CONTEXT, FEATURES), FEATURES, 3 + CONTEXT, GlobalScale())
    prior = ConditionalCategorical(nn.Linear(CONTEXT, 3), 3, CONTEXT)
    model = randomise(VAE(prior, encoder, decoder, CONTEXT), generator)
    x, context = (torch.randn(5, size, generator=generator, dtype=torch.float64) for size in (FEATURES, CONTEXT))
    terms = [
        prior.log_prob(z.expand(5, 3), context) + decoder.log_prob(x, torch.cat([z.expand(5, 3), context], -1))
        for z in torch.eye(3, dtype=torch.float64)
    ]
    claim = evidence(model, x, context=context)
    torch.testing.assert_close(claim.value, torch.stack(terms).logsumexp(0).detach(), rtol=1e-12, atol=1e-12)
    assert claim.kind is Kind.EXACT
    base = VAE.gaussian(FEATURES, 2, hidden=(4,), context_features=CONTEXT)
    flow = with_flow_prior(base, glow(2, 2, (4,), context_features=CONTEXT))
    decoded = with_flow_decoder(flow, layers=2, hidden=(4,))
    assert decoded.embedding is base.embedding
    flow = randomise(decoded, generator, 0.1).double()
    with pytest.raises(ValueError, match=r"quadrature takes a prior p\(z\|c\) where it is Gaussian, or where all"):
        quadrature(flow, x, context=context)
    with pytest.raises(TypeError, match=r"kl_parts measures q\(z\) by one prior p\(z\); Flow is another one for every"):
        kl_parts(flow, x, context=context)
    quick = partial(annealed, steps=2, chains=2)
    assert "annealed" in evidence(flow, x, context=context, method=quick).method


def test_sizes_that_do_not_fit_are_named() -> None:
    three = VAE.gaussian(3, 2, hidden=(4,), context_features=2)
    with pytest.raises(
        ValueError, match=r"the encoder .* over 2 features, but the decoder is conditioned on 4; encoder q"
    ):
        VAE(three.prior, three.encoder, three.decoder)
    with pytest.raises(ValueError, match=r"conditioned on x or z and then on the 3 features of c"):
        VAE(three.prior, three.encoder, three.decoder, 3)
    with pytest.raises(ValueError, match=r"of the latent, of no context or of one of 2 features; got ConditionalGau"):
        VAE(ConditionalGaussian(nn.Linear(3, 4), 2, 3), three.encoder, three.decoder, 2)
    with pytest.raises(ValueError, match="VAE: an embedding makes features of contexts; say of how many numbers"):
        VAE.gaussian(3, 2, embedding=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"VAE expects an embedding from contexts \[n, 2\] to features \[n, H\]"):
        VAE.gaussian(3, 2, context_features=2, embedding=nn.Flatten(0))
    with pytest.raises(TypeError, match=r"VAE takes an embedding of contexts as an nn\.Module; got builtin"):
        VAE(three.prior, three.encoder, three.decoder, 2, torch.relu)  # type: ignore[arg-type]
    wrong = VAE(three.prior, three.encoder, three.decoder, 5, nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"VAE's embedding expects its network to return \[n, 2\] for n points"):
        wrong.elbo(torch.zeros(4, 3), context=torch.zeros(4, 5))


def test_a_fit_finds_the_conditional_and_is_compared(generator: Generator) -> None:
    """Images of labels as contexts, by an embedding with weights of its own; beside a flow that was told the same."""
    labels = torch.randint(0, 3, (600,), generator=generator)
    centre = torch.tensor([[-3.0, 0.0], [0.0, 4.0], [3.0, 0.0]])
    x = centre[labels] + torch.randn(600, 2, generator=generator)
    context = nn.functional.one_hot(labels, 3).float()
    torch.manual_seed(0)
    model = VAE.gaussian(2, 1, hidden=(8,), scale=PerFeatureScale(2), context_features=3, embedding=nn.Linear(3, 2))
    before = [p.detach().clone() for p in model.embedding.parameters()]  # type: ignore[union-attr]
    training = Training(epochs=40, batch_size=50, learning_rate=1e-2, progress=False)
    model.fit(x[:400], training, context=context[:400], generator=generator)
    flow = real_nvp(2, 2, (8,), 3)
    flow.fit(x[:400], training, context=context[:400], generator=generator)
    assert not any(b.equal(p) for b, p in zip(before, model.embedding.parameters(), strict=True))  # type: ignore[union-attr]
    entropy = -math.log(2 * math.pi) - 1  # of the truth, nats
    found = compare(
        {"vae": model, "flow": flow, "flow as a vae": FlowVAE(flow)},
        x[400:],
        context=context[400:],
        generator=generator,
    )
    means = {row["model"]: float(row["mean"] or 0) for row in found.rows()}
    assert means["vae"] > entropy - 0.35
    assert found.pair("flow", "flow as a vae").verdict.value == "equal"
    kinds = {row["model"]: (row["kind"], row["gap_kind"]) for row in found.rows()}
    assert kinds["vae"] == ("exact", "exact")
    assert kinds["flow as a vae"] == ("exact", "exact")
    wrong = quadrature(model, x[400:450], context=context[400:450].roll(1, 1)).mean
    assert wrong < means["vae"] - 1
