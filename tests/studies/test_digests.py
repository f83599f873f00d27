"""Rows that were computed before are found again: the digests of every study's settings, as they have been."""

from __future__ import annotations

from typing import Any

import pytest

from studies.__main__ import studies
from studies.shelf import parts

# Of the defaults and of --quick. A new setting takes ADDED_LATER, so that none of these changes.
DIGESTS = {
    "amortization": ("06a9c0f3512f", "bce757a2bc0f"),
    "comparison": ("b0efdc077b2a", "473d3e69d7f5"),
    "decomposition": ("815f38078dd0", "a29820cfff9f"),
    "elbo_gap": ("6a5663ef9600", "824ed1aca69c"),
    "em_as_elbo": ("643147ae7256", "ad59fe51e0e5"),
    "equivalence": ("3b1c217929d7", "223e415081fa"),
    "flow_layers": ("a8b82afe0c67", "8f57ba419810"),
    "gradient_estimators": ("81f3a34f6aa8", "5c2ff16d0501"),
    "kl_term": ("8dd976094033", "5116f4c2d05b"),
    "latent_space": ("b64d6b887555", "ba2619cca9ca"),
    "linear_vae": ("5785e49d28dc", "f5cf311275c8"),
    "mnist": ("e9dd55469687", "0ee24e7b1f0c"),
    "naive_monte_carlo": ("f24f5d971af1", "106d719d457f"),
    "survae": ("a09edd03f915", "a343ec9e8958"),
}


def test_every_study_has_its_digests_here() -> None:
    assert set(DIGESTS) == {name for name, _, _ in studies()}


@pytest.mark.parametrize("name", DIGESTS)
def test_rows_of_defaults_and_of_quick_runs_are_found_again(name: str) -> None:
    settings = parts(name).settings
    assert (settings().digest, settings(quick=True).quickened().digest) == DIGESTS[name]


@pytest.mark.parametrize(
    ("name", "chosen", "digest"),
    [
        ("mnist", {"preset": "full"}, "ea68e0b0dd95"),
        ("mnist", {"preset": "full", "quick": True}, "bfcb800c80a5"),
        ("mnist", {"preset": "full", "epochs": 7}, "4a1cbb2a6ccc"),
        ("amortization", {"data": "mnist"}, "66efdf3ca4ea"),
        ("amortization", {"data": "mnist", "quick": True}, "2ce15d13218d"),
        ("amortization", {"data": "mnist", "latents": 9}, "a6a99245dac3"),
        ("elbo_gap", {"logit": True, "dtype": "float64", "train_rows": 100}, "b9df140623db"),
        ("elbo_gap", {"dequantise": True, "threads": 2, "device": "cuda"}, "de4483ec378e"),
    ],
)
def test_rows_of_chosen_settings_are_found_again(name: str, chosen: dict[str, Any], digest: str) -> None:
    assert parts(name).settings(**chosen).quickened().digest == digest
