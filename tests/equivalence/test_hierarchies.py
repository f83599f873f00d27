"""A chain of stochastic links is a VAE whose latent is all that they draw; a posterior at each level closes the gap."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn

from bridge import Abs, DeltaLink, LinkChain, Log, LooseLayeredModel, StochasticPermutation, UniformDequantisation
from density import ConditionalGaussian, Density, DiagonalGaussian, GlobalScale, StandardNormal
from flows import Chain, LULinear
from lvm import HierarchicalVAE, Link, StochasticLink
from lvm.evidence import LocalFit, Pilot, annealed, evidence, gap, quadrature, sandwich
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from tests.cases.bounds import by_composition, conditional_bits, hierarchical
from tests.laws.transforms import randomise

PILOT = Pilot(chains=4, transitions=2, temperatures=8)
EXACT = 1e-11  # some hundreds of roundings of terms of size 10


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded() -> Generator:
    return Generator().manual_seed(1)


def linear(features: int, context: int, std: float = 0.8) -> ConditionalGaussian:
    return ConditionalGaussian(nn.Linear(context, features), features, context, GlobalScale(std))


def as_links(model: HierarchicalVAE) -> LooseLayeredModel:
    """The same parts, as a prior and a chain of stochastic links."""
    decoders = [model.decoder.density, *model.prior.parts[:-1]]
    pairs = zip(model.encoder.parts, decoders, strict=True)
    return LooseLayeredModel(model.prior.parts[-1], LinkChain(*(StochasticLink(q, p) for q, p in pairs)))


def with_links_between(generator: Generator) -> LooseLayeredModel:
    """Folds, bijections and draws by turns, up to the prior."""
    links: list[Link] = [
        Abs(3),
        DeltaLink(Chain(Log(), LULinear(3))),
        StochasticLink(linear(2, 3), linear(3, 2)),
        DeltaLink(LULinear(2)),
        StochasticLink(linear(2, 2), linear(2, 2)),
        DeltaLink(LULinear(2)),
    ]
    return randomise(LooseLayeredModel(DiagonalGaussian(2), LinkChain(*links)), generator, 0.2)


def test_a_hierarchy_is_a_chain_of_links(generator: Generator) -> None:
    """Log-weights and gradients of the ELBO, draw by draw."""
    model = hierarchical(generator)
    chain = as_links(model)
    x = normal(generator, 4, 3)
    torch.testing.assert_close(
        model.log_weights(x, 7, generator=seeded()), chain.log_weights(x, 7, generator=seeded()), rtol=0, atol=EXACT
    )
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad(m.log_weights(x, 7, generator=seeded()).mean(), parameters) for m in (model, chain)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=EXACT)


def test_deterministic_links_add_their_ratios(generator: Generator) -> None:
    chain = with_links_between(generator)
    model = unrolled(chain)
    assert isinstance(model, LatentVariableModel)
    x = normal(generator, 5, 3)
    expected = chain.log_weights(x, 7, generator=seeded())
    torch.testing.assert_close(model.log_weights(x, 7, generator=seeded()), expected, rtol=0, atol=EXACT)
    z, log_q = model.encoder.sample_with_log_prob(7, context=x, generator=seeded())
    torch.testing.assert_close(model.log_joint(x, z) - log_q, expected, rtol=0, atol=EXACT)
    assert model.sample(5, generator=generator).shape == (5, 3)
    result = sandwich(chain, 12, steps=15, pilot=PILOT, generator=generator)
    assert abs(result.mean_width) < max(0.2, 3 * result.standard_error)


def test_what_draws_no_latent_of_a_density_stays_as_it_is() -> None:
    for links in (
        [UniformDequantisation(2)],
        [StochasticPermutation(2), StochasticLink(linear(1, 2), linear(2, 1))],
    ):
        features = links[-1].latent_features
        model = LooseLayeredModel(StandardNormal(features), LinkChain(*links))
        assert unrolled(model) is model
    with pytest.raises(TypeError, match=r"annealing needs a model with log_joint.*LooseLayeredModel has none"):
        annealed(model, torch.zeros(1, 2))


def test_evidence_of_a_chain_is_its_density(generator: Generator) -> None:
    """Annealing within its errors of the closed form, with the numbers of the hierarchy; a gap with its parts."""
    model = hierarchical(generator)
    chain = as_links(model)
    x = model.sample(8, generator=generator).detach()
    truth = by_composition(model, x)
    claim = annealed(chain, x, steps=30, pilot=PILOT, generator=seeded())
    assert claim.value.equal(annealed(model, x, steps=30, pilot=PILOT, generator=seeded()).value)
    assert claim.monte_carlo_error is not None
    assert bool(((claim.value - truth).abs() < 5 * claim.monte_carlo_error).all())
    report = gap(chain, x[:5], draws=20, local=LocalFit(steps=8, draws=2), generator=generator)
    assert report.parts is not None


def test_two_latents_are_integrated_together(generator: Generator) -> None:
    """Quadrature over a level each, exact to 1e-8."""
    model = HierarchicalVAE(StandardNormal(1), [linear(1, 3), linear(1, 1)], [linear(3, 1), linear(1, 1)])
    chain = as_links(randomise(model, generator, 0.3))
    x = normal(generator, 3, 3)
    claim = evidence(chain, x, generator=generator)
    assert "2-dimensional adaptive quadrature" in claim.method
    torch.testing.assert_close(claim.value, by_composition(model, x), rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match=r"LooseLayeredModel has 4\. Use"):
        quadrature(as_links(hierarchical(generator)), x)


def test_one_link_with_a_context_is_a_conditional_vae(generator: Generator) -> None:
    model = randomise(conditional_bits(), generator, 0.2)
    chain = LooseLayeredModel(model.prior, model.link)
    x, context = (normal(generator, 3, model.features) > 0).double(), normal(generator, 3, model.context_features)
    assert evidence(chain, x, context=context).value.equal(evidence(model, x, context=context).value)


def conditional(features: int, mean: Tensor, weight: Tensor, variance: Tensor) -> Density:
    """N(weight c + mean, variance), one-dimensional."""
    made = ConditionalGaussian(nn.Linear(features, 1), 1, features, GlobalScale(float(variance.sqrt())))
    made = made.double()
    layer = made.network
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(1, -1))
        layer.bias.copy_(mean.reshape(1))
        made.scale.get_parameter("log_std").copy_(0.5 * variance.log())
    return made


def test_posteriors_at_each_level_make_every_weight_the_evidence(generator: Generator) -> None:
    """Linear Gaussian levels of one latent each: q(z_1|x) q(z_2|z_1) q(z_3|z_2) can be, and is, the posterior."""
    decoders = [linear(3, 1), linear(1, 1), linear(1, 1)]
    for decoder in decoders:
        randomise(decoder, generator, 0.3)
    # The joint of (x, z_1, z_2, z_3) by x = W z + noise, level by level from the top.
    mean, covariance = torch.zeros(1).double(), torch.eye(1).double()
    joint_mean, joint = mean, covariance
    for decoder in reversed(decoders):
        layer = decoder.network
        assert isinstance(layer, nn.Linear)
        weight, bias = layer.weight.detach(), layer.bias.detach()
        below = len(bias)
        lift = torch.cat([weight, torch.zeros(below, len(joint) - 1)], 1).double()
        noise = (2 * decoder.scale.get_parameter("log_std").detach()).exp() * torch.eye(below).double()
        joint_mean = torch.cat([lift @ joint_mean + bias, joint_mean])
        cross = lift @ joint
        joint = torch.cat([torch.cat([cross @ lift.mT + noise, cross], 1), torch.cat([cross.mT, joint], 1)])
    encoders = []
    for below, above in ((slice(0, 3), 3), (slice(3, 4), 4), (slice(4, 5), 5)):
        weight = torch.linalg.solve(joint[below, below], joint[below, above])
        rest = joint[above, above] - joint[above, below] @ weight
        width = below.stop - below.start
        encoders.append(conditional(width, joint_mean[above] - joint_mean[below] @ weight, weight, rest))
    model = HierarchicalVAE(StandardNormal(1).double(), encoders, decoders)
    x = normal(generator, 6, 3)
    truth = torch.as_tensor(stats.multivariate_normal(joint_mean[:3].numpy(), joint[:3, :3].numpy()).logpdf(x.numpy()))
    weights = model.log_weights(x, 5, generator=generator)
    print(f"largest error of a log-weight: {(weights - truth).abs().max().item():.1e}")
    torch.testing.assert_close(weights, truth.expand(5, -1), rtol=0, atol=1e-10)
