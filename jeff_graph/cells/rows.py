"""Sparse rows of cells as arrays of static shape, for use under jit."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array

__all__ = [
    "Rows",
    "is_checked",
    "make_rows",
    "mark_checked",
    "sparse_values",
    "to_rows",
]


class Rows(NamedTuple):
    """Cells by genes without zeros: compressed sparse rows, padded at the end.

    Cell c holds the genes ``genes[starts[c] : starts[c] + counts[c]]``. Invariants:

    * ``values`` at these positions are positive.
    * Positions after those of the last cell are padding and have no effect.
    * A padding row has a ``counts`` of -1.

    Attributes:
      genes: gene ids, one per nonzero.
      values: expression, one per nonzero.
      starts: first position of each cell.
      counts: number of genes in each cell; -1 for a padding row.
    """

    genes: Int[Array | np.ndarray, " nonzeros"]
    values: Float[Array | np.ndarray, " nonzeros"]
    starts: Int[Array | np.ndarray, " cells"]
    counts: Int[Array | np.ndarray, " cells"]


def make_rows(
    cells: Any, *, num_rows: int | None = None, num_nonzeros: int | None = None
) -> Rows:
    """Convert cells to arrays of few distinct sizes, so that chunks rarely recompile.

    Args:
      cells: dense array or scipy sparse matrix, [cells, genes], without negative
        values.
      num_rows: number of rows of the result; the number of cells by default.
      num_nonzeros: number of positions for nonzeros; by default their number, rounded
        up to one of a few sizes for each power of two.

    Returns:
      `Rows` of numpy arrays.

    Raises:
      ValueError: if values are negative or not finite, or the sizes are too small.

    >>> make_rows(np.array([[0.0, 2.0], [0.0, 0.0]])).counts
    array([1, 0], dtype=int32)
    """
    sparse, values = sparse_values(cells)
    rows, nonzeros = len(sparse.indptr) - 1, len(values)
    num_rows = rows if num_rows is None else num_rows
    num_nonzeros = _rounded(nonzeros) if num_nonzeros is None else num_nonzeros
    if num_rows < rows or num_nonzeros < nonzeros:
        raise ValueError(
            f"num_rows, num_nonzeros: expected at least {rows} and {nonzeros}, got "
            f"{num_rows} and {num_nonzeros}"
        )
    starts, counts = np.zeros(num_rows, np.int32), np.full(num_rows, -1, np.int32)
    starts[:rows], counts[:rows] = sparse.indptr[:-1], np.diff(sparse.indptr)
    behind = (0, num_nonzeros - nonzeros)
    genes = np.pad(np.asarray(sparse.indices, np.int32), behind)
    # Padding has value 1, so that its logarithm is finite.
    return Rows(genes, np.pad(values, behind, constant_values=1), starts, counts)


def mark_checked(rows: csr_array) -> csr_array:
    """Mark rows whose values are known to be finite, at least 0 and float32.

    A source checks each chunk that it reads. `sparse_values` skips its check for marked
    rows, so a pass over a file checks every value only once. Arithmetic and slicing
    create new rows without the mark.

    Args:
      rows: the rows.

    Returns:
      The same object.
    """
    setattr(rows, _CHECKED, True)
    return rows


def is_checked(rows: Any) -> bool:
    """Whether `mark_checked` has marked this object.

    Args:
      rows: any cells.

    Returns:
      True if it has.
    """
    return getattr(rows, _CHECKED, False)


_CHECKED = "jeff_checked"


def sparse_values(cells: Any) -> tuple[csr_array, Float[np.ndarray, " nonzeros"]]:
    """Convert cells to compressed rows without zeros, and check their values.

    Args:
      cells: dense array or scipy sparse matrix, [cells, genes].

    Returns:
      ``(rows, values)``: the matrix, and its nonzeros in float32.

    Raises:
      ValueError: if values are negative or not finite.
    """
    sparse = to_rows(cells, "cells")
    # Check after the cast, which turns a float64 beyond the float32 range to infinity.
    values = sparse.data
    fine = is_checked(cells) or (np.isfinite(values).all() and (values >= 0).all())
    if not fine:
        raise ValueError(
            "cells: expected finite values of at least 0 (counts, or their logarithm), "
            f"got {int((values < 0).sum())} negative and "
            f"{int((~np.isfinite(values)).sum())} not finite; take unscaled expression"
        )
    if is_checked(cells):
        return sparse, values
    # A gene stored twice is one gene, and a stored zero is none.
    if not sparse.has_canonical_format or (values == 0).any():
        # It may share memory with the caller's matrix, which must not change.
        sparse = sparse.copy()
        sparse.sum_duplicates()
        sparse.eliminate_zeros()
        values = sparse.data
    return sparse, values


def to_rows(cells: Any, place: str) -> csr_array:
    """Cells as compressed rows of float32, not yet checked.

    Args:
      cells: dense array, data frame or scipy sparse matrix, [cells, genes].
      place: their name in an error.

    Returns:
      The rows; they may share indices with the argument.

    Raises:
      TypeError: if the values are not real numbers.
    """
    if not hasattr(cells, "tocsr"):
        cells = np.asarray(cells)
    if np.dtype(cells.dtype).kind not in "buif":
        raise TypeError(f"{place}: expected real numbers, got {cells.dtype}")
    # Cast first: scipy has no float16, and sums of doubled uint8 would wrap at 256.
    if cells.dtype != np.float32:
        with np.errstate(over="ignore"):
            cells = cells.astype(np.float32)
    return csr_array(cells)


def _rounded(count: int) -> int:
    # Four sizes for each power of two, so padding adds at most a quarter to the count.
    step = 1 << max(count.bit_length() - 3, 6)
    return max(-(-count // step), 1) * step
