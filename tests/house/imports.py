"""The imports of a tree of packages: who names whom, wherever in a file and for whatever purpose."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def sources(root: Path, *rooms: str) -> dict[str, str]:
    """Every module of the rooms by its dotted name, a package by that of its folder: its source."""
    found = {}
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def is_package(root: Path, module: str) -> bool:
    return (root / module.replace(".", "/") / "__init__.py").exists()


def named(module: str, source: str, package: bool) -> Iterator[tuple[int, str, str | None]]:
    """Line, module and name of every import: ``from m import n`` is (m, n), ``import m`` is (m, None)."""
    for node in ast.walk(ast.parse(source, module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, origin, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value), None


def graph(modules: Mapping[str, str], packages: set[str]) -> Graph:
    """For every module, the modules that define what it imports: through a package's face to the definition."""
    offered: dict[str, dict[str, tuple[str, str | None]]] = {
        module: {name or origin: (origin, name) for _, origin, name in named(module, source, True)}
        for module, source in modules.items()
        if module in packages
    }

    def defining(origin: str, name: str | None, seen: frozenset[tuple[str, str | None]] = frozenset()) -> str | None:
        if (origin, name) in seen or origin not in modules:
            return None
        if name is None:
            return origin
        if origin in packages and name in offered[origin]:
            return defining(*offered[origin][name], seen | {(origin, name)})
        return f"{origin}.{name}" if f"{origin}.{name}" in modules else origin

    return {
        module: {
            target
            for _, origin, name in named(module, source, module in packages)
            if (target := defining(origin, name)) is not None and target != module
        }
        for module, source in modules.items()
    }


def circles(edges: Graph) -> list[list[str]]:
    """The sets of modules that lead back to each other: strongly connected components of more than one (Tarjan 1972).

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    [['a', 'b', 'c']]
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in sorted(edges.get(module, ())):
            if target not in order:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            part = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(part) > 1:
                found.append(sorted(part))

    for module in sorted(edges):
        if module not in order:
            visit(module)
    return sorted(found)
