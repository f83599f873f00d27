"""Save and load: every model of every table comes back as it was, and what cannot be saved says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from torch import Generator, Tensor, nn

from bridge import (
    Abs,
    DiagonalJacobianEncoder,
    FlowVAE,
    GaussianRelaxation,
    HalfNormal,
    JacobianEncoder,
    MarginalBound,
    probability_flow,
)
from bridge.conversions.nflows_transforms import FromNflows
from density import (
    Bound,
    ConditionalGaussian,
    Density,
    DiscretisedLogistic,
    FixedScale,
    Gaussian,
    Poisson,
    Rebuildable,
    StandardNormal,
    Training,
    ZeroInflated,
    load,
    mlp,
    save,
)
from density.saving.classes import ROOMS, TORCH
from density.saving.files import VERSION
from flows import (
    ActNorm,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    LULinear,
    MaskedMLP,
    Transform,
    continuous_flow,
    linear_flow,
    real_nvp,
)
from lvm import (
    PPCA,
    VAE,
    CosineSchedule,
    ExactLayeredModel,
    GaussianDiffusion,
    GaussianMixture,
    LayeredModel,
    LinearGaussian,
    LinearGaussianPosterior,
    LinkedModel,
    Prediction,
    Tied,
)
from tests.bridge.relaxed import FLOWS as RELAXED
from tests.bridge.test_hybrids import HYBRIDS
from tests.bridge.test_relaxation_model import CASES as RELAXATIONS
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.layered_models import LOOSE, TIGHT, OrderStatistics
from tests.cases.likelihoods import LIKELIHOODS
from tests.cases.transforms import TRANSFORMS
from tests.equivalence.examples import FLOWS, random_flow
from tests.laws.transforms import randomise
from tests.saving.saved_models import FOLDERS, MODELS, RECORD, files, values


class Widening(Rebuildable, nn.Module):
    """A network of one's own that a file can rebuild."""

    def __init__(self, inputs: int, *widths: int, slope: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, widths[0])
        self.last = nn.Linear(widths[0], widths[1])
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(nn.functional.leaky_relu(self.first(x), self.slope))
        return out


class Spline(FromNflows):
    """An nflows transform by a class that builds it from numbers."""

    def __init__(self, features: int, bins: int = 4) -> None:
        spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            features, 8, num_bins=bins, tails="linear", tail_bound=3.0, num_blocks=1
        )
        super().__init__(spline, features)


def relaxed(generator: Generator) -> GaussianRelaxation:
    return randomise(GaussianRelaxation(linear_flow(2), 0.3), generator)


def diffusion() -> GaussianDiffusion:
    schedule = CosineSchedule(-2.0, 2.0)
    return GaussianDiffusion.of_vectors(2, hidden=(4,), steps=3, schedule=schedule, prediction=Prediction.VELOCITY)


OWN = (OrderStatistics, Widening, Spline)
Make = Callable[[Generator], nn.Module]
TABLES: dict[str, dict[str, Make]] = {
    "densities": {name: case.make for name, case in (DENSITIES | LIKELIHOODS).items()},
    "transforms": {name: case.make for name, case in TRANSFORMS.items() if "nflows" not in name},
    "bounds": {name: case.make for name, case in (BOUNDS | HYBRIDS).items()},
    "layered models": {name: case.make for name, case in (TIGHT | LOOSE).items()},
    "relaxations": {name: case.make for name, case in RELAXATIONS.items()},
    "relaxed flows": {name: lambda g, make=make: make(g, 2) for name, make in RELAXED.items()},
    "flows": {name: lambda g, name=name: random_flow(name, g) for name in FLOWS if "nflows" not in name},
    "models to be kept": {name: lambda g, make=make: randomise(make(), g) for name, make in MODELS.items()},
    "by hand": {
        "a network of one's own": lambda g: randomise(
            ConditionalGaussian(Widening(3, 5, 2, slope=0.4), 2, 3, FixedScale(0.3)), g
        ),
        "a spline of one's own": lambda g: randomise(Flow(StandardNormal(3), Chain(Spline(3), LULinear(3))), g),
        "a masked network as conditioner": lambda g: randomise(
            GaussianAutoregressive(2, order=[1, 0], conditioner=MaskedMLP([1, 0], 2, (4,), activation=nn.ReLU)), g
        ),
        "a posterior by itself": lambda g: randomise(LinearGaussianPosterior(LinearGaussian(3, 2)), g),
        "a mixture's posterior by itself": lambda g: randomise(GaussianMixture(3, 2), g).encoder,
        "a relaxation's posterior by itself": lambda g: JacobianEncoder(relaxed(g).decoder),
        "a diagonal one": lambda g: DiagonalJacobianEncoder(relaxed(g).decoder),
        "float32 within float64": lambda g: Chain(ActNorm(2).double(), LULinear(2)),
        "an exact layered model": lambda g: randomise(ExactLayeredModel(HalfNormal(2), Abs(2), "by hand"), g),
        "levels": lambda g: randomise(VAE.of(3, 2, DiscretisedLogistic(5, 2), hidden=(4,)), g),
        "counts": lambda g: randomise(VAE.of(3, 2, ZeroInflated(Poisson()), hidden=(4,)), g),
        "a linked model": lambda g: randomise(LinkedModel(HalfNormal(2), Abs(2)), g),
        "a diffusion": lambda g: randomise(GaussianDiffusion.of_vectors(2, hidden=(4,), steps=3), g),
        "its probability flow": lambda g: probability_flow(randomise(diffusion(), g), tolerance=1e-2),
        "a continuous flow": lambda g: randomise(continuous_flow(2, (4,), 1, tolerance=1e-3), g),
        "a flow of incomplete rows": lambda g: randomise(MarginalBound(real_nvp(2, 2, (4,)), GaussianMixture(2, 2)), g),
        "a flow of a flow": lambda g: randomise(Flow(Flow(GaussianMixture(2, 2, Tied()), LULinear(2)), ActNorm(2)), g),
    },
}
CASES = {f"{table}: {name}": make for table, cases in TABLES.items() for name, make in cases.items()}


def answers(module: nn.Module) -> Iterator[Tensor]:
    """What a module computes, and draws from equal generators."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=Generator().manual_seed(0), dtype=torch.float64).to(like)

    like = next(
        (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.zeros(()).double()
    )
    if isinstance(module, Transform):
        width = module.features or 3
        x = normal(4, width).sigmoid()
        context = normal(4, module.context_features) if module.context_features else None
        for call in (module.forward, module.inverse):
            yield from call(x, context)
    if isinstance(module, Density):
        context = normal(4, module.context_features) if module.context_features else None
        x = module.sample(4, generator=Generator().manual_seed(1), context=None if context is None else context[0])
        yield x
        yield module.log_prob(x, context)
    if isinstance(module, LayeredModel):
        given = {"context": normal(4, module.context_features)} if module.context_features else {}
        x = module.sample(4, **given, generator=Generator().manual_seed(1))
        yield x
        levels = getattr(module.link, "levels", None)  # the model itself also draws integers that are none
        x = x if levels is None else x.clamp(0, levels - 1)
        yield module.log_weights(x, 3, **given, generator=Generator().manual_seed(2))
    elif isinstance(module, Bound):
        yield module.log_weights(normal(4, module.features), 3, generator=Generator().manual_seed(2))


def tensors(module: nn.Module) -> tuple[Iterator[tuple[str, Tensor]], Iterator[tuple[str, Tensor]]]:
    return module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded_is_the_same(name: str, generator: Generator, tmp_path: Path) -> None:
    model = CASES[name](generator)
    parameters = list(model.parameters())
    if parameters:
        parameters[0].requires_grad_(False)
    list(model.modules())[-1].eval()
    before = torch.get_rng_state()
    save(model, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt", classes=OWN)
    assert torch.get_rng_state().equal(before), "the global generator moved"
    assert type(again) is type(model)
    assert repr(again) == repr(model)
    assert [m.training for m in again.modules()] == [m.training for m in model.modules()]
    for mine, other in zip(tensors(model), tensors(again), strict=True):
        for (key, tensor), (other_key, copy) in zip(mine, other, strict=True):
            assert (key, tensor.dtype, tensor.requires_grad) == (other_key, copy.dtype, copy.requires_grad)
            assert tensor.stride() == copy.stride()
            assert tensor.equal(copy)
            assert tensor.data_ptr() != copy.data_ptr() or not tensor.numel()
    if "float32 within" in name:
        return
    mine, others = list(answers(model)), list(answers(again))
    assert mine
    assert [a.equal(b) for a, b in zip(mine, others, strict=True)] == [True] * len(mine)
    for a in mine:
        assert a.isfinite().all()


def test_every_public_class_is_in_a_table() -> None:
    """What a package exports and can be saved is saved above, as a model or as a part of one; adapters refuse to be."""
    adapters = {"AdaptedVAE", "FromDistribution", "FromFreia", "FromLogProb", "FromScvi"}
    met: set[type] = set()
    for make in CASES.values():
        met |= {type(module) for module in make(Generator().manual_seed(0)).modules()}
    met |= {Flow}  # of FlowVAE, which keeps its parts
    exported = {
        value
        for room in ROOMS
        for value in vars(__import__(room)).values()
        if isinstance(value, type)
        and issubclass(value, Rebuildable)
        and not getattr(value, "__abstractmethods__", None)
    }
    assert {cls.__name__ for cls in exported - met} == {"Rebuildable", "AmortisedModel", "FittedByBound", *adapters}


LAYER_EXAMPLES: list[nn.Module] = [
    nn.Linear(3, 2, bias=False),
    nn.Identity(),
    nn.Flatten(2),
    nn.Unflatten(1, (2, 3)),
    nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2, bias=False),
    nn.Conv2d(2, 4, (3, 1), dilation=2, padding="same", padding_mode="circular"),
    nn.ConvTranspose1d(2, 4, 3, output_padding=1, stride=2),
    nn.ConvTranspose2d(2, 4, 3, bias=False),
    nn.LayerNorm((2, 3), eps=1e-3, elementwise_affine=False),
    nn.GroupNorm(2, 4, eps=1e-3),
    nn.BatchNorm1d(3, momentum=0.3, affine=False),
    nn.BatchNorm2d(3, track_running_stats=False),
    nn.Dropout(0.3),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.MaxPool2d(3, 2, 1),
    nn.AdaptiveAvgPool2d((2, None)),
    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    nn.PixelShuffle(3),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.3),
    nn.PReLU(3),
    nn.ELU(0.5),
    nn.SELU(),
    nn.CELU(0.5),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Softplus(2.0, 10.0),
    nn.Softsign(),
    nn.Hardtanh(-2.0, 3.0),
]


def test_layers_of_torch_keep_their_settings(tmp_path: Path) -> None:
    assert [type(layer) for layer in LAYER_EXAMPLES] == list(TORCH.values())[1:]
    network = nn.Sequential(*LAYER_EXAMPLES)
    save(network, tmp_path / "network.pt")
    again = load(tmp_path / "network.pt")
    assert repr(again) == repr(network)
    for layer, copy in zip(network, again, strict=True):  # type: ignore[call-overload]
        assert vars(copy).keys() == vars(layer).keys()
        for key, value in vars(layer).items():
            if not key.startswith("_"):
                assert vars(copy)[key] == value, (layer, key)


def test_networks_with_named_parts_keep_the_names(tmp_path: Path) -> None:
    network = nn.Sequential()
    network.add_module("first", nn.Linear(3, 4))
    network.add_module("second", mlp(4, 2, (3,)))
    save(network, tmp_path / "network.pt")
    assert load(tmp_path / "network.pt").state_dict().keys() == network.state_dict().keys()


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    first, second = AffineCoupling([True, False, True], conditioner=network), ActNorm(3)
    twice = Chain(first, second, AffineCoupling([False, True, True], conditioner=nn.Linear(1, 4)), second, first)
    third = twice.parts[2]
    assert isinstance(third, AffineCoupling)
    assert isinstance(third.conditioner, nn.Linear)
    tied = nn.Linear(3, 3)
    third.conditioner.bias = nn.Parameter(torch.randn(4))
    both = nn.Sequential(twice_used := nn.Linear(3, 3), nn.Tanh(), twice_used, tied)
    tied.weight = twice_used.weight
    for module in (twice, both):
        save(module, tmp_path / "shared.pt")
        again = load(tmp_path / "shared.pt")
        assert len(list(again.parameters())) == len(list(module.parameters()))
        assert len(list(again.modules())) == len(list(module.modules()))
    assert again[0] is again[2]  # type: ignore[index]
    assert again[3].weight is again[0].weight  # type: ignore[index]


def test_a_view_of_a_flow_shares_its_parts_with_it(tmp_path: Path) -> None:
    flow = real_nvp(2, 2, (4,))
    model = VAE(flow, ConditionalGaussian(nn.Linear(2, 4), 2, 2), GaussianRelaxation(flow, 0.2).decoder)
    save(model, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt")
    assert again.prior.transform is again.decoder.transform  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_precision_is_kept_under_another_default(dtype: torch.dtype, tmp_path: Path) -> None:
    model = FlowVAE(real_nvp(3, 2, (4,))).to(dtype)
    save(model, tmp_path / "model.pt")
    torch.set_default_dtype(torch.float64 if dtype is torch.float32 else torch.float32)
    try:
        again = load(tmp_path / "model.pt")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {t.dtype for t in (*again.parameters(), *again.buffers()) if t.is_floating_point()} == {dtype}


def test_a_loaded_model_can_be_fitted_further(generator: Generator, tmp_path: Path) -> None:
    x = torch.randn(200, 3, generator=generator) @ torch.randn(3, 3, generator=generator)
    settings = Training(epochs=2, progress=False)
    for model in (VAE.gaussian(3, 1, hidden=(8,)), real_nvp(3, 2, (8,)), PPCA(3, 1), Gaussian(3)):
        arguments = (settings,) if isinstance(model, VAE | Flow) else ()
        keywords = {"generator": Generator().manual_seed(3)} if arguments else {}
        model.fit(x, *arguments, **keywords)  # type: ignore[operator]
        save(model, tmp_path / "model.pt")
        again = load(tmp_path / "model.pt")
        for one in (model, again):
            keywords = {"generator": Generator().manual_seed(4)} if arguments else {}
            one.fit(x, *arguments, **keywords)  # type: ignore[operator]
        for mine, other in zip(model.parameters(), again.parameters(), strict=True):
            assert mine.equal(other)


def test_a_loaded_model_goes_where_it_is_told(device: torch.device, tmp_path: Path) -> None:
    save(linear_flow(2).to(device), tmp_path / "flow.pt")
    assert {p.device.type for p in load(tmp_path / "flow.pt").parameters()} == {"cpu"}
    assert {p.device.type for p in load(tmp_path / "flow.pt", device=device).parameters()} == {device.type}
    assert {p.device.type for p in load(tmp_path / "flow.pt", device="meta").parameters()} == {"meta"}


def test_copies_remember_what_they_were_built_with(tmp_path: Path) -> None:
    model = FlowVAE(real_nvp(2, 2, (4,)))
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1.0)
    save(copy, tmp_path / "copy.pt")
    for mine, other in zip(copy.parameters(), load(tmp_path / "copy.pt").parameters(), strict=True):
        assert mine.equal(other)


class Noisy(Rebuildable, nn.Module):
    def __init__(self, width: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, generator=generator))


def test_generators_are_not_kept(tmp_path: Path) -> None:
    """They drew the first values; a file holds the present ones."""
    for part in (Noisy(3, Generator().manual_seed(0)), Noisy(3, generator=Generator().manual_seed(0))):
        save(deepcopy(part), tmp_path / "part.pt")
        assert load(tmp_path / "part.pt", classes=[Noisy]).weight.equal(part.weight)  # type: ignore[arg-type, union-attr]


# ---------------------------------------------------------------------------------------------------------------------
# Readable years later
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", files())
def test_files_of_every_version_are_read(name: str) -> None:
    """Written once and kept: ``python -m tests.saving.saved_models`` adds files and changes none."""
    recorded = torch.tensor(json.loads(RECORD.read_text())[name.partition("/")[2]], dtype=torch.float64)
    # Float64 and a few hundred operations; sums may be ordered otherwise on another machine.
    torch.testing.assert_close(values(load(files()[name])), recorded, rtol=1e-11, atol=1e-11)


def test_no_file_of_any_version_is_forgotten() -> None:
    names = {version: {path.stem for path in folder.glob("*.pt")} for version, folder in FOLDERS.items()}
    assert names[VERSION] == set(MODELS) == set(json.loads(RECORD.read_text()))
    assert {version: len(of) for version, of in names.items()} == {1: 25, 2: 38}
    for name, path in files().items():
        assert torch.load(path, weights_only=True)["version"] == int(name[0])
        assert path.stat().st_size < 40_000
