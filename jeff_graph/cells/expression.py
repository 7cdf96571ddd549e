"""Cells by genes, in memory or streamed: the input of every other module.

A `Source` gives chunks of cells as compressed sparse rows, so that nothing needs all
cells at once. `Expression` holds them in memory, `jeff_graph.cells.h5ad` streams them
from a file, `jeff_graph.cells.simulate` makes them.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array, vstack

from jeff_graph.cells.columns import check_genes, find_column, plain_column
from jeff_graph.cells.rows import mark_checked, to_rows

__all__ = [
    "Expression",
    "Source",
    "check_cells",
    "check_size",
    "clean_chunk",
    "collect",
    "make_expression",
]


@runtime_checkable
class Source(Protocol):
    """Cells that can be streamed; every pass gives the same ones in the same order."""

    @property
    def genes(self) -> np.ndarray:
        """Names of the genes, distinct strings."""
        ...

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        ...

    def column(self, name: str) -> np.ndarray:
        """One value per cell, such as its type or its label.

        Args:
          name: of the column.

        Returns:
          The values.
        """
        ...

    def chunks(self, size: int = 4096) -> Iterator[csr_array]:
        """Expression of consecutive cells: finite, at least 0, float32.

        Args:
          size: cells per chunk.

        Yields:
          Rows, the last chunk perhaps shorter.
        """
        ...

    def take(self, cells: Int[Array | np.ndarray, " rows"]) -> csr_array:
        """Expression of some cells, in the requested order.

        Args:
          cells: indices.

        Returns:
          Rows.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Expression:
    """Cells in memory; made by `make_expression`.

    Attributes:
      values: [cells, genes], float32, finite, at least 0, no zeros stored.
      genes: names, distinct.
      obs: columns, one value per cell.
    """

    values: csr_array
    genes: np.ndarray
    obs: Mapping[str, np.ndarray]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.values.indptr) - 1

    def column(self, name: str) -> np.ndarray:
        """One value per cell.

        Args:
          name: of the column.

        Returns:
          The values.

        Raises:
          ValueError: if there is no such column; lists those there are.
        """
        return find_column(self.obs, name, "obs")

    def chunks(self, size: int = 4096) -> Iterator[csr_array]:
        """Expression of consecutive cells.

        Args:
          size: cells per chunk; the last may have fewer.

        Yields:
          Rows of ``values``.

        Raises:
          ValueError: if ``size`` is below 1.
        """
        check_size(size)
        for start in range(0, self.num_cells, size):
            yield mark_checked(self.values[start : start + size])

    def take(self, cells: Int[Array | np.ndarray, " rows"]) -> csr_array:
        """Expression of some cells, in the requested order.

        Args:
          cells: indices, from 0; may repeat.

        Returns:
          Rows of ``values``.

        Raises:
          IndexError: if there is no such cell.
        """
        return mark_checked(self.values[check_cells(cells, self.num_cells)])


def make_expression(
    values: Any,
    genes: Iterable[Any] | None = None,
    obs: Mapping[str, Any] | Any = None,
) -> Expression:
    """Bring cells into the form that this package reads.

    Args:
      values: counts, or their logarithm, [cells, genes]: a dense array, a scipy sparse
        matrix of any format and real dtype, or a data frame of pandas.
      genes: names; those of the data frame, or "gene0" and so on, by default.
      obs: columns, one value per cell: a mapping, or a data frame such as
        ``adata.obs``.

    Returns:
      An `Expression`.

    Raises:
      ValueError: if values are negative or not finite, names repeat, or a length does
        not fit.
      TypeError: if the values are not real numbers.

    >>> cells = make_expression(np.array([[0, 3], [1, 0]]), ["ACTB", "CD3D"])
    >>> cells.values.toarray().tolist()
    [[0.0, 3.0], [1.0, 0.0]]
    """
    if genes is None:
        genes = getattr(values, "columns", None)
    if not hasattr(values, "tocsr"):
        values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(
            f"values: expected [cells, genes], got {values.ndim} dimensions"
        )
    rows: Any = clean_chunk(values, "values")
    number, width = rows.shape
    names = [f"gene{i}" for i in range(width)] if genes is None else genes
    given = {} if obs is None else obs
    columns = {str(name): plain_column(given[name]) for name in given}
    for name, column in columns.items():
        if column.shape != (number,):
            raise ValueError(
                f"obs[{name!r}]: expected {number} values, one a cell, got "
                f"shape {column.shape}"
            )
    return Expression(rows, check_genes(names, width, "genes"), columns)


def collect(source: Source, *columns: str) -> Expression:
    """Bring a source into memory.

    Args:
      source: the cells.
      *columns: names of columns to include.

    Returns:
      An `Expression`.
    """
    rows = vstack(list(source.chunks()), format="csr")
    kept = {name: source.column(name) for name in columns}
    return Expression(csr_array(rows), source.genes, kept)


def clean_chunk(
    values: Any, place: str, *, genes: np.ndarray | None = None, first: int = 0
) -> csr_array:
    """Expression as float32 compressed rows without zeros, checked.

    Args:
      values: [cells, genes], dense or sparse.
      place: their name in an error.
      genes: names for the error.
      first: number of the first cell, for the error.

    Returns:
      Rows with sorted indices, duplicates summed.

    Raises:
      ValueError: if a value is negative or not finite; names the place of the first.
      TypeError: if the values are not real numbers.
    """
    rows = to_rows(values, place)
    bad = ~(np.isfinite(rows.data) & (rows.data >= 0))
    if bad.any():
        raise ValueError(_describe(rows, bad, place, genes, first))
    # Stored zeros would count as expressed genes, and duplicates as two.
    if not rows.has_canonical_format or (rows.data == 0).any():
        rows = rows.copy()  # its indices are the caller's
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return mark_checked(rows)


def _describe(
    rows: csr_array, bad: np.ndarray, place: str, genes: np.ndarray | None, first: int
) -> str:
    where = int(np.argmax(bad))
    cell = int(np.searchsorted(rows.indptr, where, side="right")) - 1
    gene = int(rows.indices[where])
    name = f"gene {gene}" if genes is None else f"gene {str(genes[gene])!r}"
    value = rows.data[where]
    what = "negative" if value < 0 else "not finite"
    return (
        f"{place}: expected counts or their logarithm, finite and at least 0, got "
        f"{int(bad.sum())} that are not, the first {value:g} ({what}) at cell "
        f"{first + cell}, {name}; scaled or corrected expression cannot be used: take "
        'the counts, in an h5ad file often layer="raw" or layer="counts"'
    )


def check_cells(cells: Any, number: int) -> Int[np.ndarray, " rows"]:
    """Check indices of cells: numpy would count negative ones from the end.

    Args:
      cells: the indices.
      number: how many cells there are.

    Returns:
      The indices as an array.

    Raises:
      IndexError: if there is no such cell.
    """
    given = np.asarray(cells)
    # An empty list is an array of floats to numpy.
    given = given.astype(int) if not given.size else given
    if given.size and not 0 <= given.min() <= given.max() < number:
        raise IndexError(
            f"cells: expected indices from 0 to {number - 1}, got {given.min()} to "
            f"{given.max()}"
        )
    return given


def check_size(size: int) -> None:
    """Check the size of chunks.

    Args:
      size: cells per chunk.

    Raises:
      ValueError: if it is below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 cell a chunk, got {size}")
