"""How noisy each gradient estimator is, and the function that measures it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    ConditionalGaussian,
    FixedScale,
    PerFeatureScale,
    mlp,
)
from lvm import VAE
from lvm.vae import gradient_quality as quality_module
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradient_quality import gradient_quality
from lvm.vae.gradients import (
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
    WrongGradient,
)
from tests.lvm.vae.gradient_examples import (
    EVERY_ESTIMATOR,
    SCALAR_X,
    exact_gradient,
    importance_weighted_bound,
    linear_vae,
    scalar_vae,
)

Record = Callable[[str, float, float], None]


def test_quality_is_the_statistics_of_single_gradients(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop uses the generator as repeated calls do, so mean and variance can be compared number by number."""
    model, estimator = linear_vae(generator), ImportanceWeighted(3)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    parameters = list(model.parameters())
    own = Generator().manual_seed(5)
    rows = torch.stack([exact_gradient(estimator(model, x, own), parameters) for _ in range(40)])

    batched = gradient_quality(estimator, model, x, repeats=4000, generator=Generator().manual_seed(6))
    monkeypatch.setattr(quality_module, "vmap", no_batching_rule)
    monkeypatch.setattr(quality_module, "ROWS_AT_ONCE", 3 * 3 * 7)  # chunks of 7
    looped = gradient_quality(estimator, model, x, repeats=40, generator=Generator().manual_seed(5))
    assert not looped.vectorised
    torch.testing.assert_close(looped.mean, rows.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(looped.variance, rows.var(0), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(looped.standard_error, rows.std(0) / math.sqrt(40), rtol=1e-11, atol=1e-14)
    many = gradient_quality(estimator, model, x, repeats=1000, generator=Generator().manual_seed(7))
    error = (batched.standard_error.square() + many.standard_error.square()).sqrt()
    assert ((batched.mean - many.mean) / error).abs().max() < 4
    # the variance of a variance is about (κ − 1)/R of it, with κ up to 20 here
    torch.testing.assert_close(batched.variance, many.variance, rtol=0.6, atol=0)
    assert batched.total_variance == pytest.approx(many.total_variance, rel=0.25)


def no_batching_rule(*_: object, **__: object) -> None:
    raise RuntimeError("vmap: no batching rule")


@pytest.mark.parametrize("estimator", [e for e in EVERY_ESTIMATOR if not isinstance(e, WrongGradient)], ids=repr)
def test_batched_and_looped_repeats_agree(
    estimator: GradientEstimator, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VAE.gaussian(3, 2, hidden=(4,), scale=PerFeatureScale(3)).double()
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    batched = gradient_quality(estimator, model, x, repeats=2000, generator=generator)
    assert batched.vectorised
    monkeypatch.setattr(quality_module, "vmap", no_batching_rule)
    looped = gradient_quality(estimator, model, x, repeats=300, generator=generator)
    assert not looped.vectorised
    error = (batched.standard_error.square() + looped.standard_error.square()).sqrt()
    assert ((batched.mean - looped.mean).abs() <= 4.5 * error).all()
    assert batched.total_variance == pytest.approx(looped.total_variance, rel=0.4)


class BranchingDecoder(ConditionalGaussian):
    """Looks at the values, which vmap cannot follow."""

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        value = super()._log_prob(x, context)
        return value if bool(value.mean() < 1e9) else value / 2


def test_a_model_that_vmap_cannot_follow_is_looped(generator: Generator) -> None:
    encoder = ConditionalGaussian(mlp(2, 2, ()), 1, 2)
    model = VAE(VAE.gaussian(2, 1).prior, encoder, BranchingDecoder(mlp(1, 2, ()), 2, 1, FixedScale(1.0)))
    x = torch.randn(4, 2, generator=generator)
    quality = gradient_quality(Reparametrised(), model, x, repeats=20, generator=Generator().manual_seed(0))
    assert not quality.vectorised
    own, parameters = Generator().manual_seed(0), list(model.parameters())
    rows = torch.stack([exact_gradient(Reparametrised()(model, x, own), parameters) for _ in range(20)]).double()
    torch.testing.assert_close(quality.mean, rows.mean(0), rtol=1e-5, atol=1e-6)


def test_variance_does_not_cancel_far_from_zero(generator: Generator) -> None:
    moments = quality_module._Moments()
    samples = 1e8 + torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    for chunk in samples.split([1, 399, 600]):
        moments.add(chunk)
    # rounding at 1e8 is 1.5e-8 in each sample, of standard deviation 1
    torch.testing.assert_close(moments.squares / 999, samples.var(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(moments.mean, samples.mean(0), rtol=1e-15, atol=0)


def test_what_a_report_says(generator: Generator) -> None:
    model = linear_vae(generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    parameters = list(model.encoder.parameters())
    reference = exact_gradient(model.elbo_closed_form(x), parameters)
    quality = gradient_quality(
        StickingTheLanding(), model, x, repeats=50, parameters=parameters, reference=reference, generator=generator
    )
    assert quality.names == ("encoder.weight", "encoder.bias", "encoder.log_std")
    assert quality.sizes == (8, 2, 2)
    rows = quality.rows()
    assert [row["parameter"] for row in rows] == [*quality.names, "all"]
    assert rows[1]["variance"] == pytest.approx(quality.variance[8:10].sum().item())
    assert rows[-1]["variance"] == pytest.approx(quality.total_variance)
    assert rows[-1]["bias"] == pytest.approx((quality.mean - reference).norm().item())
    assert rows[-1]["largest deviation"] == pytest.approx(quality.deviation.abs().max().item())
    assert rows[-1]["signal to noise"] == pytest.approx(quality.total_signal_to_noise)
    assert quality.total_signal_to_noise == pytest.approx((reference.norm() / quality.variance.sum().sqrt()).item())
    torch.testing.assert_close(quality.signal_to_noise, reference.abs() / quality.variance.sqrt())
    alone = gradient_quality(StickingTheLanding(), model, x, repeats=50, parameters=parameters, generator=generator)
    assert "bias" not in alone.rows()[0]
    torch.testing.assert_close(alone.signal, alone.mean)
    with pytest.raises(ValueError, match="bias needs a reference"):
        _ = alone.bias


def test_measuring_leaves_the_model_alone(generator: Generator) -> None:
    model = linear_vae(generator)
    model.decoder.mean.requires_grad_(False)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quality = gradient_quality(DoublyReparametrised(2), model, x, repeats=5, generator=generator)
    assert "decoder.mean" not in quality.names
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.decoder.mean.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = gradient_quality(DoublyReparametrised(2), model, x, repeats=5, generator=Generator().manual_seed(1))
    same = gradient_quality(DoublyReparametrised(2), model, x, repeats=5, generator=Generator().manual_seed(1))
    assert torch.equal(again.mean, same.mean)


def slope(draws: list[int], ratios: list[float]) -> float:
    return float(np.polyfit(np.log(draws), np.log(ratios), 1)[0])


@pytest.mark.parametrize(
    ("kind", "part", "expected"),
    [
        (ImportanceWeighted, "encoder", -0.5),
        (ImportanceWeighted, "decoder", 0.5),
        (DoublyReparametrised, "encoder", 0.5),
        (DoublyReparametrised, "decoder", 0.5),
    ],
)
def test_signal_to_noise_in_the_number_of_draws(
    kind: type[ImportanceWeighted] | type[DoublyReparametrised],
    part: str,
    expected: float,
    generator: Generator,
    record_measurement: Record,
) -> None:
    """The signal is the exact gradient: the mean of IWAE's own is lost in its noise. 3000 repeats know σ to 1.3 %."""
    model = scalar_vae()
    parameters = list(getattr(model, part).parameters())
    draws, ratios = [2**k for k in range(9)], []
    for k in draws:
        quality = gradient_quality(
            kind(k),
            model,
            SCALAR_X,
            repeats=3000,
            parameters=parameters,
            reference=exact_gradient(importance_weighted_bound(model, SCALAR_X, k), parameters),
            generator=generator,
        )
        assert quality.deviation.abs().max() < 4
        ratios.append(quality.total_signal_to_noise)
    name = f"slope of log SNR in log K, K = 1..256, {kind.__name__}, {part}: distance from {expected:+}"
    record_measurement(name, abs(slope(draws, ratios) - expected), 0.1)


@pytest.mark.parametrize("estimator", [StickingTheLanding(), StickingTheLanding(8), DoublyReparametrised(8)])
@pytest.mark.parametrize("latent_features", [1, 3])
def test_no_noise_at_the_posterior(
    estimator: GradientEstimator, latent_features: int, generator: Generator, record_measurement: Record
) -> None:
    model = linear_vae(generator, features=5, latent_features=latent_features)
    with torch.no_grad():  # orthogonal columns: the posterior is diagonal
        left, singular, _ = torch.linalg.svd(model.decoder.weight, full_matrices=False)
        model.decoder.weight.copy_(left * singular)
    model.set_optimal_encoder()
    x = 2 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    parameters = list(model.encoder.parameters())
    noisy = gradient_quality(Reparametrised(), model, x, repeats=500, parameters=parameters, generator=generator)
    assert noisy.total_variance > 0.1
    quiet = gradient_quality(estimator, model, x, repeats=500, parameters=parameters, generator=generator)
    record_measurement(
        f"variance of the encoder's gradient at q = posterior, {type(estimator).__name__}", quiet.total_variance, 1e-20
    )
    assert quiet.mean.abs().max() < 1e-12


def test_the_leave_one_out_baseline_removes_the_level_of_the_weights(generator: Generator) -> None:
    model = linear_vae(generator, features=5, latent_features=1)
    model.set_optimal_encoder()
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    parameters = list(model.encoder.parameters())
    plain = gradient_quality(ScoreFunction(4), model, x, repeats=500, parameters=parameters, generator=generator)
    centred = gradient_quality(LeaveOneOut(4), model, x, repeats=500, parameters=parameters, generator=generator)
    assert plain.total_variance > 1
    assert centred.total_variance < 1e-20


def test_bad_quality_arguments(generator: Generator) -> None:
    model = linear_vae(generator)
    x = torch.zeros(3, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least 2 repeats"):
        gradient_quality(Reparametrised(), model, x, repeats=1)
    with pytest.raises(ValueError, match="is none of LinearVAE's"):
        gradient_quality(Reparametrised(), model, x, parameters=[nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="at least one parameter"):
        gradient_quality(Reparametrised(), model, x, parameters=[])
    with pytest.raises(ValueError, match=r"flat reference \[2\]"):
        gradient_quality(
            Reparametrised(), model, x, parameters=[model.encoder.bias], reference=torch.zeros(3, dtype=torch.float64)
        )
    with pytest.raises(TypeError, match="expects a GradientEstimator; got str"):
        gradient_quality("stl", model, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expects at least one row of data; got none"):
        gradient_quality(Reparametrised(), model, x[:0])
    with pytest.raises(ValueError, match="expects finite data; row 0, column 0 is nan"):
        gradient_quality(Reparametrised(), model, x * torch.nan)
    with torch.no_grad():
        model.decoder.log_std.fill_(-500.0)
    with pytest.raises(ValueError, match="not finite"):
        gradient_quality(Reparametrised(), model, x, repeats=3, generator=generator)
