"""The gallery: each study's figure with its answer, and a page a study, from docstrings and committed rows."""

from __future__ import annotations

import shutil
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import indent

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

from docs._ext.prose import capital, escaped, list_table, with_tables
from docs._ext.writing import heading, write_folder
from studies.kit.registry import doc, every_study
from studies.kit.study import Check, Study
from studies.report.argument import in_order
from studies.report.committed import Result, results
from studies.report.pictures import Picture, picture

SECTIONS = ("Formula", "Claim", "Answer", "Expected", "Paper", "Command", "Run time")


def write_pages(app: Sphinx) -> None:
    """``docs/gallery``: an index, and a page a study; figures beside them."""
    folder = Path(app.srcdir) / "gallery"
    folder.mkdir(exist_ok=True)
    parts = in_order(every_study())
    every = [study for _, found in parts for study in found]
    committed = {study.name: results(study) for study in every}
    pictures = {
        _picture(result): result.figure for found in committed.values() for result in found if result.figure is not None
    }
    for name, source in pictures.items():
        _copy(source, folder / name)
    for path in folder.iterdir():
        if path.suffix in (".png", ".svg") and path.name not in pictures:
            path.unlink()
    pages = {study.name: _page(study, committed[study.name]) for study in every}
    write_folder(folder, {"index": _index(parts, committed), **pages})


def _copy(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _picture(result: Result) -> str:
    """Its name in the gallery: a study may have results on several data sets."""
    assert result.figure is not None
    inside = result.figure.parent.name in ("reference", result.study.name)
    return f"{result.study.name}{'' if inside else '-' + result.figure.parent.name}{result.figure.suffix}"


def _text(words: str) -> str:
    return "\n".join(escaped(words.splitlines()))


def _index(parts: list[tuple[str, list[Study]]], committed: dict[str, list[Result]]) -> str:
    text = heading("Gallery", "=")
    text += (
        "Questions asked of live models, each with the answer that its committed rows give. Every figure is drawn by "
        "its study; a page of each has the numbers, the command that computes them, and what it may be asked.\n\n"
    )
    for title, found in parts:
        text += heading(title, "-") + ".. grid:: 1 1 2 2\n   :gutter: 3\n\n"
        text += "".join(indent(_card(study, committed[study.name]), "   ") for study in found)
        text += ".. toctree::\n   :hidden:\n\n" + "".join(f"   {study.name}\n" for study in found) + "\n"
    return text


def _card(study: Study, found: list[Result]) -> str:
    about = doc(study)
    card = f".. grid-item-card:: {_text(about.question)}\n   :link: {study.name}\n   :link-type: doc\n"
    for result in [result for result in found if result.figure is not None][:1]:
        card += f"   :img-bottom: {_picture(result)}\n   :img-alt: {_shown(result).alternative}\n"
    return f"{card}\n   {_text(about.short)}\n\n"


def _shown(result: Result) -> Picture:
    """What its file says of it."""
    assert result.figure is not None
    words = " ".join((result.study.report.table.__doc__ or "").split())
    return picture(result.figure, f"{result.study.name} on {result.data}: {words}")


def _page(study: Study, found: list[Result]) -> str:
    about = doc(study)
    text = f".. _study-{study.name}:\n\n" + heading(study.name, "=")
    text += f"**{_text(about.question)}** {_text(about.short)}\n\n"
    for result in found:
        if result.figure is not None:
            shown = _shown(result)
            text += f".. figure:: {_picture(result)}\n   :alt: {shown.alternative}\n   :class: study\n"
            text += f"\n   {_text(shown.caption)}\n\n"
    for title in [*SECTIONS, *(title for title in about.sections if title not in SECTIONS)]:
        if title in about.sections and title != "In short":
            words = about.sections[title]
            body = _command(words) if title == "Command" else with_tables(capital(words))
            text += heading(title, "-") + f"{body}\n\n"
    for result in found[:1]:
        text += _checks(result.study.report.checks(result.shown()))
    return text + _settings(study)


def _checks(checks: list[Check]) -> str:
    """What the committed rows decide."""
    if not checks:
        return ""
    rows = [[check.claim, check.expected, check.measured, check.verdict] for check in checks]
    table = list_table([["claim", "expected", "measured", "verdict"], *rows], "checks")
    return heading("Checks of the committed rows", "-") + f"{table}\n"


def _command(words: str) -> str:
    """The command, ready to be copied, and what is said of it in brackets."""
    command, bracket, remark = " ".join(words.split()).partition(" (")
    said = escaped([f"{remark[:1].upper()}{remark[1:].removesuffix(')')}."])[0] if bracket else ""
    return f".. code-block:: console\n\n   $ {command}\n\n{said}"


def _settings(study: Study) -> str:
    """What the command takes: name, default, and the words under the field."""
    cls = study.settings
    text = heading("Settings", "-") + "Beside those of every study (``--help`` lists them):\n\n"
    common = {field.name for base in cls.__mro__[1:] if hasattr(base, "__dataclass_fields__") for field in fields(base)}
    words = {
        name: " ".join(line.strip() for line in lines if line.strip())
        for base in reversed(cls.__mro__)
        if base.__module__.startswith("studies")
        for (_, name), lines in ModuleAnalyzer.for_module(base.__module__).find_attr_docs().items()
    }
    own = [field for field in fields(cls) if field.name not in common]
    if not own:
        return ""
    for field in own:
        option = f"--{field.name.replace('_', '-')}"
        default = field.default if field.default is not MISSING else ""
        value = f" (``{_plain(default)}``)" if _plain(default) else ""
        text += f"``{option}``{value}\n   {_text(words.get(field.name, '')) or '–'}\n\n"
    return text


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def setup(app: Sphinx) -> dict[str, bool]:
    """Before the build."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
