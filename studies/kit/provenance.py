"""Where numbers come from: settings, versions, device, data and commit, in every row and beside every figure."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studies.kit.rows import Row, Rows, write_whole
from studies.kit.settings import CommonSettings

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "seaborn", "matplotlib")


def provenance(device: str) -> Row:
    """What a row says of the machine and the moment that it was computed on."""
    versions = f"python {platform.python_version()}, torch {_version('torch')}, numpy {_version('numpy')}"
    return {"device": device, "versions": versions, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def write_manifest(path: Path, study: str, settings: CommonSettings, rows: Rows, seconds: float) -> None:
    """Write what the last run was asked for and where it ran, whole or not at all."""
    manifest = {
        "study": study,
        "command": ["python", "-m", f"studies.{study}", *sys.argv[1:]],
        "settings": settings.plain(),
        "settings_hash": settings.digest,
        "seeds": settings.seeds,
        "device": settings.device,
        "dtype": settings.dtype,
        "machine": f"{platform.platform()}, {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "data": _about_data(rows),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_computing": round(seconds, 1),
        "commit": _commit(),
    }
    write_whole(path, json.dumps(manifest, indent=2) + "\n")


def _about_data(rows: Rows) -> dict[str, str | int | float]:
    """Name, hash and size of the data of the last row, as far as rows of it say so."""
    *_, last = rows
    about: dict[str, str | int | float] = {name: last[name] for name in ("data", "data_hash")}
    for name in ("train_rows", "test_rows", "features"):
        known = [row[name] for row in rows if row["data_hash"] == last["data_hash"] and row.get(name)]
        if known:
            number = float(known[-1])
            about[name] = int(number) if number.is_integer() else number
    return about


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code, with a plus sign if files have changed since; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        return commit + ("+" if subprocess.run(status, capture_output=True, text=True, check=True).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return None
