"""Batches in parts: gradient accumulation, with random streams that follow from step and part alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Training, lbfgs
from density.fitting.batches import PartedBatches, WholeBatches
from density.fitting.optimisers import constant
from density.fitting.rows import RowSet
from density.parallel.random_streams import Randomness, Streams
from flows import real_nvp
from lvm import VAE

TRAINING = Training(epochs=4, batch_size=16, learning_rate=1e-2, validation=0.2, progress=False)


@pytest.fixture
def data(generator: Generator) -> Tensor:
    return torch.randn(63, 3, generator=generator, dtype=torch.float64).cumsum(1)


def seeded() -> Generator:
    return Generator().manual_seed(7)


@pytest.mark.parametrize("parts", [2, 3, 7, 100])
@pytest.mark.parametrize("memory", [False, True])
def test_parts_of_a_flow_are_the_whole(parts: int, memory: bool, data: Tensor) -> None:
    """3 of 51 rows are left for the last batch, so that most parts of it are empty; float64, order of summation."""
    changes = {"optimiser": lbfgs, "batch_size": None, "learning_rate": 1.0, "schedule": constant, "epochs": 1}
    training = replace(TRAINING, **changes) if memory else TRAINING  # type: ignore[arg-type]
    fits = []
    for split in (None, parts):
        torch.manual_seed(0)
        flow = real_nvp(3, 2, (8,))
        history = flow.fit(data, replace(training, parts=split), generator=seeded())
        fits.append((dict(flow.state_dict()), history.objective, history.validation))
    # 20 steps of Adam, or of L-BFGS with its line search, from gradients that differ by some 1e-15 relative.
    torch.testing.assert_close(fits[0], fits[1], rtol=1e-8, atol=1e-8)


def test_every_row_of_unequal_parts_weighs_the_same(data: Tensor) -> None:
    """The gradient of a batch of 16 in 3 parts (5, 5 and 6 rows) is the mean over rows, to rounding."""
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return (batch[0] * weight).sum(-1).sin()

    gradients, losses = [], []
    parted = PartedBatches(objective, [weight], 3, Streams(seeded(), torch.device("cpu")))
    for batches in (WholeBatches(objective, None), parted):
        weight.grad = None
        losses.append(batches.backward((data[:16],), step=0).detach())
        assert weight.grad is not None
        gradients.append(weight.grad)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-13, atol=1e-14)
    whole, parts = (
        batches.total(RowSet((data,), torch.arange(len(data)))) for batches in (WholeBatches(objective, None), parted)
    )
    torch.testing.assert_close(whole, parts, rtol=1e-13, atol=1e-13)


def test_draws_of_parts_are_independent_of_each_other(data: Tensor) -> None:
    seen: list[Tensor] = []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        seen.append(torch.cat([torch.randn(2, generator=generator), torch.randn(2)]))
        return (batch[0] * weight).sum(-1)

    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    batches = PartedBatches(objective, [weight], 4, Streams(seeded(), torch.device("cpu")))
    before = torch.get_rng_state()
    for step in (0, 1, 0):
        batches.backward((data[:16],), step)
    assert torch.get_rng_state().equal(before)
    assert len(torch.cat(seen[:8]).unique()) == 32  # of the stream and of torch's own generator, all different
    assert torch.stack(seen[8:]).equal(torch.stack(seen[:4]))


def test_memory_is_that_of_a_part(data: Tensor) -> None:
    module, most = VAE.gaussian(3, 2, hidden=(8,)), 0

    def watch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal most
        most = max(most, inputs[0].shape[-2])

    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(watch)
    module.fit(data, replace(TRAINING, parts=4, epochs=1, batch_size=16), generator=seeded())
    assert most == 4


def test_parts_of_a_vae_have_the_gradient_of_the_whole_in_expectation(data: Tensor) -> None:
    """Mean over 300 draws of the gradient of a sampled ELBO, entry by entry, within 5 standard errors of both."""
    model = VAE.gaussian(3, 1, hidden=(4,)).double()
    parameters = list(model.parameters())

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return model.elbo(batch[0], generator=generator)

    means, errors = [], []
    streams = Streams(seeded(), torch.device("cpu"))
    for batches in (WholeBatches(objective, seeded()), PartedBatches(objective, parameters, 3, streams)):
        draws = []
        for step in range(300):
            model.zero_grad(set_to_none=True)
            batches.backward((data[:16],), step)
            draws.append(torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None]))
        gradients = torch.stack(draws)
        means.append(gradients.mean(0))
        errors.append(gradients.std(0) / 300**0.5)
    assert errors[0].max() > 0
    assert ((means[0] - means[1]).abs() <= 5 * torch.hypot(errors[0], errors[1]) + 1e-12).all()


@pytest.mark.parametrize("given", [True, False])
def test_random_states_come_back(given: bool) -> None:
    generator = seeded() if given else None
    randomness = Randomness(generator, torch.device("cpu"))
    state = randomness.state()
    assert not randomness.differs(state)
    first = torch.randn(3, generator=generator), torch.randn(3)
    assert randomness.differs(state)
    randomness.restore(state)
    assert not randomness.differs(state)
    assert (torch.randn(3, generator=generator), torch.randn(3))[0].equal(first[0])
    assert randomness.seed == (7 if given else None)


@pytest.mark.parametrize("parts", [0, -1, 1.5])
def test_parts_out_of_range(parts: int) -> None:
    with pytest.raises(ValueError, match="parts must be a positive int"):
        Training(parts=parts)
