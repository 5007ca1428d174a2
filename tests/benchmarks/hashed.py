"""Writes data sets as hashed rows, small enough to travel to a machine without the data.

python -m tests.benchmarks.hashed trec6 clinc150 --to .build/sets
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tests.benchmarks.data import DEFAULT_DATA, SOURCES, load


def main() -> None:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("sets", nargs="+", choices=list(SOURCES))
    options.add_argument("--to", type=Path, required=True, help="folder")
    options.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data sets")
    chosen = options.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    for name in chosen.sets:
        found = load(name, chosen.data)
        X, (_, y) = found.X.tocsr(), np.unique(found.y, return_inverse=True)
        columns, indices = np.unique(X.indices, return_inverse=True)
        np.savez_compressed(
            chosen.to / f"{name}.npz", indptr=X.indptr, indices=indices.astype(np.int32),
            data=X.data.astype(np.float32), shape=(X.shape[0], columns.size), y=y,
        )  # fmt: skip


if __name__ == "__main__":
    main()
