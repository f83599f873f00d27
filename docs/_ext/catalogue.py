"""Every public name of the rooms: its address, the page and section of the reference that show it, its examples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

ROOMS = ("significance", "density", "flows", "lvm", "bridge")
UNIMPORTABLE = {"bridge.conversions.nflows_transforms", "bridge.estimator.density_estimator"}  # need what may be absent
# Of the studies, what one of one's own is made of, and what finds those that there are.
ENTRY_POINTS = {
    "studies.kit.study": ("Check", "Key", "Study", "Task"),
    "studies.kit.settings": ("Bound", "CommonSettings", "preset", "quick", "setting"),
    "studies.kit.registry": ("doc", "every_study"),
    "studies.report.committed": ("results",),
}
GUIDE = Path(__file__).parents[1] / "judge.md"


@dataclass(frozen=True)
class Public:
    """A public name.

    Attributes:
        address: the shortest one by which it can be imported, `density.Gaussian`.
        aliases: the others.
        module: that defines it.
        value: the object.
    """

    address: str
    aliases: tuple[str, ...]
    module: str
    value: object

    @property
    def name(self) -> str:
        """The last word of the address."""
        return self.address.rpartition(".")[2]

    @property
    def kind(self) -> str:
        """class, exception, function or data."""
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if callable(self.value) and hasattr(self.value, "__code__") else "data"

    @property
    def page(self) -> str:
        """The package whose page shows it: the room's, or that of a package right under it; one for the studies."""
        parts = self.module.split(".")
        if parts[0] not in ROOMS:
            return parts[0]
        return ".".join(parts[:2]) if len(parts) > 2 else parts[0]

    @property
    def docstring(self) -> str:
        """Its own; of a value without one (a number, a union of types), the text under its assignment."""
        if self.kind != "data":
            return inspect.getdoc(self.value) or ""
        source = inspect.getsource(import_module(self.module))
        found = re.search(rf'^{self.name}\b.*= .*\n"""(.*?)"""', source, re.M | re.S)
        return found[1] if found else ""

    @property
    def own_docstrings(self) -> list[str]:
        """Those that doctest sees: of the object, and of what its class defines."""
        members = vars(self.value).values() if inspect.isclass(self.value) else ()
        own = [getattr(member, "__doc__", None) for member in members if callable(member) or hasattr(member, "__get__")]
        return [] if self.kind == "data" else [self.docstring, *filter(None, own)]

    @property
    def borrowed(self) -> str:
        """The example of the guide to other libraries that makes one; empty if there is none."""
        return borrowed().get(self.name.replace("_", "").lower(), "")

    @property
    def has_example(self) -> bool:
        """Whether its page shows one: a doctest of its own, one of its module that names it, or one of the guide."""
        shown = inspect.getdoc(import_module(self.module)) or ""
        named = re.search(rf"^(>>>|\.\.\.).*\b{self.name}\b", shown, re.M)
        return bool(self.borrowed or named) or any(">>>" in text for text in self.own_docstrings)


@cache
def modules() -> tuple[ModuleType, ...]:
    """Every module of the rooms that can be imported everywhere."""
    found = []
    for room in ROOMS:
        package = import_module(room)
        found.append(package)
        inner = (module.name for module in walk_packages(package.__path__, f"{room}."))
        found += [import_module(name) for name in inner if name not in UNIMPORTABLE]
    return tuple(found)


@cache
def public() -> tuple[Public, ...]:
    """What any ``__all__`` of the rooms names, once, and the entry points of the studies.

    >>> [found.address for found in public()][:2]
    ['bridge.Abs', 'bridge.AdaptedVAE']
    """
    addresses: dict[int, list[str]] = {}
    values: dict[int, object] = {}
    named = [(module, getattr(module, "__all__", ())) for module in modules()]
    named += [(import_module(module), names) for module, names in ENTRY_POINTS.items()]
    for module, names in named:
        for name in names:
            value = getattr(module, name)
            values[id(value)] = value
            addresses.setdefault(id(value), []).append(f"{module.__name__}.{name}")
    found = []
    for key, known in addresses.items():
        first, *others = sorted(known, key=lambda address: (address.count("."), address))
        found.append(Public(first, tuple(others), _defining(values[key], known), values[key]))
    return tuple(sorted(found, key=lambda one: one.address.casefold()))


def _defining(value: object, names: list[str]) -> str:
    """The module that defines a value; of one that does not know (a number, a union), the deepest that assigns it."""
    module = getattr(value, "__module__", None)
    if isinstance(module, str) and module.partition(".")[0] in (*ROOMS, "studies"):
        return module
    name = names[0].rpartition(".")[2]
    assigning = [
        module.__name__
        for module in modules()
        if vars(module).get(name) is value and re.search(rf"^{name}\b.*= ", inspect.getsource(module), re.M)
    ]
    return assigning[0]


def pages() -> dict[str, list[Public]]:
    """The pages of the reference by package, each with its names in the order of their modules."""
    found: dict[str, list[Public]] = {}
    for one in public():
        found.setdefault(one.page, []).append(one)
    order = {module.__name__: number for number, module in enumerate(modules())}
    last = len(order)
    return {page: sorted(found[page], key=lambda one: order.get(one.module, last)) for page in sorted(found)}


def lacking() -> Iterator[Public]:
    """The names without an example, neither a doctest of their own nor one of the guide to other libraries."""
    return (one for one in public() if not one.has_example)


@cache
def borrowed() -> dict[str, str]:
    """Examples with libraries that need not be there, by the adapter that they call, without underscores.

    They are blocks of `docs/judge.md`; ``tests/bridge/adapters/test_examples.py`` runs them where the library is.
    """
    text = GUIDE.read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "# judged" in block]
    calls = ((name, block) for block in blocks for name in re.findall(r"^model = (\w+)\(", block, re.M))
    return {name.replace("_", ""): block for name, block in calls}
