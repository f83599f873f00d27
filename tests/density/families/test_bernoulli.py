"""Bernoulli masses at log-odds of every size, against mpmath."""

from __future__ import annotations

import mpmath
import pytest
import torch

from density import Bernoulli

LOGITS = [0.0, 1e-9, -1e-9, 0.5, -3.0, 12.0, -12.0, 20.001, -20.001, 40.0, -40.0, 800.0, -800.0]


def truth(logit: float, x: int) -> tuple[float, float]:
    """log σ(±ℓ), and its derivative in ℓ."""
    sign = 2 * x - 1
    with mpmath.workdps(60):
        odds = mpmath.exp(-sign * mpmath.mpf(logit))
        return float(-mpmath.log1p(odds)), float(sign * odds / (1 + odds))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("x", [0, 1])
@pytest.mark.parametrize("logit", LOGITS)
def test_log_mass_and_gradient(logit: float, x: int, dtype: torch.dtype) -> None:
    """To a few units in the last place, not of the log-odds but of the mass itself."""
    model = Bernoulli(1).to(dtype)
    with torch.no_grad():
        model.logits.fill_(logit)
    value = model.log_prob(torch.tensor([[float(x)]], dtype=dtype))
    value.sum().backward()
    assert model.logits.grad is not None
    log_mass, slope = truth(float(model.logits.detach().double()), x)
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).tiny}
    torch.testing.assert_close(value.double().item(), log_mass, **tolerance)
    torch.testing.assert_close(model.logits.grad.double().item(), slope, rtol=8 * torch.finfo(dtype).eps, atol=1e-37)


def test_seen_in_reports() -> None:
    model = Bernoulli(1).double()
    with torch.no_grad():
        model.logits.fill_(20.001)
    assert model.log_prob(torch.ones(1, 1, dtype=torch.float64)).item() == pytest.approx(-2.059093e-9, rel=1e-6)
    many = Bernoulli(784)
    with torch.no_grad():
        many.logits.fill_(12.0)
    assert many.log_prob(torch.ones(1, 784)).item() == pytest.approx(-0.004817048, rel=1e-6)


def test_between_the_bits_it_is_linear() -> None:
    """x ℓ − softplus(ℓ) for grey values too, which check_support refuses and log_prob does not, and its slope in x."""
    model = Bernoulli(3).double()
    with torch.no_grad():
        model.logits.copy_(torch.tensor([-2.0, 0.3, 5.0]))
    x = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    value = model.log_prob(x)
    expected = (x * model.logits - torch.nn.functional.softplus(model.logits)).sum()
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-14)
    (slope,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(slope, model.logits.detach())


def test_second_derivatives_at_even_odds() -> None:
    hessian = torch.autograd.functional.hessian(
        lambda logits: torch.func.functional_call(
            Bernoulli(2).double(), {"logits": logits}, (torch.tensor([0.0, 1.0]).double(),)
        ),
        torch.zeros(2, dtype=torch.float64),
    )
    torch.testing.assert_close(hessian, -0.25 * torch.eye(2, dtype=torch.float64))
