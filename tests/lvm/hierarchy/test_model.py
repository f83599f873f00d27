"""Hierarchical VAEs and Markov chains of densities: their parts, levels and errors; the laws are in tests/laws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Generator, Tensor, distributions, nn

from bridge import HalfNormal, from_distribution
from density import (
    Bernoulli,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    GlobalScale,
    Rescaled,
    StandardNormal,
    Training,
)
from flows import ActNorm, real_nvp
from lvm import VAE, HierarchicalVAE, MarkovChain
from lvm.vae.gradients import DoublyReparametrised, Reparametrised
from tests.cases.bounds import hierarchical

EXACT = 1e-12


def linear(features: int, context: int) -> ConditionalGaussian:
    return ConditionalGaussian(nn.Linear(context, features), features, context, GlobalScale())


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_terms_of_a_chain_add_up_whichever_way_it_runs(generator: Generator) -> None:
    """Parts stand in the order of their vectors, and are conditioned on the neighbour that is drawn before."""
    first, second = linear(2, 3).double(), linear(4, 2).double()
    c, v = normal(generator, 5, 3), normal(generator, 7, 5, 6)
    expected = torch.stack([first.log_prob(v[..., :2], c), second.log_prob(v[..., 2:], v[..., :2])])
    for chain, x in (
        (MarkovChain(first, second), v),
        (MarkovChain(second, first, from_last=True), torch.cat([v[..., 2:], v[..., :2]], -1)),
    ):
        terms = expected.flip(0) if chain.from_last else expected
        assert chain.log_probs(x, c).equal(terms)
        torch.testing.assert_close(chain.log_prob(x, c), terms.sum(0), rtol=0, atol=EXACT)
        draws, log_prob = chain.sample_with_log_prob(3, context=c, generator=generator)
        torch.testing.assert_close(chain.log_prob(draws, c), log_prob, rtol=0, atol=EXACT)


def test_a_chain_has_the_support_of_its_parts() -> None:
    chain = MarkovChain(StandardNormal(1), HalfNormal(1, 1))
    inside, outside = torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    chain.check_support(inside)
    assert chain.log_prob(inside).isfinite()
    assert chain.log_prob(outside) == -torch.inf
    with pytest.raises(ValueError, match="the value at"):
        chain.check_support(outside)
    assert chain.support is not None
    with pytest.raises(ValueError, match="MarkovChain: part 1 expects"):
        chain.support.check(outside, "MarkovChain")


def test_the_kl_of_the_levels_is_that_of_the_whole(generator: Generator) -> None:
    model = hierarchical(generator)
    x = normal(generator, 4, 3)
    seeded = partial(Generator().manual_seed, 1)
    whole = model.draw_latents(x, 50, generator=seeded())[1]
    assert model.level_kl(x, draws=50, generator=seeded()).shape == (3, 4)
    torch.testing.assert_close(
        model.level_kl(x, draws=50, generator=seeded()).sum(0), whole, rtol=0, atol=1e-11
    )  # means of 50 terms of size 10


def test_reconstructions_go_up_and_down_by_means(generator: Generator) -> None:
    model = hierarchical(generator)
    x = normal(generator, 4, 3)
    up, down = model.encoder.parts, [model.decoder.density, *model.prior.parts[:-1]]
    assert model.level_features == (2, 1, 1)
    z, expected = x, x
    for level in (1, 2, 3):
        z = up[level - 1].expectation(z)
        assert model.levels(model.encode(x))[level - 1].equal(z)
        expected = z
        for decoder in reversed(down[:level]):
            expected = decoder.expectation(expected)
        assert model.reconstruct(x, level=level).equal(expected)
    assert model.decode(model.encode(x)).equal(model.reconstruct(x))
    with pytest.raises(ValueError, match="level must be at most 3"):
        model.reconstruct(x, level=4)


def test_any_estimator_trains_a_hierarchy(generator: Generator) -> None:
    """From a start that data sets: units at the bottom, the norms of a flow at the top."""
    torch.manual_seed(0)
    x = 50 * torch.randn(100, 3, generator=generator).cumsum(1)
    top = real_nvp(2, 2, (4,))
    model = HierarchicalVAE.above(VAE.gaussian(3, 3, hidden=(8,)), (2,), hidden=(4,), prior=top)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    history = model.fit(x, Training(epochs=2), estimator=DoublyReparametrised(draws=3), generator=generator)
    assert torch.tensor(history.objective).isfinite().all()
    lowest = model.decoder.density
    assert isinstance(lowest, Rescaled)
    torch.testing.assert_close(lowest.standardise.scale, x.std(0, correction=0))
    norms = [layer for layer in top.modules() if isinstance(layer, ActNorm)]
    assert norms
    assert all(bool(norm.initialised) for norm in norms)
    assert [name for name, p in model.named_parameters() if p.equal(before[name])] == []


def test_draws_without_a_path_leave_no_gradient_to_the_others() -> None:
    """Else the reparametrised gradient of the other levels would pass for that of all."""
    cut = from_distribution(Mixed(2), 2, 2)
    for chain in (MarkovChain(linear(2, 3), cut), MarkovChain(cut, linear(3, 2))):
        context = torch.zeros(4, chain.context_features)
        assert not chain.sample(5, context=context).requires_grad
        draws, log_prob = chain.sample_with_log_prob(5, context=context)
        assert not draws.requires_grad
        assert log_prob.requires_grad
    encoders, decoders = [linear(2, 3), cut], [linear(3, 2), linear(2, 2)]
    with pytest.raises(TypeError, match="Reparametrised differentiates through the latent draws"):
        Reparametrised()(HierarchicalVAE(StandardNormal(2), encoders, decoders), torch.zeros(4, 3))


class Mixed(nn.Module):
    """A mixture of two normals for each feature, which torch draws without a path."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, features)

    def forward(self, context: Tensor) -> distributions.Distribution:
        means = torch.stack([self.mean(context), -self.mean(context)], -1)
        choice = distributions.Categorical(logits=torch.zeros_like(means))
        mixture = distributions.MixtureSameFamily(choice, distributions.Normal(means, 1.0))
        return distributions.Independent(mixture, 1)


def above(vae: Callable[[], VAE], *widths: int) -> Callable[[], HierarchicalVAE]:
    return lambda: HierarchicalVAE.above(vae(), widths)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MarkovChain(), "MarkovChain needs at least one density"),
        (
            lambda: MarkovChain(StandardNormal(2), linear(1, 3)),
            r"MarkovChain: part 1 \(ConditionalGaussian\) is conditioned on 3 features, but part 0 \(StandardNormal\)",
        ),
        (lambda: MarkovChain(Bernoulli(2), linear(1, 2)), "densities with respect to one measure; part 1"),
        (
            lambda: HierarchicalVAE(StandardNormal(1), [linear(1, 3)], []),
            "an encoder and a decoder for each level, data first; got 1 encoders and 0 decoders",
        ),
        (
            lambda: HierarchicalVAE(StandardNormal(2), [linear(1, 3)], [linear(3, 1)]),
            "the prior must be an unconditional density over the 1 features of the last latent",
        ),
        (
            lambda: HierarchicalVAE(StandardNormal(1), [linear(2, 3), linear(1, 2)], [linear(3, 2), linear(3, 1)]),
            "HierarchicalVAE, level 2: the decoder.* must agree on the sizes",
        ),
        (above(lambda: VAE.gaussian(3, 2)), "the width of at least one level"),
        (above(lambda: VAE.gaussian(3, 2, context_features=1), 1), "HierarchicalVAE is unconditional"),
    ],
)
def test_misfits_are_one_clear_error(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_parts_are_densities() -> None:
    network: Density = nn.Linear(1, 1)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="MarkovChain is made of Densities; part 1 is a Linear"):
        MarkovChain(DiagonalGaussian(1), network)
    with pytest.raises(TypeError, match="HierarchicalVAE is made of Densities; got a Linear"):
        HierarchicalVAE(StandardNormal(1), [linear(1, 1)], [network])
