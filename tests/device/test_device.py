"""On a device everything is as on the CPU: the same numbers from the same seeds, and no tensor left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bridge.conversions.linear import as_autoregressive
from density import (
    Checkpoint,
    CheckpointMismatch,
    Columns,
    GaussianLikelihood,
    Training,
    adam,
    lbfgs,
)
from density.families.noise import normal_noise
from density.fitting.optimisers import OptimiserOf
from flows import (
    AffineCoupling,
    Permutation,
    QRLinear,
    glow,
    iaf,
    linear_flow,
    maf,
    neural_spline_flow,
    random_rotation,
    real_nvp,
    spline_maf,
)
from flows.networks.masked import MaskedResidualMLP
from lvm import (
    EM,
    PPCA,
    VAE,
    CollapsedComponent,
    Diagonal,
    FiniteMixture,
    Full,
    GaussianMixture,
    LinearVAE,
    Spherical,
    StochasticEM,
    Tied,
)
from lvm.em import Present
from lvm.mixture.covariance import Covariance
from lvm.ppca.observed_em import MissingEM
from tests.cases.bounds import BOUNDS
from tests.cases.densities import DENSITIES
from tests.cases.fits import fitted
from tests.cases.layered_models import LOOSE, TIGHT
from tests.cases.likelihoods import LIKELIHOODS
from tests.cases.transforms import TRANSFORMS
from tests.device.comparing import ROUNDING, asking_nothing, both, contents, made, seed
from tests.device.counting import counting
from tests.device.pretended import pretended

ROOT = Path(__file__).parents[2]
REJECTING = dict.fromkeys(("Beta", "NegativeBinomial", "ZeroInflated"), 99)  # whose draws wait until none is left


@pytest.fixture
def pretence() -> Iterator[None]:
    with pretended():
        yield


@pytest.mark.usefixtures("pretence")
def test_the_pretence() -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert there.device == torch.device("cuda", 0)
    assert (there + 1).sum().device.type == "cuda"
    assert there.to(here).device.type == here.to(there).cpu().device.type == "cpu"
    for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: here[there.long()]):
        with pytest.raises(RuntimeError, match="at least two devices"):
            mixed()
    for apart in (lambda: torch.randn(3, generator=seed("cuda")), lambda: there.normal_(generator=seed("cpu"))):
        with pytest.raises(RuntimeError, match="device type for generator"):
            apart()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    layer = nn.Linear(3, 2).to("cuda")
    layer(there).sum().backward()
    assert all(isinstance(p, nn.Parameter) and p.device == there.device == p.grad.device for p in layer.parameters())  # type: ignore[union-attr]
    with torch.device("cuda"):
        assert torch.get_default_device() == nn.Linear(3, 2).weight.device == there.device


SOLVED = [pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMS if "continuous" in name]


@pytest.mark.parametrize("name", [*SOLVED, *(name for name in TRANSFORMS if "continuous" not in name)])
def test_transforms(name: str) -> None:
    case = TRANSFORMS[name]

    def call(device: str) -> list[Any]:
        transform = made(case, device)
        given = case.points(seed("cpu"), 9), case.context(transform, seed("cpu"), 9)
        x, context = (None if t is None else t.to(device) for t in given)
        parameters, found = [p for p in transform.parameters() if p.numel()], []
        for go in (transform.forward, transform.inverse):
            with asking_nothing(device):
                y, log_det = go(x, context)
            loss = y.square().sum() + log_det.sum()
            found += [y, log_det]
            found += torch.autograd.grad(loss, parameters, materialize_grads=True) if parameters else ()
            x = y.detach()
        return found

    both(call)


@pytest.mark.parametrize("name", [*DENSITIES, *LIKELIHOODS])
def test_densities(name: str) -> None:
    case = (DENSITIES | LIKELIHOODS)[name]

    def call(device: str) -> list[Any]:
        density = made(case, device)
        given = case.points(density, seed("cpu"), 9), case.context(density, seed("cpu"), 9)
        x, context = (None if t is None else t.to(device) for t in given)
        density.check_support(x)
        generator = seed(device)
        with asking_nothing(device, waits=REJECTING.get(name, 0)):
            pair = density.sample_with_log_prob(4, context=context, generator=generator)
        with asking_nothing(device):
            return [density.log_prob(x, context), pair]

    both(call)


@pytest.mark.parametrize("name", [*BOUNDS, *TIGHT, *LOOSE])
def test_models_with_log_weights(name: str) -> None:
    case = {**BOUNDS, **TIGHT, **LOOSE}[name]

    def call(device: str) -> list[Any]:
        model = made(case, device)
        x = case.points(model, seed("cpu"), 6).to(device)
        given = {name: context.to(device) for name, context in case.given(model, seed("cpu"), 6).items()}
        claim = model.log_density(x, draws=20, generator=seed(device), **given)
        generators = [seed(device) for _ in range(3)]
        with asking_nothing(device):
            found = [
                model.elbo(x, draws=1, generator=generators[0], **given),
                model.elbo(x, draws=3, generator=generators[1], **given),
                model.sample(4, generator=generators[2], **given),
            ]
        return [*found, claim]

    both(call)


def test_rows_far_out_take_another_path_of_em_to_the_same() -> None:
    """Features are not safe for them: what was computed without looking is done again with a look."""
    x = torch.randn(2000, 4, generator=seed("cpu"), dtype=torch.float64)
    x[7] = 1e9
    settings = EM(max_iterations=3, tolerance=0.0, progress=False)

    def call(device: str) -> nn.Module:
        return fitted(GaussianMixture(4, 3), x.to(device), settings, generator=seed(device))

    both(call)


@pytest.mark.usefixtures("pretence")
def test_a_row_whose_features_are_not_safe_is_found_without_looking_at_it() -> None:
    """One far beyond the mixture, but not so far that its component loses digits: the E-step is done again."""
    model, x = GaussianMixture(4, 3).double().to("cuda"), torch.randn(2000, 4, dtype=torch.float64, device="cuda")
    waits = []
    for far in (1.0, 1e4):
        x[7] = far
        with counting() as counts:
            model.summarise(x)
        waits.append(counts.waits.total())
    assert waits[1] > waits[0]


@pytest.mark.parametrize("structure", [Full(), Tied(), Diagonal(), Spherical()])
def test_a_component_that_collapses_is_told_and_the_model_is_what_it_was_before(structure: Covariance) -> None:
    x = torch.tensor([[0.0, 0.0]] * 3 + [[9.0, 1.0]] * 3, dtype=torch.float64)
    words = []

    def call(device: str) -> nn.Module:
        model = GaussianMixture(2, 2, structure).double().to(device)
        with torch.no_grad():
            model.decoder.means.copy_(torch.tensor([[1.0, 0.0], [8.0, 1.0]], dtype=torch.float64, device=device))
        settings = EM(start=Present(), regularisation=0.0, progress=False)
        with pytest.raises(CollapsedComponent) as found:
            model.fit(x.to(device), em=settings)
        words.append(str(found.value))
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        return model

    both(call)
    assert words[0] == words[1]


COLLAPSES: dict[str, Callable[[Tensor], object]] = {
    "a table": lambda x: FiniteMixture(2, 2, KINDS).fit(x, em=COLLAPSING, smoothing=0.0),
    "a table with gaps": lambda x: FiniteMixture(2, 2, KINDS).observed.fit(
        torch.where(x == 7.0, torch.nan, x), em=COLLAPSING, smoothing=0.0
    ),
    "an epoch": lambda x: GaussianMixture(2, 2).fit(
        x, em=StochasticEM(batch_size=4, delay=0.0, exponent=1.0, regularisation=0.0, progress=False)
    ),
}
KINDS = Columns([GaussianLikelihood(), GaussianLikelihood()])
COLLAPSING = EM(regularisation=0.0, progress=False)


@pytest.mark.usefixtures("pretence")
@pytest.mark.parametrize("name", COLLAPSES)
def test_a_collapse_that_is_looked_for_later_is_told_in_the_same_words(name: str) -> None:
    x = torch.tensor([[0.0, 0.0], [0.5, 0.1], [0.1, 0.4], [0.3, 0.2]] * 4 + [[9.0, 7.0]] * 4, dtype=torch.float64)
    words, courses = [], []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        with pytest.raises(CollapsedComponent) as found:
            COLLAPSES[name](x.to(device))
        words.append(str(found.value))
        assert found.value.history is not None
        courses.append(found.value.history.objective)
    assert words[0] == words[1]
    assert courses[1] == pytest.approx(courses[0], abs=ROUNDING)


@pytest.mark.usefixtures("pretence")
def test_ppca_without_a_maximum_says_so_in_the_same_words() -> None:
    x = torch.randn(40, 1, generator=seed("cpu"), dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    x[::3, 1] = torch.nan
    words = []
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match="the data varies along no more than 2 axes") as found:
            PPCA(4, 2).observed.fit(x.to(device), MissingEM(progress=False))
        words.append(str(found.value))
    assert words[0] == words[1], words


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "real_nvp": lambda: real_nvp(4, 2, (8,)),
    "glow": lambda: glow(4, 2, (8,), linear=random_rotation(seed("cpu"))),
    "neural_spline_flow": lambda: neural_spline_flow(4, 2, (8,), linear=random_rotation(seed("cpu"))),
    "spline_maf": lambda: spline_maf(4, 2, (8,)),
    "maf": lambda: maf(4, 2, (8,)),
    "iaf, context": lambda: iaf(4, 2, (8,), 3),
    "QR": lambda: linear_flow(4, QRLinear),
    "permutation": lambda: Permutation([1, 0]),
    "residual": lambda: MaskedResidualMLP(range(3)),
    "as_autoregressive": lambda: as_autoregressive(AffineCoupling([True, False, True])),
    "VAE": lambda: VAE.gaussian(4, 2, hidden=(8,)),
    "linear VAE": lambda: LinearVAE(4, 2),
    "mixture": lambda: GaussianMixture(4, 2),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_is_built_on_the_default_device(name: str) -> None:
    """As one that is built on the CPU and moved."""

    def call(device: str) -> nn.Module:
        torch.manual_seed(3)
        with torch.device(device):
            return BUILDERS[name]()

    both(call)


@pytest.mark.usefixtures("pretence")
@pytest.mark.parametrize("lies", ["cpu", "cuda"])
@pytest.mark.parametrize("default", ["cpu", "cuda"])
def test_a_generator_may_lie_elsewhere(default: str, lies: str) -> None:
    """Initial weights are drawn where the generator is, and go to the default device."""
    with torch.device(default):
        weights = normal_noise(3, 2, generator=seed(lies))
        models = [
            LinearVAE(4, 2, generator=seed(lies)),
            linear_flow(4, lambda features, bias: QRLinear(features, bias=bias, generator=seed(lies))),
            glow(4, 2, (8,), linear=random_rotation(seed(lies))),
        ]
    assert weights.device.type == default
    assert weights.cpu().equal(torch.randn(3, 2, generator=seed("cpu")))
    for tensor in contents(models):
        assert tensor.device.type == default


@pytest.mark.usefixtures("pretence")
@pytest.mark.parametrize("first", ["cpu", "cuda"])
@pytest.mark.parametrize(("generated", "optimiser"), [(True, adam), (False, adam), (True, lbfgs)])
def test_a_checkpoint_of_another_device_is_refused(
    first: str, generated: bool, optimiser: OptimiserOf, tmp_path: Path
) -> None:
    """For that reason alone: what optimisers keep has one layout."""
    second = {"cpu": "cuda", "cuda": "cpu"}[first]
    x = torch.randn(40, 2, generator=seed("cpu"))
    checkpoint = Checkpoint(tmp_path / "fit", steps=1)
    training = Training(epochs=2, progress=False, optimiser=optimiser, checkpoint=checkpoint)

    def fit(device: str) -> nn.Module:
        torch.manual_seed(0)
        return fitted(real_nvp(2, 2, (4,)), x.to(device), training, generator=seed(device) if generated else None)

    fit(first)
    words = {"cpu": "the CPU", "cuda": "an accelerator"}
    with pytest.raises(
        CheckpointMismatch, match=f"another fit: the fit ran on {words[first]} there and runs on {words[second]} here"
    ):
        fit(second)
    fit(first)  # which has ended, and is given back


@pytest.mark.slow
def test_laws_of_bounds_run_on_a_device_of_their_own() -> None:
    """Their fixtures and oracles too, as with ``--device cuda`` where there is one."""
    plugin = ("-p", "tests.device.session", "--device", "cuda")
    subprocess.run([sys.executable, "-m", "pytest", "-q", *plugin, "tests/laws/test_bounds.py"], cwd=ROOT, check=True)
