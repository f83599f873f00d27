"""Every public name is in the reference: once, with its purpose, and with an example that a test runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from docs._ext import catalogue
from docs._ext.catalogue import Public, lacking, pages, public
from lvm import PPCA, VAE
from significance.rounds import CHANCE


def test_every_public_name_has_an_example() -> None:
    assert [one.address for one in lacking()] == []


def test_every_public_name_says_what_it_is() -> None:
    assert [one.address for one in public() if len(one.docstring) < 10] == []


def test_every_public_name_is_on_one_page() -> None:
    shown = [one.address for page in pages().values() for one in page]
    assert sorted(shown) == sorted(one.address for one in public())
    assert len(set(shown)) == len(shown) > 300


def test_the_studies_have_a_page_of_their_own() -> None:
    assert {one.name for one in pages()["studies"]} >= {"Study", "Key", "Task", "Check", "setting", "every_study"}


def test_a_name_has_its_shortest_address_and_keeps_the_others() -> None:
    found = {one.address: one for one in public()}
    assert found["density.Training"].aliases == ("density.fitting.Training",)
    assert found["lvm.gradients.AnalyticKL"].module == "lvm.vae.gradients"
    assert found["significance.CHANCE"].value is CHANCE


@pytest.mark.parametrize(
    ("value", "shown"), [(PPCA, True), (VAE, True), (type("Bare", (), {"__doc__": "No example."}), False)]
)
def test_an_example_is_one_that_doctest_sees(value: object, shown: bool) -> None:
    assert Public("lvm.Bare", (), "lvm.ppca.model", value).has_example is shown


def test_an_example_of_the_module_is_one_for_the_names_in_it() -> None:
    found = {one.address: one for one in public()}
    for address in ("significance.CHANCE", "lvm.Spherical"):
        assert found[address].has_example
        assert not replace(found[address], address="lvm.Other").has_example


def test_adapters_of_libraries_that_need_not_be_there_have_the_examples_of_the_guide() -> None:
    borrowing = {one.name for one in public() if one.borrowed}
    assert {"from_zuko", "from_freia", "FromFreia", "from_pyro", "FromScvi"} <= borrowing
    assert all("# judged" in block for block in catalogue.borrowed().values())
