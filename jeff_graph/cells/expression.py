"""Cells by genes, in memory or streamed: the input of every other module.

A `Source` gives chunks of cells as compressed sparse rows, so that nothing needs all
cells at once. `Expression` holds them in memory, `jeff_graph.cells.h5ad` streams them
from a file, `jeff_graph.cells.simulate` makes them.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array, vstack

from jeff_graph.cells.rows import mark_checked

__all__ = [
    "Expression",
    "Source",
    "check_genes",
    "clean_chunk",
    "collect",
    "label_codes",
    "make_expression",
]

_SHOWN = 5


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
          cells: indices.

        Returns:
          Rows of ``values``.
        """
        return mark_checked(self.values[np.asarray(cells)])


def make_expression(
    values: Any,
    genes: Sequence[str] | np.ndarray | None = None,
    obs: Mapping[str, Any] | None = None,
) -> Expression:
    """Bring cells into the form that this package reads.

    Args:
      values: counts, or their logarithm, [cells, genes]: a dense array or a scipy
        sparse matrix of any format and real dtype.
      genes: names; "gene0" and so on by default.
      obs: columns, one value per cell.

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
    if np.ndim(values) != 2:
        raise ValueError(
            f"values: expected [cells, genes], got {np.ndim(values)} dimensions"
        )
    rows: Any = clean_chunk(values, "values")
    number, width = rows.shape
    names = [f"gene{i}" for i in range(width)] if genes is None else genes
    columns = {name: np.asarray(column) for name, column in (obs or {}).items()}
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
    if np.dtype(values.dtype).kind not in "buif":
        raise TypeError(f"{place}: expected real numbers, got {values.dtype}")
    given: Any = csr_array(values)
    # Cast before the check: a float64 beyond float32's range is infinite here.
    data = given.data.astype(np.float32)
    rows = csr_array((data, given.indices, given.indptr), shape=given.shape)
    bad = ~(np.isfinite(data) & (data >= 0))
    if bad.any():
        raise ValueError(_describe(rows, bad, place, genes, first))
    # Stored zeros would count as expressed genes, and duplicates as two.
    if not given.has_canonical_format or (data == 0).any():
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


def check_genes(genes: Any, number: int, place: str) -> np.ndarray:
    """Check the names of genes.

    Args:
      genes: the names.
      number: how many are expected.
      place: their name in an error.

    Returns:
      An array of strings.

    Raises:
      ValueError: if their number is another, or names repeat.
    """
    names = np.array([str(gene) for gene in genes], dtype=np.str_)
    if len(names) != number:
        raise ValueError(f"{place}: expected {number} names, got {len(names)}")
    # Columns of one name would share a rank, a token and a pair.
    counts = collections.Counter(names.tolist())
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"{place}: expected distinct names, got {len(twice)} that repeat, such as "
            f"{', '.join(twice[:_SHOWN])}; make them unique first (in anndata "
            "`adata.var_names_make_unique()`), or sum the columns of a gene"
        )
    return names


def label_codes(
    column: np.ndarray, *, name: str = "label"
) -> tuple[Int[np.ndarray, " cells"], tuple[str, ...]]:
    """Number the classes of a label.

    Args:
      column: one value per cell; None, NaN and the empty string are missing.
      name: its name in an error.

    Returns:
      ``(codes, classes)``: int32 codes in the order of ``classes``, -1 for missing
      labels; classes are sorted.

    Raises:
      ValueError: if fewer than two classes occur, or the label is a continuous number.

    >>> label_codes(np.array(["sick", "well", "", "sick"]))
    (array([ 0,  1, -1,  0], dtype=int32), ('sick', 'well'))
    """
    values = np.asarray(column)
    missing = np.array([_is_missing(value) for value in values.tolist()], bool)
    # pandas stores whole numbers with a gap as floats; their names should be "1", not
    # "1.0".
    if values.dtype.kind == "f":
        kinds = np.unique(values[~missing])
        if len(kinds) > 20 and (kinds != np.round(kinds)).any():
            raise ValueError(
                f"{name}: expected classes, got {len(kinds)} different numbers; cut "
                "them into classes first"
            )
        if (kinds == np.round(kinds)).all():
            values = np.where(missing, 0, values).astype(np.int64)
    present, codes = np.unique(values[~missing], return_inverse=True)
    if len(present) < 2:
        raise ValueError(
            f"{name}: expected at least two classes, got {len(present)} "
            f"({', '.join(map(str, present)) or 'every value is missing'})"
        )
    full = np.full(len(values), -1, np.int32)
    full[~missing] = codes
    return full, tuple(str(value) for value in present.tolist())


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and isnan(value))


def find_column(columns: Mapping[str, Any], name: str, place: str) -> np.ndarray:
    """A column, or an error that lists those there are.

    Args:
      columns: by name.
      name: the one wanted.
      place: their name in an error.

    Returns:
      Its values.

    Raises:
      ValueError: if it is not there.
    """
    if name not in columns:
        raise ValueError(
            f"{place}: expected one of {', '.join(map(str, columns)) or 'none'}, got "
            f"{name!r}"
        )
    return np.asarray(columns[name])


def check_size(size: int) -> None:
    """Check the size of chunks.

    Args:
      size: cells per chunk.

    Raises:
      ValueError: if it is below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 cell a chunk, got {size}")
