"""What a newcomer meets first when something is off: the models' edges."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn

from density import Gaussian, StandardNormal
from flows import real_nvp
from lvm import VAE


def test_a_network_is_no_density() -> None:
    vae = VAE.gaussian(4, 2, hidden=(4,))
    with pytest.raises(TypeError, match=r"the encoder must be a Density; got Linear.*ConditionalGaussian"):
        VAE(StandardNormal(2), nn.Linear(4, 4), vae.decoder)  # type: ignore[arg-type]


def test_a_bound_has_no_log_prob() -> None:
    vae = VAE.gaussian(4, 2, hidden=(4,))
    assert not hasattr(vae, "log_prob")
    assert not hasattr(vae, "no_such_thing")


def test_a_conditional_model_makes_claims_at_contexts(generator: Generator) -> None:
    flow = real_nvp(2, layers=2, hidden=(4,), context_features=3).double()
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    context = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    claim = flow.log_density(x, context=context)
    torch.testing.assert_close(claim.value, flow.log_prob(x, context).detach())
    with pytest.raises(ValueError, match="needs a context"):
        flow.log_density(x)
    with pytest.raises(ValueError, match="as context, expects finite data"):
        flow.log_density(x, context=context * torch.nan)


def test_a_history_is_short_to_look_at(generator: Generator) -> None:
    history = Gaussian(2).fit(torch.randn(50, 2, generator=generator))
    assert repr(history).startswith("History(1 pass, objective -")
    assert "closed form" in repr(history)
