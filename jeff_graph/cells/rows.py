"""Sparse rows of cells as arrays of static shape, for jit."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array

__all__ = ["Rows", "is_checked", "make_rows", "mark_checked", "sparse_values"]


class Rows(NamedTuple):
    """Cells by genes, the zeros left out: compressed sparse rows, padded at the end.

    Cell c holds the genes ``genes[starts[c] : starts[c] + counts[c]]``. Invariants:
    ``values`` of those places are positive; places behind the last cell's belong to no
    cell and change nothing; a row that pads has ``counts`` of -1.

    Attributes:
      genes: ids, one per nonzero.
      values: expression, one per nonzero.
      starts: first place of each cell.
      counts: number of genes of each cell; -1 for a row that is not a cell.
    """

    genes: Int[Array | np.ndarray, " nonzeros"]
    values: Float[Array | np.ndarray, " nonzeros"]
    starts: Int[Array | np.ndarray, " cells"]
    counts: Int[Array | np.ndarray, " cells"]


def make_rows(
    cells: Any, *, num_rows: int | None = None, num_nonzeros: int | None = None
) -> Rows:
    """Put cells into arrays whose sizes repeat, so that chunks compile once.

    Args:
      cells: dense array or scipy sparse matrix, [cells, genes], no negative values.
      num_rows: rows of the result; the cells' own number by default.
      num_nonzeros: places for nonzeros; by default their number, rounded up so that at
        most one size in eight a doubling occurs.

    Returns:
      `Rows` of numpy arrays.

    Raises:
      ValueError: if values are negative or not finite, or the sizes do not suffice.

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
    # Padding has value 1, whose logarithm is finite.
    return Rows(genes, np.pad(values, behind, constant_values=1), starts, counts)


def mark_checked(rows: csr_array) -> csr_array:
    """Note on rows that their values are finite, at least 0 and float32.

    A source checks each chunk that it reads; `sparse_values` then takes its word, so
    that a pass over a file looks at every value once. The note is lost by arithmetic
    and slicing, which make other rows.

    Args:
      rows: the rows.

    Returns:
      The same rows.
    """
    setattr(rows, _CHECKED, True)
    return rows


def is_checked(rows: Any) -> bool:
    """Whether `mark_checked` noted something on these very rows.

    Args:
      rows: any cells.

    Returns:
      Whether it did.
    """
    return getattr(rows, _CHECKED, False)


_CHECKED = "jeff_checked"


def sparse_values(cells: Any) -> tuple[csr_array, Float[np.ndarray, " nonzeros"]]:
    """Compressed rows without zeros, and their values, checked.

    Args:
      cells: dense array or scipy sparse matrix, [cells, genes].

    Returns:
      ``(rows, values)``: the matrix, and its nonzeros in float32.

    Raises:
      ValueError: if values are negative or not finite.
    """
    sparse = csr_array(cells)
    # Checked after the cast: a float64 beyond float32's range becomes infinite there.
    values = np.asarray(sparse.data, np.float32)
    fine = is_checked(cells) or (np.isfinite(values).all() and (values >= 0).all())
    if not fine:
        raise ValueError(
            "cells: expected finite values of at least 0 (counts, or their logarithm), "
            f"got {int((values < 0).sum())} negative and "
            f"{int((~np.isfinite(values)).sum())} not finite; take unscaled expression"
        )
    if (values == 0).any():
        sparse = sparse.copy()
        sparse.eliminate_zeros()
        values = np.asarray(sparse.data, np.float32)
    return sparse, values


def _rounded(count: int) -> int:
    step = 1 << max(count.bit_length() - 3, 6)
    return max(-(-count // step), 1) * step
