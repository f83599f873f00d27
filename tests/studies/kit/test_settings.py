"""Settings: bounds, presets, folders, and the digests by which rows that were computed before are found again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studies.kit.errors import InputError
from studies.kit.registry import every_study
from studies.kit.settings import (
    ADDED_LATER,
    NOT_NEGATIVE,
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    WIDTHS,
    CommonSettings,
    all_or_at_least,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

SETTINGS = {study.name: study.settings for study in every_study()}

# Of the defaults and of --quick. A new setting takes ADDED_LATER, so that none of these changes.
DIGESTS = {
    "amortization": ("06a9c0f3512f", "bce757a2bc0f"),
    "audit": ("c250174979a8", "fd49529ddaf8"),
    "binary_tables": ("13268c098962", "149b0d10b511"),
    "choice": ("3da0122d01e2", "74fe768bc8db"),
    "comparison": ("b0efdc077b2a", "473d3e69d7f5"),
    "decomposition": ("815f38078dd0", "a29820cfff9f"),
    "defaults": ("f66f4dd43a8c", "409003b7d8d9"),
    "diffusion": ("d1c22be7ac30", "02be83ad0095"),
    "elbo_gap": ("ae75c7fa3b2b", "e7b5168f8c46"),
    "em_as_elbo": ("643147ae7256", "ad59fe51e0e5"),
    "equivalence": ("3b1c217929d7", "223e415081fa"),
    "flow_layers": ("a8b82afe0c67", "8f57ba419810"),
    "gradient_estimators": ("81f3a34f6aa8", "5c2ff16d0501"),
    "images": ("d192d94cff5c", "a64c368e8506"),
    "judge": ("1b5ae0650874", "eeeceff1daf5"),
    "kl_term": ("8dd976094033", "5116f4c2d05b"),
    "latent_space": ("b64d6b887555", "ba2619cca9ca"),
    "linear_vae": ("5785e49d28dc", "f5cf311275c8"),
    "mnist": ("e9dd55469687", "0ee24e7b1f0c"),
    "naive_monte_carlo": ("f24f5d971af1", "106d719d457f"),
    "survae": ("a09edd03f915", "a343ec9e8958"),
}


def test_every_study_has_its_digests_here() -> None:
    new = {
        name: (SETTINGS[name]().digest, SETTINGS[name](quick=True).quickened().digest)
        for name in set(SETTINGS) - set(DIGESTS)
    }
    assert not new, f"add to DIGESTS: {new}"
    assert set(DIGESTS) == set(SETTINGS)


@pytest.mark.parametrize("name", DIGESTS)
def test_rows_of_defaults_and_of_quick_runs_are_found_again(name: str) -> None:
    settings = SETTINGS[name]
    assert (settings().digest, settings(quick=True).quickened().digest) == DIGESTS[name]


@pytest.mark.parametrize(
    ("name", "chosen", "digest"),
    [
        ("mnist", {"preset": "full"}, "ea68e0b0dd95"),
        ("mnist", {"preset": "full", "quick": True}, "bfcb800c80a5"),
        ("mnist", {"preset": "full", "epochs": 7}, "4a1cbb2a6ccc"),
        ("images", {"preset": "gpu"}, "af7fdc272706"),
        ("audit", {"data": "nltcs"}, "10c08078c901"),
        ("choice", {"data": "oil-flow"}, "ed2934f7a390"),
        ("binary_tables", {"data": "debd"}, "3309daefa74f"),
        ("diffusion", {"preset": "gpu"}, "10435171c52a"),
        ("amortization", {"data": "mnist"}, "66efdf3ca4ea"),
        ("amortization", {"data": "mnist", "quick": True}, "2ce15d13218d"),
        ("amortization", {"data": "mnist", "latents": 9}, "a6a99245dac3"),
        ("elbo_gap", {"logit": True, "dtype": "float64", "train_rows": 100}, "4a4eb33b9854"),
        ("elbo_gap", {"dequantise": ("all",), "threads": 2, "device": "cuda"}, "84f0322cfd2f"),
    ],
)
def test_rows_of_chosen_settings_are_found_again(name: str, chosen: dict[str, Any], digest: str) -> None:
    assert SETTINGS[name](**chosen).quickened().digest == digest


def test_files_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    a, b = (CommonSettings(data=str(tmp_path / place / "mine.csv")).folder("s") for place in "ab")
    assert a != b
    assert a.name.startswith("mine-")
    assert CommonSettings(data=str(tmp_path / "a" / "mine.npy")).folder("s") != a
    relative = os.path.relpath(tmp_path / "a" / "mine.csv")
    assert CommonSettings(data=relative).folder("s") == a
    assert CommonSettings().folder("s") == Path("results/s/digits")
    assert CommonSettings(data="wine", quick=True).folder("s") == Path("results/s/wine-quick")


def test_arrays_of_a_row_have_a_file_for_each_data_and_settings() -> None:
    settings = CommonSettings()
    path = settings.arrays("s", "maf-0", "0123456789")
    assert path == Path(f"results/s/digits/points/maf-0-01234567-{settings.digest}.npz")
    assert (
        len(
            {
                path,
                settings.arrays("s", "maf-0", "1"),
                CommonSettings(dtype="float64").arrays("s", "maf-0", "0123456789"),
            }
        )
        == 3
    )


def test_a_setting_added_later_leaves_older_rows_valid() -> None:
    @dataclass(frozen=True)
    class Before(CommonSettings):
        width: int = 3

    @dataclass(frozen=True)
    class After(Before):
        depth: int = setting(2, ADDED_LATER)

    assert After().digest == Before().digest
    assert After(depth=3).digest != Before().digest != Before(width=4).digest


@dataclass(frozen=True)
class Bounded(CommonSettings):
    """A setting of every kind."""

    names: tuple[str, ...] = setting(("a", "b"), OF_THE_RUN, different("names"))
    sizes: tuple[int, ...] = setting((2, 4), different("sizes", least=2))
    source: str = setting("a", one_of(["a", "b"], "which are known"))
    train_rows: int = setting(0, all_or_at_least(20))
    draws: int = setting(100, quick(10), at_least(2, "to have a standard error"))
    rate: float = setting(1.0, POSITIVE)
    decay: float = setting(0.0, NOT_NEGATIVE)
    hidden: tuple[int, ...] = setting((8,), WIDTHS, preset("large", (64,)))
    trunk: tuple[int, ...] = setting((8,), SOME_WIDTHS)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"names": ()}, "--names expects different names; got none"),
        ({"names": ("a", "a")}, "--names expects different names; got a a"),
        ({"sizes": (1, 2)}, "--sizes expects different sizes from 2 up; got 1 2"),
        ({"sizes": ()}, "--sizes expects different sizes from 2 up; got none"),
        ({"source": "c"}, "--source must be a or b, which are known; got c"),
        ({"train_rows": 19}, "--train-rows must be 0 (all) or at least 20; got 19"),
        ({"train_rows": -1}, "--train-rows must be 0 (all) or at least 20; got -1"),
        ({"draws": 1}, "--draws must be at least 2, to have a standard error; got 1"),
        ({"rate": 0.0}, "--rate must be positive; got 0.0"),
        ({"rate": float("inf")}, "--rate must be positive; got inf"),
        ({"rate": float("nan")}, "--rate must be positive; got nan"),
        ({"decay": -0.1}, "--decay must be 0 or positive; got -0.1"),
        ({"hidden": (8, 0)}, "--hidden expects positive widths; got 8 0"),
        ({"trunk": ()}, "--trunk expects one or more positive widths; got none"),
        ({"trunk": (8, 0)}, "--trunk expects one or more positive widths; got 8 0"),
        ({"threads": 0}, "--threads must be at least 1; got 0"),
        ({"seeds": (-1,)}, "--seeds expects different integers from 0 up; got -1"),
        ({"seeds": ()}, "--seeds expects different integers from 0 up; got none"),
    ],
)
def test_a_value_out_of_bounds_is_one_error_in_the_words_of_its_bound(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Bounded(**chosen).check()
    assert str(error.value) == message


def test_values_at_their_bounds_are_taken() -> None:
    Bounded(names=("a",), sizes=(2,), train_rows=20, draws=2, rate=5e-324, decay=0.0, hidden=()).check()


def test_a_preset_gives_way_to_what_the_user_chose_and_the_first_counts_most() -> None:
    @dataclass(frozen=True)
    class Large(Bounded):
        draws: int = setting(100, quick(10), preset("large", 1000))

        def presets(self) -> tuple[str, ...]:
            return (*super().presets(), "large")

    assert (Large().quickened().draws, Large().quickened().hidden) == (1000, (64,))
    assert (Large(quick=True).quickened().draws, Large(quick=True).quickened().hidden) == (10, (64,))
    assert (Large(draws=7).quickened().draws, Large(hidden=(3,)).quickened().hidden) == (7, (3,))
    assert Bounded().quickened() == Bounded()


def test_bounds_and_presets_are_no_part_of_the_digest() -> None:
    @dataclass(frozen=True)
    class Plain(CommonSettings):
        draws: int = 100

    @dataclass(frozen=True)
    class Marked(CommonSettings):
        draws: int = setting(100, quick(10), POSITIVE)

    assert Plain().digest == Marked().digest
