"""Rows of any container - SciPy sparse, NumPy, torch, lists - as one canonical CSR form."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from prototide.core.compiling import kernel

LARGEST, SMALLEST = 1e18, 1e-18  # beyond these a square of a float32 loses its precision
MOST_COLUMNS = 2**31 - 1
MOST_NONZEROS = 2**31 - 1


@dataclass(frozen=True)
class CsrRows:
    """Finite rows in CSR form: columns ascending, no duplicates, no stored zeros."""

    indptr: NDArray[np.int64]  # (count + 1,)
    indices: NDArray[np.int32]  # (non-zeros,)
    data: NDArray[np.floating[Any]]  # (non-zeros,) float32 or float64
    width: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.indptr.size - 1

    @property
    def empty(self) -> NDArray[np.bool_]:
        """(count,) True for rows without non-zeros."""
        return np.equal(self.indptr[1:], self.indptr[:-1])

    def part(self, first: int, last: int) -> CsrRows:
        """Rows first..last - 1."""
        if first == 0 and last == self.count:
            return self
        begin, end = self.indptr[first], self.indptr[last]
        return CsrRows(self.indptr[first : last + 1] - begin, self.indices[begin:end], self.data[begin:end], self.width)

    def take(self, rows: NDArray[np.int64]) -> CsrRows:
        """The given rows, in that order."""
        return of_matrix(self.matrix()[rows])

    def matrix(self) -> sp.csr_matrix:
        """The same rows for SciPy."""
        return sp.csr_matrix((self.data, self.indices, self.indptr), shape=(self.count, self.width))


def canonical_rows(X: Any) -> CsrRows:
    """Checks and converts rows: a SciPy sparse matrix or array, a torch tensor, or anything NumPy can make 2-D.

    Sparse input is never made dense, and never changed. Raises ValueError for NaN, infinities, column ids out of range,
    other than two dimensions, and TypeError for values that are not real numbers.
    """
    if "torch" in sys.modules and isinstance(X, sys.modules["torch"].Tensor):
        X = _of_tensor(X)
    if _is_canonical(X):
        return _writable(X)
    if not sp.issparse(X):
        X = _dense(X)
    if X.ndim != 2:
        raise ValueError(
            f"X must have two dimensions (rows, features), got {X.ndim}. "
            "Reshape your data: a single row is X.reshape(1, -1)"
        )
    if X.dtype.kind not in "biuf":
        raise TypeError(f"X must hold real numbers, got dtype {X.dtype}")
    if X.dtype.kind == "f" and X.dtype.itemsize > 8:  # before the check for infinities: it may become one
        with np.errstate(over="ignore"):
            X = X.astype(np.float64)
    if X.shape[1] > MOST_COLUMNS:
        raise ValueError(f"X has {X.shape[1]:,} columns; at most {MOST_COLUMNS:,} are possible")
    return of_matrix(X)


def of_matrix(X: Any) -> CsrRows:
    """Rows of a 2-D array or sparse matrix of real numbers; see `canonical_rows` for the checks."""
    if not sp.issparse(X) and not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise _not_finite(X[row, column], row, column)
    if sp.issparse(X):
        _check_positions(X)
    given = X
    X = sp.csr_matrix(X)
    _check_ids("column", X.indices[: X.indptr[-1]], X.shape[1])  # SciPy converts whatever they are
    if X.nnz > MOST_NONZEROS:
        raise ValueError(
            f"X has {X.nnz:,} non-zeros; at most {MOST_NONZEROS:,} are possible: pass fewer rows at a time"
        )
    if isinstance(given, sp.csr_matrix | sp.csr_array):  # shares its arrays
        X = X.copy() if not X.has_canonical_format else sp.csr_matrix((X.data, X.indices, X.indptr), shape=X.shape)
    if not np.isfinite(X.data).all():
        at = int(np.flatnonzero(~np.isfinite(X.data))[0])
        raise _not_finite(X.data[at], int(np.searchsorted(X.indptr, at, side="right")) - 1, X.indices[at])
    X.sum_duplicates()
    if X.nnz and not X.data.all():
        X = X.copy()
        X.eliminate_zeros()
    return _writable(X)


def _writable(X: Any) -> CsrRows:
    """Rows of a canonical CSR matrix, in arrays that kernels are compiled for: native, contiguous, writable."""
    end = int(X.indptr[-1])
    kind = np.float32 if X.dtype == np.float32 else np.float64
    return CsrRows(_as(X.indptr, np.int64), _as(X.indices[:end], np.int32), _as(X.data[:end], kind), X.shape[1])


def _as(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.writeable:
        return array
    return np.require(array, dtype, ["C", "W"])


def _is_canonical(X: Any) -> bool:
    """Whether rows can be taken as they are: CSR, columns ascending and in range, all values finite and not zero."""
    if not isinstance(X, sp.csr_matrix | sp.csr_array) or X.ndim != 2 or X.shape[1] > MOST_COLUMNS:
        return False
    arrays = (X.indptr, X.indices, X.data)
    plain = all(array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative for array in arrays)
    if not plain or X.dtype not in (np.float32, np.float64) or X.indptr.size != X.shape[0] + 1:
        return False
    if X.indices.size > MOST_NONZEROS or X.indices.dtype.kind != "i" or X.indptr.dtype.kind != "i":
        return False
    return bool(_ascends(*arrays, X.shape[1]))


@kernel()
def _ascends(indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any], columns: int) -> bool:
    """`_is_canonical` but for the types."""
    count = indptr.size - 1
    if indptr[0] != 0 or indptr[count] > min(indices.size, data.size):
        return False
    for t in range(count):
        if indptr[t + 1] < indptr[t]:
            return False
    for t in range(count):
        before = -1
        for i in range(indptr[t], indptr[t + 1]):
            if indices[i] <= before or data[i] == 0 or not np.isfinite(data[i]):
                return False
            before = indices[i]
        if before >= columns:
            return False
    return True


def _check_positions(X: Any) -> None:
    """ValueError for rows outside the matrix: SciPy's conversions trust them, and write where these point."""
    if X.format == "coo":
        _check_ids("row", X.coords[0], X.shape[0])
    elif X.format in ("csr", "csc", "bsr"):
        if X.indptr[0] != 0 or (np.diff(X.indptr) < 0).any() or X.indptr[-1] > min(X.indices.size, len(X.data)):
            raise ValueError(f"X is no {X.format.upper()} matrix: indptr must ascend from 0 to the number of entries")
        if X.format == "csc":
            _check_ids("row", X.indices[: X.indptr[-1]], X.shape[0])


def _check_ids(axis: str, ids: NDArray[Any], size: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        bad = ids[(ids < 0) | (ids >= size)][0]
        raise ValueError(f"X has the {axis} id {bad}; allowed are 0 to {size - 1}")


def scaled(rows: CsrRows) -> CsrRows:
    """Rows with entries far from 1, scaled so that squares neither overflow nor vanish; directions stay."""
    if not rows.data.size:
        return rows
    size = np.abs(rows.data)
    if float(size.min()) > SMALLEST and float(size.max()) < LARGEST:
        return rows
    filled = np.flatnonzero(~rows.empty)
    largest = np.maximum.reduceat(size, rows.indptr[filled]).astype(np.float64)
    data = rows.data.astype(np.float64) / np.repeat(largest, np.diff(rows.indptr)[filled])
    return CsrRows(rows.indptr, rows.indices, data, rows.width)


def _not_finite(value: float, row: int, column: int) -> ValueError:
    name = "NaN" if np.isnan(value) else "infinity"
    return ValueError(f"X contains {name} in row {row}, column {column}; only finite numbers are allowed")


def _dense(X: ArrayLike) -> NDArray[Any]:
    if np.ma.isMaskedArray(X) and np.ma.getmaskarray(X).any():
        raise ValueError("X is a masked array with masked entries: fill them, X.filled(0), or drop their rows")
    try:
        array = np.asarray(X)
    except ValueError as wrong:
        raise ValueError(f"X must hold rows of one length: {wrong}") from None
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X has dtype {array.dtype}")
    if array.dtype == np.float16:  # SciPy knows no such sparse matrix
        return array.astype(np.float32)
    if array.dtype.kind in "OUS":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as wrong:
            kind = TypeError if isinstance(wrong, TypeError) else ValueError
            raise kind(f"X must hold real numbers, got dtype {array.dtype}: {wrong}") from None
    return array


def _of_tensor(X: Any) -> Any:
    torch = sys.modules["torch"]
    X = X.detach().cpu()
    if X.dtype in (torch.bfloat16, torch.float16):
        X = X.float()
    if X.layout == torch.strided:
        return X.numpy()
    if X.layout == torch.sparse_csr:
        return sp.csr_matrix(
            (X.values().numpy(), X.col_indices().numpy(), X.crow_indices().numpy()), shape=tuple(X.shape)
        )
    X = X.to_sparse_coo().coalesce()
    return sp.csr_matrix((X.values().numpy(), tuple(X.indices().numpy())), shape=tuple(X.shape))
