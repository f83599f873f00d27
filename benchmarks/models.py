"""Latent-variable models against their peers: ``python -m benchmarks.models`` (needs benchmarks/requirements.txt).

EM against scikit-learn, pomegranate and torchgmm, PPCA against scikit-learn, VAE evidence and training step against
pythae. ``--quick`` takes a second a job. Rows go to a CSV file, a plot beside it, a table to the terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import autoencoder, mixture, principal_components
from benchmarks.plot import plot
from benchmarks.timing import Row, table, use_threads, write


def main() -> None:
    """Race what was asked for, and write the rows."""
    rooms = {"em": mixture.rows, "ppca": principal_components.rows, "vae": autoencoder.rows}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="em|ppca|vae", help="which of them (default: all)")
    parser.add_argument("--quick", action="store_true", help="a second a job, for a look")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of every library (default: 1, then 2)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/models.csv"), help="where the rows go")
    options = parser.parse_args()
    rows: list[Row] = []
    for threads in options.threads:
        use_threads(threads)
        for name in options.only or rooms:
            more = rooms[name](1.0 if options.quick else 6.0)
            print(table(more), flush=True)
            rows += more
    write(rows, options.out)
    plot(rows, options.out.with_suffix(".png"))
    print(f"rows: {options.out}")


if __name__ == "__main__":
    main()
