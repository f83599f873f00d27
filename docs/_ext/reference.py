"""The reference: a page a package, written from the code before the build."""

from __future__ import annotations

import inspect
from importlib import import_module
from itertools import groupby
from pathlib import Path
from textwrap import indent

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

from docs._ext.catalogue import ROOMS, Public, pages
from docs._ext.names import by_address, by_value
from docs._ext.prose import escaped, summary_and_rest
from docs._ext.writing import heading, write_folder
from studies.kit.registry import doc, every_study

DIRECTIVES = {"class": "autoclass", "exception": "autoexception", "function": "autofunction"}


def write_pages(app: Sphinx) -> None:
    """``docs/api``: an index, and a page for each package that defines public names."""
    write_folder(
        Path(app.srcdir) / "api", {"index": _index(), **{page: _page(page, names) for page, names in pages().items()}}
    )


def _index() -> str:
    text = heading("Reference", "=")
    text += "Every public name, by room: what it is, its formula, and an example that the tests run.\n\n"
    for room in (*ROOMS, "studies"):
        title, _ = summary_and_rest(import_module(room).__doc__)
        text += heading(room, "-") + f"{title}.\n\n.. toctree::\n   :maxdepth: 1\n\n"
        text += "".join(f"   {page}\n" for page in pages() if page.partition(".")[0] == room) + "\n"
    return text


def _page(page: str, names: list[Public]) -> str:
    title, body = summary_and_rest(import_module(page).__doc__)
    text = f".. _api-{page}:\n\n" + heading(page, "=") + f"{title}.\n\n{body}\n\n"
    text += _commands() if page == "studies" else ""
    text += ".. list-table::\n   :widths: auto\n   :class: names\n\n"
    for one in sorted(names, key=lambda one: one.name.casefold()):
        summary, _ = summary_and_rest(one.docstring.split("\n\n")[0].replace("\n", " "))
        text += f"   * - :py:obj:`~{one.address}`\n     - {summary}\n"
    for module, group in groupby(names, lambda one: one.module):
        title, words = summary_and_rest(import_module(module).__doc__)
        text += f"\n.. _module-{module}:\n\n"
        text += heading("The package itself", "-") if module == page else heading(title, "-") + f"{words}\n\n"
        text += "".join(_entry(one) for one in group)
    return text


def _commands() -> str:
    """What can be run, and where its page is."""
    text = "What can be run; ``python -m studies`` lists it, ``python -m studies.report`` makes a page of results.\n\n"
    text += ".. list-table::\n   :widths: auto\n   :class: names\n\n"
    for study in every_study():
        question = escaped([doc(study).question])[0]
        text += f"   * - :doc:`python -m {study.package} </gallery/{study.name}>`\n     - {question}\n"
    return text + "\nAnd what a study of one's own is made of (:doc:`/architecture` says how):\n\n"


def _entry(one: Public) -> str:
    if one.kind == "data":
        words = "\n".join(escaped(inspect.cleandoc(one.docstring).splitlines()))
        return (
            f".. py:data:: {one.address}\n" + indent(f":canonical: {one.module}.{one.name}\n\n{words}", "   ") + "\n\n"
        )
    options = "   :members:\n   :show-inheritance:\n" if inspect.isclass(one.value) else ""
    return f".. {DIRECTIVES[one.kind]}:: {one.address}\n{options}\n"


def extend_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A docstring as Sphinx should read it; under it other addresses, what a class inherits, examples elsewhere."""
    lines[:] = escaped(lines)
    one = by_address().get(name)
    if one is None:
        return
    if one.borrowed:
        lines += ["", "With the library installed:", "", ".. code-block:: python", ""]
        lines += indent(one.borrowed, "   ").splitlines()
    if one.aliases:
        lines += ["", "Also " + ", ".join(f"``{alias}``" for alias in one.aliases) + "."]
    for base, members in _inherited(one.value):
        links = ", ".join(f":py:meth:`~{base.address}.{member}`" for member in members)
        lines += ["", f"From :py:class:`~{base.address}`: {links}."]


def shown_bases(app: Sphinx, name: str, obj: type, options: object, bases: list[type]) -> None:
    """In place of a base that is nobody else's business, those that it has itself."""
    found: list[type] = []
    for base in bases:
        found += base.__bases__ if base.__name__.startswith("_") else (base,)
    bases[:] = dict.fromkeys(found)


def _inherited(value: object) -> list[tuple[Public, list[str]]]:
    """Public bases with the documented methods that a class has from each."""
    if not inspect.isclass(value):
        return []
    seen = {name for name in vars(value) if not name.startswith("_")}
    found = []
    for base in value.__mro__[1:]:
        own = {name: member for name, member in vars(base).items() if not name.startswith("_") and name not in seen}
        seen |= set(own)
        shown = [name for name, member in own.items() if _is_method(member) and inspect.getdoc(member)]
        if shown and id(base) in by_value():
            found.append((by_value()[id(base)], shown))
    return found


def _is_method(member: object) -> bool:
    return isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)


def whole_property(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """An empty line before what a property says: napoleon takes words before a colon in the first for its type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Pages before the build; our word for what a class has."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-bases", shown_bases)
    app.connect("autodoc-process-docstring", whole_property, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", extend_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
