"""bfloat16 in the networks of a fit, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Model, StandardNormal, Training, lowered, maximise, tensor_float_32
from density.families.nets import mlp
from density.fitting.autocast import Lowering
from flows import AffineCoupling, Chain, Flow, glow, maf, real_nvp
from lvm import VAE
from lvm.evidence import Pilot, importance, sandwich
from tests.device.pretended import pretended
from tests.laws.transforms import randomise

TRAINING = Training(epochs=25, batch_size=50, learning_rate=1e-2, validation=0.2, progress=False)
MODELS: dict[str, Callable[[], Model]] = {
    "real_nvp": lambda: real_nvp(3, 2, (16,)),
    "glow": lambda: glow(3, 2, (16,)),
    "maf": lambda: maf(3, 2, (16,)),
    "vae": lambda: VAE.gaussian(3, 2, hidden=(16,)),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    x = torch.randn(400, 3, generator=generator).cumsum(1)
    x[:, 2] += x[:, 0].square()
    return x


def fitted(name: str, x: Tensor, autocast: torch.dtype | None) -> tuple[Model, list[float]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    training = Training(**{**vars(TRAINING), "autocast": autocast})
    history = model.fit(x, training, generator=Generator().manual_seed(1))  # type: ignore[call-arg]
    return model, history.validation


@pytest.mark.parametrize("name", MODELS)
def test_it_trains(name: str, x: Tensor) -> None:
    """As well as float32 does: a relative 2⁻⁸ in a network's outputs is small beside the noise of minibatches."""
    low, values = fitted(name, x, torch.bfloat16)
    _, full = fitted(name, x, None)
    assert values != full
    assert max(values) > values[0] + 0.1
    assert abs(max(values) - max(full)) < 0.1
    assert all(tensor.dtype == torch.float32 for tensor in low.parameters())
    assert not any("forward" in vars(module) for module in low.modules())


@pytest.mark.parametrize("name", ["real_nvp", "glow", "maf"])
def test_a_flow_stays_the_change_of_variables_that_it_computes(name: str, x: Tensor) -> None:
    """log|det| is that of the map as computed: the inverse comes back to float32's rounding, not to bfloat16's."""
    flow, _ = fitted(name, x, None)
    with torch.no_grad(), lowered(flow, torch.bfloat16):
        z, forward = flow.transform.forward(x)  # type: ignore[union-attr, operator]
        back, backward = flow.transform.inverse(z)  # type: ignore[union-attr, operator]
    full = flow.transform.forward(x)[0]  # type: ignore[union-attr, operator]
    assert (z - full).abs().max() > 1e-3, "nothing was rounded"
    assert z.dtype == forward.dtype == torch.float32
    # An autoregressive inverse feeds the networks values that float32 has rounded: a bfloat16 may round the other way.
    tolerance = 0.1 if name == "maf" else 1e-4
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(backward, -forward, rtol=tolerance, atol=tolerance)


def test_networks_are_as_they_were_even_when_one_fails() -> None:
    net = nn.ModuleList([mlp(2, 2)])
    with pytest.raises(RuntimeError, match="shapes"), lowered(net, torch.bfloat16):
        net[0](torch.zeros(1, 3))
    assert not torch.is_autocast_enabled("cpu")
    assert "forward" not in vars(net[0])


def test_a_forward_of_one_s_own_is_run_lower_and_kept() -> None:
    net, seen = mlp(2, 2), list[bool]()

    def own(x: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return 2 * type(net).forward(net, x)

    x, net.forward = torch.randn(4, 2), own  # type: ignore[method-assign]
    with torch.no_grad():
        with lowered(net, torch.bfloat16), lowered(net, torch.bfloat16):
            twice = net(x)
        assert vars(net)["forward"] is own
        assert 0 < (twice - net(x)).abs().max() < 0.1
    assert seen == [True, False]


def test_a_copy_made_within_has_its_own_weights() -> None:
    flow, x = real_nvp(3, 2, (8,)), torch.randn(5, 3)
    with torch.no_grad(), lowered(flow, torch.bfloat16):
        copy = randomise(deepcopy(flow), Generator().manual_seed(0)).float()
        found = copy.log_prob(x)
    assert not any(forward.network in flow.modules() for m in copy.modules() if (forward := vars(m).get("forward")))
    with torch.no_grad():
        assert (found - copy.log_prob(x)).abs().max() == 0  # which runs lower for good
        assert (found - flow.log_prob(x)).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_of_lowered_networks_stands_for_all_times(name: str, x: Tensor) -> None:
    """One graph without a break, compiled once, of equal values and gradients."""
    model, graphs = randomise(MODELS[name](), Generator().manual_seed(0)).float(), list[object]()  # type: ignore[type-var]

    def backend(graph: nn.Module, inputs: list[Tensor]) -> nn.Module:
        graphs.append(graph)
        return graph

    def found(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        torch.manual_seed(0)
        value = call(x)
        return [value.detach(), *torch.autograd.grad(value.mean(), [p for p in model.parameters() if p.requires_grad])]

    torch.compiler.reset()
    graph, lowering = (
        torch.compile(lambda x: model(x), backend=backend, fullgraph=True),
        Lowering(model, torch.bfloat16),
    )
    full = found(model)
    for _ in range(3):
        with lowering.entered():
            for mine, other in zip(found(graph), found(model), strict=True):
                torch.testing.assert_close(mine, other, rtol=0, atol=0)
            assert (found(model)[0] - full[0]).abs().max() > 1e-3
    assert len(graphs) == 1


def test_nothing_changes_without_a_dtype() -> None:
    net = mlp(2, 2)
    with lowered(net, None):
        assert "forward" not in vars(net)


def test_what_autocast_takes(x: Tensor) -> None:
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match=r"autocast takes torch.bfloat16 or None; got torch.float"):
            Training(autocast=dtype)
    with pytest.raises(ValueError, match=r"the data is torch.float64. Convert with x.float\(\)"):
        real_nvp(3, 2).fit(x.double(), Training(autocast=torch.bfloat16))


def test_claims_say_that_networks_run_lower(x: Tensor) -> None:
    """Those of the model that is lowered, also in a record of several, and not those of another."""
    torch.manual_seed(0)
    x, generator = x[:9], Generator().manual_seed(0)
    flow = randomise(real_nvp(3, 2, (8,)), generator).float()
    other, vae = maf(3, 2, (8,)), VAE.gaussian(3, 2, hidden=(8,))
    with lowered(nn.ModuleList([flow, vae]), torch.bfloat16):
        claims = [flow.log_density(x), vae.log_density(x, draws=4), importance(vae, x, draws=4, generator=generator)]
        full = other.log_density(x)
        both = sandwich(vae, 5, steps=3, chains=2, pilot=Pilot(chains=2, temperatures=2, transitions=1))
    for claim in (*claims, both.lower, both.upper):
        assert claim.method.count("networks in bfloat16") == 1
    assert (claims[0].value - flow.log_density(x).value).abs().max() > 0
    for claim in (full, flow.log_density(x)):
        assert "bfloat16" not in claim.method


def test_a_network_that_parts_share_has_its_own_forward_after(x: Tensor) -> None:
    network, masks = mlp(1, 4, (8,)), torch.eye(3, dtype=torch.bool)
    flow = Flow(StandardNormal(3), Chain(*(AffineCoupling(mask, conditioner=network) for mask in masks)))
    with lowered(flow, torch.bfloat16):
        assert "bfloat16" in flow.log_density(x).method
    assert "forward" not in vars(network)


def test_tensor_float_32_is_allowed_within_and_as_it_was_after() -> None:
    matmul = torch.backends.cuda.matmul
    for before in (False, True):
        matmul.allow_tf32 = before
        with tensor_float_32():
            assert matmul.allow_tf32
        with pytest.raises(KeyError), tensor_float_32():
            raise KeyError
        assert matmul.allow_tf32 is before
        with tensor_float_32(allowed=False):
            assert matmul.allow_tf32 is before
    matmul.allow_tf32 = False


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_tensor_float_32_beside_torch_s_own_word_for_it(before: str) -> None:
    torch.set_float32_matmul_precision(before)
    with tensor_float_32():
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == before
    torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="since torch 2.9")
@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_tensor_float_32_beside_torch_s_newer_setting(before: str) -> None:
    matmul = torch.backends.cuda.matmul
    matmul.fp32_precision = before
    with tensor_float_32():
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    assert matmul.allow_tf32 is (before == "tf32")  # torch refuses to say it where its two settings contradict
    matmul.allow_tf32, matmul.fp32_precision = False, "none"


def test_steps_are_in_tensor_float_32_and_looks_are_not() -> None:
    line, x, found = nn.Linear(1, 1), torch.ones(9, 1), []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        found.append((line.training, torch.backends.cuda.matmul.allow_tf32))
        return -line(batch[0]).square()[:, 0]

    for tf32 in (True, False):
        found.clear()
        maximise(line, objective, (x,), Training(epochs=2, validation=0.3, progress=False, tf32=tf32))
        assert set(found) == {(True, tf32), (False, False)}
    assert "tf32" not in Training().task()  # files of before know nothing of it
    assert Training(tf32=True).task()["tf32"]


@pytest.mark.parametrize(
    ("device", "dtype", "rounded"),
    [("cuda", torch.float32, True), ("cuda", torch.float64, False), ("cpu", torch.float32, False)],
)
def test_claims_say_that_products_are_rounded_where_they_are(device: str, dtype: torch.dtype, rounded: bool) -> None:
    with pretended(), tensor_float_32():
        flow = real_nvp(3, 2, (8,)).to(device, dtype)
        claim = flow.log_density(torch.zeros(4, 3, device=device, dtype=dtype))
    assert ("products in TF32" in claim.method) is rounded
