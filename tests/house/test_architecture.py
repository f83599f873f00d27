"""The house's walls: imports run downward, libraries stay light, importing changes nothing, rooms stay small."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.imports import circles, graph, is_package, sources
from tests.places import ROOT

BELOW = {
    "significance": set(),
    "density": {"significance"},
    "flows": {"significance", "density"},
    "lvm": {"significance", "density"},
    "bridge": {"significance", "density", "flows", "lvm"},
    "studies": {"significance", "density", "flows", "lvm", "bridge"},
}
LIBRARY = ("significance", "density", "flows", "lvm", "bridge")
THIRD_PARTY = {"torch", "numpy", "tqdm"}
WITHOUT_TORCH = "significance"
COMMAND_LINE = {"argparse", "optparse", "getopt"}  # in the standard library, and still not a library's business
MAY_IMPORT = {
    "nflows": "bridge/conversions/nflows_transforms.py",
    "pandas": "bridge/comparison/comparing.py",
    "pyro": "bridge/adapters/pyro.py",
    "scipy": "density/linalg/leading.py",
    "sklearn": "bridge/estimator/density_estimator.py",
    "torchdiffeq": "flows/continuous/solver.py",
}
LONGEST_FILE = 330  # lines of a module outside tests
LONGEST_TEST = 400
LARGEST_FOLDER = 16
LONGEST_LOOP = 60
PRIVATE_TORCH = re.compile(r"torch\._|\._(parameters|modules|buffers|(forward|backward)\w*hooks)\b|_global_\w+_hooks")
MAY_ASK_TORCH = "flows/networks/columns.py"

SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for room in (*BELOW, "tests") for path in (ROOT / room).rglob("*.py")
)


def imported(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.split("/")[: -node.level] if node.level else []
            yield node.lineno, ".".join([*package, *filter(None, [node.module])])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node.lineno, ast.literal_eval(node.args[0])


def violations(path: str, source: str) -> list[str]:
    """What a file imports and may not."""
    room = path.split("/")[0]
    found = []
    for line, name in imported(path, source):
        top = name.split(".")[0]
        if top == room:
            continue
        if top in BELOW:
            allowed = top in BELOW[room]
        elif room == "studies":
            allowed = True
        elif room == WITHOUT_TORCH:
            allowed = top == "numpy" or top in sys.stdlib_module_names
        elif top in MAY_IMPORT:
            allowed = path == MAY_IMPORT[top]
        else:
            allowed = top in THIRD_PARTY or (top in sys.stdlib_module_names and top not in COMMAND_LINE)
        if not allowed:
            found.append(f"{path}:{line} imports {name}")
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.startswith("tests/")])
def test_imports_run_downward(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("density/gaussian.py", "import flows"),
        ("flows/lu.py", "from lvm.vae.model import VAE"),
        ("flows/lu.py", "from bridge import delta"),
        ("lvm/vae.py", "def f():\n    import flows.flow"),
        ("lvm/evidence/gap.py", "from ...flows import Flow"),
        ("bridge/delta.py", "from studies.elbo_gap import Settings"),
        ("density/nets.py", "import tests.laws.transforms"),
        ("lvm/ppca.py", "import seaborn as sns"),
        ("lvm/ppca.py", "from matplotlib import pyplot"),
        ("lvm/ppca.py", "import pandas.api"),
        ("lvm/ppca.py", "from sklearn.decomposition import PCA"),
        ("lvm/ppca.py", "import importlib\nimportlib.import_module('scipy.stats')"),
        ("bridge/delta.py", "import argparse"),
        ("bridge/delta.py", "import tyro"),
        ("bridge/delta.py", "import typer, click"),
        ("flows/coupling.py", "if True:\n    from nflows.transforms import AffineCouplingTransform"),
        ("bridge/conversions.py", "import nflows"),
        ("significance/spread.py", "from torch import Tensor"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert len(violations(path, source)) >= 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("density/gaussian.py", "import math\nimport torch.nn.functional as F\nfrom tqdm.auto import tqdm"),
        ("lvm/evidence/gap.py", "from ..vae import VAE\nfrom . import importance\nfrom density.contract import Bound"),
        ("bridge/conversions/nflows_transforms.py", "from nflows.transforms import Transform"),
        ("density/linalg/leading.py", "def f():\n    from scipy.linalg import eigh"),
        ("bridge/delta.py", "from flows.flow import Flow\nfrom lvm.latent import Link"),
        ("studies/elbo_gap.py", "import seaborn, pandas, tyro, argparse, nflows, sklearn, flows, density"),
    ],
)
def test_an_allowed_import_is_not(path: str, source: str) -> None:
    assert violations(path, source) == []


IMPORT_EVERYTHING = """
import importlib, json, pkgutil, random, sys, warnings
import numpy, torch

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(numpy.random.get_state()),
        "python generator": repr(random.getstate()),
        "validation of torch.distributions": torch.distributions.Distribution._validate_args,
        "gradients": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "print options": repr(vars(torch._tensor_str.PRINT_OPTS)),
        "warning filters": repr(warnings.filters),
    }

before, loaded = state(), set(sys.modules)
imported = []
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    imported.append(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if module.name not in ("bridge.conversions.nflows_transforms", "bridge.estimator.density_estimator"):
            importlib.import_module(module.name)
            imported.append(module.name)
after = state()
changed = [name for name in before if before[name] != after[name]]
print(json.dumps([changed, sorted({name.split(".")[0] for name in set(sys.modules) - loaded}), imported]))
"""


def effects_of_importing(*names: str) -> tuple[list[str], list[str], list[str]]:
    """Global state that changed, top-level modules that were loaded, modules that were imported by name."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    changed, loaded, modules = json.loads(result.stdout)
    return changed, loaded, modules


def test_importing_the_libraries_changes_nothing_and_loads_little() -> None:
    changed, loaded, modules = effects_of_importing(*LIBRARY)
    assert changed == []
    heavy = {"nflows", "scipy", "sklearn", "torchdiffeq", "pandas", "seaborn", "matplotlib"}
    heavy |= {"tyro", "rich", "tensorboard"}
    assert heavy & set(loaded) == set()
    assert {"density.contract", *LIBRARY} <= set(modules)


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_is_long(path: str) -> None:
    lines = len((ROOT / path).read_text().splitlines())
    longest = LONGEST_TEST if path.startswith("tests/") else LONGEST_FILE
    assert lines <= longest, f"{path} has {lines} lines; a room is one mathematical object, so build two"


def test_no_folder_is_crowded() -> None:
    folders = Counter(Path(path).parent.as_posix() for path in SOURCES if not path.startswith("tests/"))
    crowded = {folder: count for folder, count in folders.items() if count > LARGEST_FOLDER}
    assert crowded == {}


def test_imports_make_no_circle() -> None:
    """Over all imports: relative ones, those in functions and for typing, and through a package to the definition."""
    modules = sources(ROOT, *BELOW)
    edges = graph(modules, {name for name in modules if is_package(ROOT, name)})
    assert sum(len(targets) for targets in edges.values()) > 500
    assert circles(edges) == []


@pytest.mark.parametrize(
    ("changed", "circle"),
    [
        ({"a.one": "def f():\n    from a.two import g", "a.two": "from a.one import f"}, ["a.one", "a.two"]),
        ({"a.one": "if TYPE_CHECKING:\n    from .two import g", "a.two": "from .one import f"}, ["a.one", "a.two"]),
        ({"a.one": "from a import g", "a.two": "from a import f"}, ["a.one", "a.two"]),
        ({"a.one": "import a.two", "a.two": "from a.one import f"}, ["a.one", "a.two"]),
        ({"a.one": "from a.two import g", "a.two": "import torch"}, None),
    ],
)
def test_a_circle_is_found(changed: dict[str, str], circle: list[str] | None) -> None:
    modules = {"a": "from a.one import f\nfrom a.two import g", **changed}
    assert circles(graph(modules, {"a"})) == ([] if circle is None else [circle])


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.startswith("tests/")])
def test_torch_is_asked_in_public(path: str) -> None:
    found = [line for line in (ROOT / path).read_text().splitlines() if PRIVATE_TORCH.search(line)]
    assert path == MAY_ASK_TORCH or found == []


def test_the_training_loop_reads_as_a_loop() -> None:
    """The function that steps, and what it is made of, without its docstring's help."""
    tree = ast.parse((ROOT / "density/fitting/ascent.py").read_text())
    steps = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(isinstance(inner, ast.While | ast.For) for inner in ast.walk(node))
    ]
    loops = {node.name: node.end_lineno - node.lineno + 1 for node in steps if node.end_lineno is not None}
    assert "_climb" in loops
    assert max(loops.values()) <= LONGEST_LOOP
