"""The data sets by name, as rows and labels, vectorised as `prototide produce` does and cached outside the project."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.service.row_encoding import RowEncoder, batches
from prototide.service.sources import Columns, Lines, format_of, read_rows
from prototide.service.wire import Limits, decode_batch

TEXT_COLUMNS = 2**17
RECORD_ROWS = 1024
SHUFFLE_SEED = 0
CACHE = Path.home() / ".cache" / "prototide" / "benchmarks"
CACHE_FORMAT = 1
CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_DATA = CHECKOUT.parent / "shared" / "data"


@dataclass(frozen=True)
class Source:
    """Where a set is: its files in order, and whether its rows are shuffled (they are sorted by class)."""

    folder: str
    files: tuple[str, ...]
    shuffled: bool
    first_of_several: bool = False  # labels are joined by |: the first counts, rows without any are left out
    euclidean: bool = False


@dataclass(frozen=True)
class DataSet:
    """Rows in stream order. X: (n, columns) float32; y: (n,) str or int."""

    name: str
    X: sp.csr_matrix
    y: NDArray[Any]
    euclidean: bool = False
    columns_left_out: int = 0  # of those that no row uses

    def batches(self, size: int) -> Iterator[tuple[sp.csr_matrix, NDArray[Any]]]:
        """The rows by `size`, in order."""
        for first in range(0, len(self.y), size):
            yield self.X[first : first + size], self.y[first : first + size]


_TRAIN_TEST = ("train.tsv.gz", "test.tsv.gz")

DEVELOPMENT = {
    "trec6": Source("trec6", _TRAIN_TEST, shuffled=True),
    "banking77": Source("banking77", _TRAIN_TEST, shuffled=True),
    "clinc150": Source("clinc150", ("train.tsv.gz", "val.tsv.gz", "test.tsv.gz"), shuffled=True),
    "stackoverflow20": Source("stackoverflow20", ("all.tsv.gz",), shuffled=True),
    "reuters_r52": Source("reuters_r52", _TRAIN_TEST, shuffled=True),
    "20newsgroups": Source("20newsgroups_bydate", _TRAIN_TEST, shuffled=True),
    "exploitdb": Source("exploitdb_stream", ("stream.tsv.gz",), shuffled=False),
    "spam_katakis": Source("spam_katakis_stream", ("stream.svm.gz",), shuffled=False),
    "debian_packages": Source("debian_packages", ("all.tsv.gz",), shuffled=True),
    "elec2": Source("elec2_stream", ("stream.csv.gz",), shuffled=False, euclidean=True),
}
"""The learner's rule and its constants were chosen with a view of these."""

HELD_OUT = {
    "agnews_subset": Source("agnews_subset", _TRAIN_TEST, shuffled=True),
    "reuters21578": Source("reuters21578_stream", ("stream.tsv.gz",), shuffled=False, first_of_several=True),
    "wordnet_gloss": Source("wordnet_gloss", ("all.tsv.gz",), shuffled=True),
    "git_area": Source("git_area_stream", ("stream.tsv.gz",), shuffled=False),
}
"""Nothing was chosen with a view of these."""

SOURCES = DEVELOPMENT | HELD_OUT


def load(name: str, data: Path = DEFAULT_DATA) -> DataSet:
    """The set `name` from the folder `data`; FileNotFoundError says what is missing."""
    source = SOURCES[name]
    X, y = load_files([data / source.folder / file for file in source.files])
    if source.first_of_several:
        y = np.array([label.partition("|")[0] for label in y])
        X, y = X[y != ""], y[y != ""]
    if source.shuffled:
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(y))
        X, y = X[order], y[order]
    return DataSet(name, X, y, source.euclidean)


def load_files(files: Sequence[Path]) -> tuple[sp.csr_matrix, NDArray[Any]]:
    """Rows and labels of the files, one after the other; a missing label is ''."""
    parts = [_load_file(file) for file in files]
    return _stacked([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def _load_file(file: Path) -> tuple[sp.csr_matrix, NDArray[Any]]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing: the benchmarks read the data sets beside the checkout (../shared/data); "
            "name another folder with --data"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    cached = CACHE / f"{CACHE_FORMAT}-{TEXT_COLUMNS}-{digest}.npz"
    if not cached.exists():
        X, y = _dense_table(file) if ".csv" in file.suffixes else _vectorised(file)
        CACHE.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, data=X.data, indices=X.indices, indptr=X.indptr, shape=X.shape, y=y)
        part.rename(cached)
    with np.load(cached) as saved:
        matrix = sp.csr_matrix((saved["data"], saved["indices"], saved["indptr"]), shape=tuple(saved["shape"]))
        return matrix, saved["y"]


def _vectorised(file: Path) -> tuple[sp.csr_matrix, NDArray[Any]]:
    """The file's rows as the service receives them: encoded by `prototide produce`, and decoded."""
    lines, encoder = Lines(file), RowEncoder(TEXT_COLUMNS, Limits())
    received = [
        decode_batch(record.payload)
        for rows in batches(read_rows(lines, format_of(file), Columns()), encoder, RECORD_ROWS)
        for record in encoder.encode(rows)
    ]
    lines.close()
    labels = [label for batch in received for label in batch.labels]
    return _stacked([batch.X for batch in received]), np.array(["" if label is None else label for label in labels])


def _stacked(parts: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    """The rows of all parts (as wide as the widest)."""
    width = max(X.shape[1] for X in parts)
    same = [sp.csr_matrix((X.data, X.indices, X.indptr), shape=(X.shape[0], width)) for X in parts]
    return sp.csr_matrix(sp.vstack(same, format="csr"), dtype=np.float32)


def _dense_table(file: Path) -> tuple[sp.csr_matrix, NDArray[Any]]:
    """A header, then numbers with the class last; zeros stay out of the CSR and mean 0."""
    with gzip.open(file, "rt", encoding="utf8", newline="") as text:
        records = list(csv.reader(text))[1:]
    X = np.array([[float(value) for value in record[:-1]] for record in records], np.float32)
    return sp.csr_matrix(X), np.array([record[-1] for record in records])
