"""Speed that must not be lost, by counts that no other load on the machine changes: products, flops, largest tensor."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lvm import PPCA, VAE, GaussianMixture

pytestmark = pytest.mark.slow

PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_", "matmul"}


class Counts(TorchDispatchMode):
    """The number of matrix products, and of scalars in the largest tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in PRODUCTS
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                # what is expanded or is a view of something given holds no memory of its own beyond its storage
                self.largest = max(self.largest, one.untyped_storage().nbytes() // one.element_size())
        return result


def counted(work: Callable[[], object]) -> tuple[int, Counts]:
    with torch.no_grad():
        with FlopCounterMode(display=False) as flops:
            work()
        with Counts() as counts:
            work()
    return flops.get_total_flops(), counts


def mixture(features: int, components: int) -> GaussianMixture:
    """Unit Gaussians, whose quadratic features lose no digits."""
    weights = torch.full((components,), 1 / components, dtype=torch.float64)
    means = torch.randn(components, features, dtype=torch.float64)
    eyes = torch.eye(features, dtype=torch.float64).repeat(components, 1, 1)
    return GaussianMixture.from_parameters(weights, means, eyes)


def added(model: GaussianMixture, rows: int) -> tuple[int, int, int]:
    """What twice as many rows add to an E-step, in flops and products, and its largest tensor."""
    x = torch.randn(2 * rows, model.features, dtype=torch.float64)
    one, two = (counted(lambda n=n: model.summarise(x[:n].clone(), rows_at_once=1000)) for n in (rows, 2 * rows))
    return two[0] - one[0], two[1].products - one[1].products, two[1].largest


@pytest.mark.parametrize(("d", "k", "allowed"), [(8, 10, 0.7), (64, 16, 1.5), (2, 50, 0.6)])
def test_a_row_of_an_em_step_costs_little_more_than_its_two_products(d: int, k: int, allowed: float) -> None:
    torch.manual_seed(0)
    flops, _, largest = added(mixture(d, k), 3000)
    width = (d + 1) * (d + 2) // 2
    # Two products of n, K and F numbers; the counter does not see sums in place, so 0.5 is the least. Measured: 0.57,
    # 1.25 (symmetric blocks are there in part twice, and rows are whitened) and 0.51.
    assert flops <= allowed * 2 * (2 * 3000 * k * width)
    assert largest <= max(6000 * d, 1000 * max(2 * width, k), 2 * k * d * d * d)  # of the rows nothing n × K × D


def test_the_number_of_products_of_a_chunk_does_not_grow_with_components() -> None:
    torch.manual_seed(0)
    few, many = (added(mixture(8, k), 3000)[1] for k in (4, 40))
    assert few == many


def test_ppca_log_prob_forms_no_matrix_of_all_features() -> None:
    torch.manual_seed(0)
    n, d, q = 100, 2000, 20
    model = PPCA(d, q).double()
    flops, counts = counted(lambda: model.log_prob(torch.zeros(n, d, dtype=torch.float64)))
    assert counts.largest <= 2 * n * d < d * d
    assert flops <= 8 * (n * d * q + d * q * q)


@pytest.mark.parametrize("draws", [1000, 4000])
def test_evidence_holds_one_number_a_draw_and_runs_the_encoder_rarely(draws: int) -> None:
    torch.manual_seed(0)
    model = VAE.bernoulli(200, 4, hidden=(32,))
    x = (torch.rand(2, 200) < 0.3).float()
    flops, counts = counted(lambda: model.log_density(x, draws=draws))
    assert counts.largest <= 2**20
    decoder = 2 * (4 * 32 + 32 * 200) * 2 * draws
    assert flops <= 1.1 * decoder


def test_importing_the_rooms_loads_neither_plots_nor_peers() -> None:
    heavy = {"matplotlib", "seaborn", "pandas", "nflows", "sklearn", "scipy"}
    code = f"import sys, density, flows, lvm, bridge; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"
