"""Training through the mixture: its objective is that of the compiled mixture, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.autograd import grad

from bridge import as_mixture, with_flow_prior
from density import (
    Bernoulli,
    BernoulliLikelihood,
    Category,
    Columns,
    Density,
    DiagonalGaussian,
    Gaussian,
    GaussianLikelihood,
    Likelihood,
    PerFeatureScale,
    Product,
    Training,
)
from flows import maf
from lvm import PPCA, VAE, FiniteMixture, GaussianMixture, LinearVAE
from lvm.evidence import Bits
from lvm.prior_nodes import PriorNodes
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.laws.transforms import randomise

NODES = 30
LIKELIHOODS: dict[str, Likelihood] = {
    "bits": BernoulliLikelihood(),
    "categories": Category(2),
    "table": Columns([BernoulliLikelihood(), Category(2), BernoulliLikelihood(), Category(3)]),
    "numbers": GaussianLikelihood(PerFeatureScale(4)),
}


def seeded(seed: int = 5) -> Generator:
    return Generator().manual_seed(seed)


def vae(name: str, latents: int, generator: Generator) -> VAE:
    prior = randomise(DiagonalGaussian(latents), generator, 0.3)
    return randomise(VAE.of(4, latents, LIKELIHOODS[name], hidden=(5,), prior=prior).double(), generator, 0.5)


@pytest.mark.parametrize("latents", [1, 2, 3])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_value_and_gradient_are_those_of_the_compiled_mixture(name: str, latents: int, generator: Generator) -> None:
    """Autograd of the mixture's log p(x) in its own parameters, pulled back through the decoder at the nodes."""
    model, x = vae(name, latents, generator), torch.randint(2, (6, 4), generator=generator).double()
    objective = MixtureLikelihood(NODES, seed=5)
    value = objective(model, x)
    mixture = as_mixture(model, NODES, generator=seeded())
    log_p = mixture.log_prob(x)
    torch.testing.assert_close(value, log_p, rtol=1e-12, atol=1e-12)
    parameters = [*model.prior.parameters(), *model.decoder.parameters()]
    found = grad(value.sum(), parameters)
    nodes = PriorNodes.of(model.prior, NODES, seeded())
    if isinstance(mixture, GaussianMixture):
        inner = model.decoder.density  # type: ignore[union-attr]
        mean, scale = inner.at(nodes.z)
        says = model.decoder.standardise.inverse(mean), (scale.std * model.decoder.standardise.scale).log()  # type: ignore[union-attr]
        pulled = grad(log_p.sum(), [mixture.decoder.means, mixture.decoder.factor])
        says = says[0], says[1].expand_as(says[0])
    else:
        assert isinstance(mixture, FiniteMixture)
        network = model.decoder.network
        assert isinstance(network, nn.Module)
        says, pulled = (network(nodes.z),), grad(log_p.sum(), [mixture.decoder.numbers])
    expected = grad(says, parameters, pulled)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_ppca_is_learnt_of_its_own_likelihood(generator: Generator) -> None:
    """A lattice over one latent is log p(x) of the linear model, so that its gradient is the known one's."""
    model = randomise(LinearVAE(4, 1), generator, 0.5)
    x = model.sample(7, generator=generator).detach()
    parameters = list(model.decoder.parameters())
    log_p, known = MixtureLikelihood(200, seed=0)(model, x), model.log_prob(x)
    torch.testing.assert_close(log_p, known, rtol=1e-8, atol=1e-8)
    for one, other in zip(grad(log_p.sum(), parameters), grad(known.sum(), parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_a_mixture_is_its_own_objective(generator: Generator) -> None:
    model = randomise(FiniteMixture(3, 4, BernoulliLikelihood()), generator, 0.5)
    x = Bits(3).points(model.prior.reference)
    torch.testing.assert_close(MixtureLikelihood()(model, x), model.log_prob(x), rtol=1e-12, atol=1e-12)


def test_fresh_nodes_are_unbiased_for_the_mass(generator: Generator) -> None:
    """Scrambled Sobol points are draws of the prior: means over scrambles of p̂(x) lie within 4 errors of p(x)."""
    model = vae("bits", 2, generator)
    x = Bits(4).points(model.prior.reference)
    with torch.no_grad():
        values = torch.stack([MixtureLikelihood(8)(model, x, generator) for _ in range(200)])
        truth = as_mixture(model, 4096).log_prob(x)
    found = values.exp()
    assert ((found.mean(0) - truth.exp()).abs() < 4 * found.std(0) / 200**0.5).all()
    assert values.mean() < truth.mean(), "Jensen's inequality"
    assert (found.sum(1) - 1).abs().max() < 1e-12, "each is a mixture"


def test_more_points_share_the_nodes(generator: Generator) -> None:
    model, x = vae("bits", 3, generator), torch.randint(2, (2, 3, 4), generator=generator).double()
    objective = MixtureLikelihood(NODES, seed=1)
    many = objective(model, x)
    assert many.shape == (2, 3)
    torch.testing.assert_close(many[1, 2], objective(model, x[1, 2]), rtol=1e-12, atol=0)
    assert not objective(model, x).equal(MixtureLikelihood(NODES, seed=2)(model, x))
    assert not MixtureLikelihood(NODES)(model, x, seeded()).equal(MixtureLikelihood(NODES)(model, x, seeded(6)))


@pytest.fixture(scope="module")
def answers() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ease = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    return (1.5 * ease + torch.randn(200, 5, generator=generator, dtype=torch.float64) > 0).double()


def test_a_fit_trains_the_decoder_and_leaves_the_encoder(answers: Tensor) -> None:
    """And is maximum likelihood: above the ELBO's twin on the rows of the fit, as compiled with the same nodes."""
    torch.manual_seed(0)
    models = [VAE.bernoulli(5, 1, hidden=(8,)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    encoder = {name: tensor.clone() for name, tensor in models[0].encoder.state_dict().items()}
    training = Training(epochs=60, batch_size=200, learning_rate=0.03, validation=0, progress=False)
    history = models[0].fit(answers, training, estimator=MixtureLikelihood(64, seed=0), generator=seeded())
    models[1].fit(answers, training, generator=seeded())
    assert all(tensor.equal(encoder[name]) for name, tensor in models[0].encoder.state_dict().items())
    mixtures = [as_mixture(model, 64) for model in models]
    log_p = [mixture.log_density(answers).mean for mixture in mixtures]
    assert history.objective[-1] == pytest.approx(log_p[0], abs=0.02)
    assert log_p[0] > log_p[1]


def test_what_cannot_be_trained_is_refused(generator: Generator) -> None:
    x = torch.zeros(2, 4, dtype=torch.float64)
    conditional = VAE.bernoulli(4, 1, hidden=(3,), context_features=2).double()
    with pytest.raises(ValueError, match="another one for every context"):
        MixtureLikelihood()(conditional, x, context=torch.zeros(2, 2, dtype=torch.float64))
    mixed = VAE.bernoulli(4, 2, hidden=(3,), prior=GaussianMixture(2, 3)).double()
    with pytest.raises(TypeError, match="draws of GaussianMixture do not depend on its parameters"):
        MixtureLikelihood(8)(mixed, x, generator)
    mixed.prior.requires_grad_(False)
    assert MixtureLikelihood(8)(mixed, x, generator).requires_grad
    with pytest.raises(ValueError, match="nodes must be an int, 2 or more; got 1"):
        MixtureLikelihood(1)
    with pytest.raises(ValueError, match="nodes must be an int, 2 or more; got True"):
        MixtureLikelihood(True)


@pytest.mark.parametrize("part", [Bernoulli(1), GaussianMixture(1, 2)], ids=["bits", "mixture"])
def test_a_part_of_the_prior_that_cannot_be_trained_is_refused(part: Density, generator: Generator) -> None:
    model = vae("bits", 2, generator)
    model.prior = Product([part, Gaussian(1)]).double()
    x = torch.ones(3, 4, dtype=torch.float64)
    with pytest.raises(TypeError, match="draws of Product do not depend on its parameters"):
        MixtureLikelihood(8)(model, x, generator)
    part.requires_grad_(False)
    assert MixtureLikelihood(8)(model, x, generator).requires_grad


def test_a_flow_prior_is_trained_through_its_draws(generator: Generator) -> None:
    model = with_flow_prior(vae("bits", 2, generator), randomise(maf(2, 1, (4,)), generator, 0.2))
    value = MixtureLikelihood(16)(model, torch.ones(3, 4, dtype=torch.float64), generator)
    value.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.prior.parameters())
    assert any(bool(p.grad.abs().max() > 0) for p in model.prior.parameters() if p.grad is not None)


def test_ppca_and_single_precision(generator: Generator) -> None:
    """A model that knows its posterior is trained as well; float32 stays float32, near to float64, in any autocast."""
    model = randomise(PPCA(4, 1), generator, 0.5)
    x = model.sample(5, generator=generator)
    exact = MixtureLikelihood(100, seed=0)(model, x)
    single = MixtureLikelihood(100, seed=0)(model.float(), x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-4)
    bits = vae("bits", 2, generator).float()
    y = torch.ones(2, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lowered = MixtureLikelihood(9, seed=0)(bits, y)
    assert lowered.equal(MixtureLikelihood(9, seed=0)(bits, y))
