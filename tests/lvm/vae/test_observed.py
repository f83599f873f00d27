"""VAEs of rows with missing entries, against sums over what is missing, the compiled mixture, and complete rows."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import as_mixture
from density import (
    Bernoulli,
    BernoulliLikelihood,
    Beta,
    CategoricalLevels,
    Category,
    Chunks,
    Columns,
    ConditionalGaussian,
    DiscretisedLogistic,
    GaussianLikelihood,
    Kind,
    Laplace,
    Likelihood,
    Poisson,
    Training,
    ZeroInflated,
)
from flows import glow
from lvm import PPCA, VAE, HierarchicalVAE, LatentVariableModel, ObservedModel
from lvm.evidence import annealed, evidence, gap, importance, quadrature
from lvm.vae.gradients import DoublyReparametrised
from tests.cases.bounds import BOUNDS
from tests.laws.transforms import randomise
from tests.lvm.missing.incomplete import awkward, holes

# Columns, and data of them.
TABLE = Columns([GaussianLikelihood(), Category(3), BernoulliLikelihood(), Poisson()])
KINDS: dict[str, tuple[Likelihood, int]] = {
    "Bernoulli": (BernoulliLikelihood(), 4),
    "Gaussian": (GaussianLikelihood(), 4),
    "Laplace": (Laplace(), 3),
    "grey levels": (DiscretisedLogistic(4), 3),
    "levels": (CategoricalLevels(3), 3),
    "counts": (ZeroInflated(Poisson()), 3),
    "unit interval": (Beta(), 3),
    "table": (TABLE, 4),
}


def trained(name: str, generator: Generator, mask: bool = False) -> tuple[VAE, Tensor]:
    """A model in float64, far from its start, that knows the units of its data; and draws of it."""
    likelihood, features = KINDS[name]
    model = VAE.of(features, 1, likelihood, hidden=(8,), mask=mask).double()
    x = model.sample(200, generator=generator)
    if name in ("Gaussian", "Laplace"):
        x = 3 + 5 * x
    model.initialise(x)
    randomise(model, generator, 0.5)
    return model, model.sample(60, generator=generator)


@pytest.mark.parametrize("name", KINDS)
def test_laws_of_incomplete_rows(name: str, generator: Generator) -> None:
    model, x = trained(name, generator, mask=name in ("grey levels", "table"))
    observed, some = model.observed, awkward(x, generator)[:24]
    assert observed.log_density(some, draws=10).measure == model.measure
    seeded = [Generator().manual_seed(1) for _ in range(2)]
    torch.testing.assert_close(
        observed.log_weights(x, 3, generator=seeded[0]),
        model.log_weights(x, 3, generator=seeded[1]),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(
        quadrature(observed, x[:4]).value, quadrature(model, x[:4]).value, rtol=1e-12, atol=1e-12
    )

    bound = observed.elbo(some, draws=2, generator=generator)
    bound.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) >= 8
    assert all(bool(g.isfinite().all()) for g in gradients)

    nothing = torch.full_like(x[:1], torch.nan)
    assert quadrature(observed, nothing).value.abs().item() < 1e-9
    assert observed.elbo(nothing, generator=generator).item() < 0
    with torch.no_grad():
        last = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight.zero_()
        last.bias.zero_()  # now q(z|x) is the prior
    assert observed.log_weights(nothing, 5, generator=generator).abs().max() < 1e-14


@pytest.mark.parametrize("name", ["Bernoulli", "levels", "grey levels"])
def test_missing_values_are_summed_out(name: str, generator: Generator) -> None:
    """log p(x_o) is the log of the sum of p(x) over all values of what is missing, each by quadrature of the model."""
    model, x = trained(name, generator)
    row = x[0].clone()
    row[[0, 2]] = torch.nan
    levels = {"Bernoulli": 2, "levels": 3, "grey levels": 4}[name]
    complete = row.repeat(levels**2, 1)
    complete[:, [0, 2]] = torch.tensor(list(product(range(levels), repeat=2)), dtype=torch.float64)
    expected = quadrature(model, complete).value.logsumexp(0)
    # Sixteen values of quadrature to 1e-8.
    assert (quadrature(model.observed, row.unsqueeze(0)).value - expected).abs().item() < 1e-7


@pytest.mark.parametrize("name", ["Bernoulli", "Gaussian"])
def test_marginals_of_the_compiled_mixture_are_the_quadrature(name: str, generator: Generator) -> None:
    model, x = trained(name, generator)
    mixture = as_mixture(model, nodes=2000)
    for columns in ([0], [1, 3], [0, 2, 3]):
        some = torch.full_like(x[:10], torch.nan)
        some[:, columns] = x[:10, columns]
        found = quadrature(model.observed, some)
        assert found.kind is Kind.EXACT
        torch.testing.assert_close(found.value, mixture.marginal(columns).log_prob(x[:10, columns]), rtol=0, atol=1e-7)


def test_estimators_bound_the_truth(generator: Generator) -> None:
    model, x = trained("Bernoulli", generator, mask=True)
    some = awkward(x, generator)[:10]
    truth = evidence(model.observed, some)
    assert truth.kind is Kind.EXACT
    for claim in (importance(model.observed, some, draws=2000, generator=generator),
                  annealed(model.observed, some, steps=30, generator=generator)):  # fmt: skip
        assert claim.kind is Kind.LOWER
        assert claim.monte_carlo_error is not None
        reliable = claim.weights.reliable
        assert reliable.sum() > 3
        assert ((claim.value - truth.value)[reliable] < 4.5 * claim.monte_carlo_error[reliable] + 1e-9).all()
        assert ((claim.value - truth.value)[reliable].abs() < 4.5 * claim.monte_carlo_error[reliable] + 1e-2).all()
    assert gap(model.observed, some, log_density=truth, generator=generator).difference.value.mean() > 0


def test_a_linear_decoder_is_ppca(generator: Generator) -> None:
    """Of a linear Gaussian decoder, log p(x_o) by quadrature, mean and variance of what is missing are PPCA's own."""
    ppca = randomise(PPCA(4, 1), generator, 0.5)
    encoder = randomise(ConditionalGaussian(nn.Linear(4, 2), 1, 4), generator, 0.2)
    model = VAE(ppca.prior, encoder, ppca.decoder)
    some = awkward(torch.randn(12, 4, generator=generator, dtype=torch.float64), generator)
    torch.testing.assert_close(quadrature(model.observed, some).value, ppca.observed.log_prob(some), rtol=0, atol=1e-8)
    expected, draws = ppca.observed.impute(some), 20_000
    found = model.observed.impute(some, draws=draws, generator=generator)
    assert found.mean[~some.isnan()].equal(some[~some.isnan()])
    assert (found.variance[~some.isnan()] == 0).all()
    # Effective sizes of some hundreds of draws, whose means scatter by a twentieth of a standard deviation.
    std = expected.variance.sqrt()
    assert ((found.mean - expected.mean).abs() <= 0.25 * std + 1e-12).all()
    assert ((found.variance / expected.variance).log()[some.isnan()].abs() < 0.5).all()
    drawn = model.observed.draw(some, 400, draws=4000, generator=generator)
    assert drawn.shape == (400, *some.shape)
    assert drawn[:, ~some.isnan()].equal(some[~some.isnan()].expand(400, -1))
    assert ((drawn.mean(0) - expected.mean).abs() <= 0.4 * std + 1e-12).all()


def test_the_encoder_sees_zeros_and_perhaps_the_mask(generator: Generator) -> None:
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    data = 7 + 2 * torch.randn(50, 2, generator=generator)
    for mask, width in ((False, 2), (True, 4)):
        model = VAE.gaussian(2, 1, hidden=(3,), mask=mask)
        model.initialise(data)
        model.encoder.network[1].insert(0, Seeing())
        model.observed.elbo(torch.tensor([[9.0, torch.nan]]), generator=generator)
        found = seen.pop()[0].tolist()
        assert len(found) == width
        assert found[0] != 0
        assert found[1:] == [0.0, 1.0, 0.0][: width - 1]


def test_fit_of_complete_rows_is_the_models(generator: Generator) -> None:
    x = torch.randn(64, 3, generator=generator, dtype=torch.float64).cumsum(1)
    fits = []
    for incomplete in (False, True):
        torch.manual_seed(0)
        model = VAE.gaussian(3, 1, hidden=(8,))
        fit = model.observed.fit if incomplete else model.fit
        fits.append(fit(x, Training(epochs=1), generator=Generator().manual_seed(0)).objective)
    torch.testing.assert_close(torch.tensor(fits[0]), torch.tensor(fits[1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_fit_climbs(name: str, generator: Generator) -> None:
    likelihood, features = KINDS[name]
    torch.manual_seed(0)
    x = holes(trained(name, generator)[0].sample(120, generator=generator), 0.3, generator)
    model = VAE.of(features, 1, likelihood, hidden=(8,), mask=True)
    history = model.observed.fit(x, Training(epochs=4, batch_size=30, learning_rate=1e-2), generator=generator)
    assert history.objective[-1] > history.objective[0] - 0.1 * (name == "counts")  # which start near where they end
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match="VAE expects finite data; row"):
        model.fit(x)
    with pytest.raises(ValueError, match="expects finite data; row"):
        model.log_density(x)


def test_fit_takes_streams_weights_contexts_and_estimators(generator: Generator) -> None:
    x = holes(torch.randn(90, 3, generator=generator).cumsum(1), 0.3, generator)
    context = torch.randn(90, 2, generator=generator)
    model = VAE.gaussian(3, 1, hidden=(8,), context_features=2, mask=True)
    model.observed.fit(
        x, Training(epochs=2), context=context, weights=torch.rand(90, generator=generator),
        estimator=DoublyReparametrised(draws=3), validation=(x[:20], context[:20]), generator=generator,
    )  # fmt: skip
    claim = evidence(model.observed, x[:3], context=context[:3])
    assert claim.kind is Kind.EXACT
    plain = VAE.gaussian(3, 1, hidden=(8,))
    plain.observed.fit(Chunks(lambda: iter(x.split(30))), Training(epochs=2, validation=0.2), generator=generator)
    shift = plain.decoder.standardise.shift
    means = torch.stack([column[~column.isnan()].mean() for column in x.T])
    assert (shift - means).abs().max() < 0.3


def test_hierarchies_and_mixed_up_models(generator: Generator) -> None:
    model, x = trained("Gaussian", generator)
    deep = HierarchicalVAE.above(model, (1,), hidden=(4,)).double()
    some = awkward(x, generator)[:12]
    claim = quadrature(deep.observed, some[:1])
    assert claim.kind is Kind.EXACT
    found = importance(deep.observed, some[:1], draws=4000, generator=generator)
    assert ((found.value - claim.value).abs() < 0.5).all()
    joint = VAE(model.prior, model.encoder, glow(4, 2, (4,), context_features=1).double())
    with pytest.raises(TypeError, match="takes a density of independent features"):
        _ = joint.observed
    with pytest.raises(TypeError, match="takes a model of a prior, an encoder and a decoder; got Bernoulli"):
        ObservedModel(Bernoulli(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="column 1 has no entry in any row"):
        model.observed.fit(torch.where(torch.arange(4) == 1, torch.nan, x), Training(epochs=1))
    with pytest.raises(ValueError, match="or nan where an entry is missing; row 0, column 2 is inf"):
        model.observed.log_density(torch.where(torch.arange(60).unsqueeze(1) + torch.arange(4) == 2, torch.inf, x))


@pytest.mark.parametrize("name", ["VAE, flow encoder", "VAE, categorical latent", "VAE, linear, context", "LinearVAE"])
def test_encoders_and_priors_of_any_kind(name: str, generator: Generator) -> None:
    """The mean weight of rows with holes is p(x_o), which quadrature or the sum over the latent knows."""
    case = BOUNDS[name]
    model = case.make(generator)
    assert isinstance(model, LatentVariableModel)
    x, given = case.points(model, generator, 5), case.given(model, generator, 5)
    x[1:, 0] = torch.nan
    x[2, 1] = torch.nan
    observed = ObservedModel(model)
    truth = quadrature(observed, x, **given).value
    torch.testing.assert_close(truth[:1], quadrature(model, x[:1], **{k: v[:1] for k, v in given.items()}).value)
    claim = importance(observed, x, draws=3000, generator=generator, **given)
    assert claim.monte_carlo_error is not None
    assert ((claim.value - truth).abs() <= 5 * claim.monte_carlo_error + 1e-2).all()
    assert observed.elbo(x, draws=50, generator=generator, **given).isfinite().all()
