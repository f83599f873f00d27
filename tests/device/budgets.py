"""The committed budgets of kernels, waits and uploads a step. ``python -m tests.device.budgets`` writes them anew."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from tests.device.counting import of_a_step
from tests.device.pretended import pretended
from tests.device.steps import STEPS

FILE = Path(__file__).with_name("budgets.csv")
COLUMNS = "kernels", "waits", "uploads"


def committed() -> dict[str, dict[str, int]]:
    """The table in the file."""
    with FILE.open() as file:
        return {row["step"]: {column: int(row[column]) for column in COLUMNS} for row in csv.DictReader(file)}


def measured(name: str) -> dict[str, int]:
    """What a step asks of the device now."""
    with pretended():
        return dict(zip(COLUMNS, of_a_step(STEPS[name]()), strict=True))


def main(names: list[str]) -> None:
    """Measure the steps named, or all, and write them into the table."""
    table = committed() if FILE.exists() else {}
    table |= {name: measured(name) for name in names or STEPS}
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *COLUMNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": name} | table[name] for name in STEPS if name in table)


if __name__ == "__main__":
    main(sys.argv[1:])
