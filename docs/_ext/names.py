"""Links to public names: by any of their addresses, by the last word, and through a class to what it inherits."""

from __future__ import annotations

import inspect
from functools import cache

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from docs._ext.catalogue import Public, public


@cache
def by_address() -> dict[str, Public]:
    """Every public name by the address under which it is documented."""
    return {one.address: one for one in public()}


@cache
def by_value() -> dict[int, Public]:
    """Every public name by the identity of the object."""
    return {id(one.value): one for one in public()}


@cache
def _called() -> dict[str, list[Public]]:
    """By every address that code may use, and by the name alone."""
    found: dict[str, list[Public]] = {}
    for one in public():
        for name in {one.address, *one.aliases, f"{one.module}.{one.name}", one.name}:
            found.setdefault(name, []).append(one)
    return found


def public_bases(value: object) -> list[Public]:
    """The class and those of its bases that are public, in the order in which Python looks."""
    order = value.__mro__ if inspect.isclass(value) else ()
    return [by_value()[id(base)] for base in order if id(base) in by_value()]


def _candidates(target: str, inside: str | None) -> list[str]:
    """Where a reference may lead, the likeliest first; inside a class, a bare name may be one of its members."""
    owner, _, member = target.rpartition(".")
    found = [one.address for one in _called().get(target, [])]
    for one in _called().get(owner or inside or "", []):
        found += [f"{base.address}.{member}" for base in public_bases(one.value)]
    return found


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement) -> nodes.Element | None:
    """What Sphinx did not find under the very address that was written."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".")
    if node["reftype"] == "mod":
        page, anchor, _ = env.get_domain("std").labels.get(f"module-{target}", ("", "", ""))
        return make_refnode(app.builder, node["refdoc"], page, anchor, text) if page else None
    objects = env.get_domain("py").objects
    for address in _candidates(target, node.get("py:class")):
        if address in objects:
            entry = objects[address]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, address)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """When all pages are read."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
