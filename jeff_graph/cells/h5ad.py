"""Cells streamed from files of anndata, h5ad or zarr: never read whole.

X may be dense or compressed by rows, counts or their logarithm, of any real dtype.
Files are read through anndata, element by element.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array

from jeff import assets, files
from jeff_graph.cells.columns import (
    check_genes,
    find_column,
    plain_column,
)
from jeff_graph.cells.compressed import check_indices
from jeff_graph.cells.expression import (
    Expression,
    check_cells,
    check_size,
    clean_chunk,
    collect,
)
from jeff_graph.cells.parts import Parts, open_parts
from jeff_graph.cells.rows import mark_checked

__all__ = ["CellFile", "load_pbmc", "open_cells"]

_EXPECTED = "an h5ad file or a zarr folder that anndata wrote"
_ADVICE = "copy or download it again"


class CellFile:
    """A file of cells, open for streaming; a `jeff_graph.cells.expression.Source`.

    Use it in a ``with`` statement, or call `close`.

    Attributes:
      path: the file.
      layer: which matrix is read.
      genes: names of its columns.
      num_cells: number of its rows.
      logged: whether the file says that scanpy's ``log1p`` made this matrix.
    """

    path: Path
    layer: str
    genes: np.ndarray
    num_cells: int
    logged: bool

    def __init__(self, path: Path, layer: str, parts: Parts):
        """Stream from an open file; `open_cells` is the way in.

        Args:
          path: the file, for errors.
          layer: which matrix it is, for errors.
          parts: what was found in the file.
        """
        self.path, self.layer, self._parts = path, layer, parts
        self._place, self.logged = f"{path}: {layer}", parts.logged
        self.num_cells, width = (int(size) for size in parts.matrix.shape)
        self.genes = check_genes(parts.genes, width, f"{path}: names of genes")

    def __enter__(self) -> "CellFile":
        """Stream from the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file; it cannot be read afterwards."""
        self._parts.close()

    def column(self, name: str) -> np.ndarray:
        """A column of ``obs``.

        Args:
          name: of the column.

        Returns:
          One value per cell: numbers unchanged, anything else as strings, "" where a
          value is missing.

        Raises:
          ValueError: if there is no such column; lists those there are.
        """
        return find_column(self.obs, name, f"{self.path}: obs")

    @functools.cached_property
    def obs(self) -> Mapping[str, np.ndarray]:
        """All columns of ``obs``.

        Returns:
          Columns by name, as `column` gives them.
        """
        with self._damage():
            frame = self._parts.read_obs()
            return {str(name): plain_column(frame[name]) for name in frame.columns}

    def chunks(self, size: int = 4096) -> Iterator[csr_array]:
        """Expression of consecutive cells.

        Args:
          size: cells per chunk; the last may have fewer.

        Yields:
          Float32 rows.

        Raises:
          ValueError: if ``size`` is below 1, a value is negative or not finite, or the
            file is damaged.
        """
        check_size(size)
        for start in range(0, self.num_cells, size):
            yield self._rows(start, min(start + size, self.num_cells))

    def take(self, cells: Int[Array | np.ndarray, " rows"]) -> csr_array:
        """Expression of some cells, in the requested order.

        Args:
          cells: indices, from 0; may repeat.

        Returns:
          Float32 rows.

        Raises:
          IndexError: if there is no such cell.
          ValueError: as `chunks`.
        """
        cells = check_cells(cells, self.num_cells)
        # HDF5 reads ascending, distinct rows alone.
        distinct, back = np.unique(cells, return_inverse=True)
        if not distinct.size:
            return csr_array((0, len(self.genes)), dtype=np.float32)
        with self._damage():
            rows = self._parts.matrix[distinct]
        check_indices(rows, distinct, self._place)
        rows = clean_chunk(rows, self._place, genes=self.genes)
        return mark_checked(rows[back])

    def _rows(self, start: int, stop: int) -> csr_array:
        with self._damage():
            rows = self._parts.matrix[start:stop]
        check_indices(rows, range(start, stop), self._place)
        return clean_chunk(rows, self._place, genes=self.genes, first=start)

    def _damage(self) -> AbstractContextManager[None]:
        return files.reading(self._place, "a whole file", advice=_ADVICE)


def open_cells(
    path: str | Path, layer: str = "X", *, symbols: str | None = None
) -> CellFile:
    """Open a file that anndata wrote.

    Args:
      path: an ``.h5ad`` file, or a ``.zarr`` folder.
      layer: "X", "raw" for ``adata.raw``, or a name in ``adata.layers``.
      symbols: column of ``var`` (of ``raw.var`` for "raw") that names the genes, where
        the index has ids; None names them by the index. A gene without a symbol keeps
        its id; genes that share one are named ``SYMBOL-ID``, with a warning.

    Returns:
      A `CellFile`.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if it is no such file, it is damaged, there is no such layer or column
        of symbols, names of genes repeat, or X is compressed by columns.
      ImportError: if anndata is missing; names the command that installs it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected an h5ad file or a zarr folder, found none"
        )
    try:
        import anndata  # noqa: F401
        import h5py  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'expected anndata for h5ad files: pip install "jeff-jax[bio]"'
        ) from error
    # HDF5, anndata and pandas raise errors of many kinds over a damaged file.
    with files.reading(path, _EXPECTED, advice=_ADVICE):
        return CellFile(path, layer, open_parts(path, layer, symbols))


def load_pbmc() -> Expression:
    """Blood cells of one donor: 700 cells, 765 genes, with cell types.

    Published by 10x Genomics (PBMC 68k), reduced and normalised by scanpy's authors:
    the logarithm of expression, in compressed rows. Columns are those of the file, such
    as "bulk_labels", the cell type.

    Returns:
      An `Expression`.

    Raises:
      FileNotFoundError: if the file is not here; names the command that fetches it.
      ImportError: if anndata is missing; names the command that installs it.
    """
    with open_cells(assets.find("pbmc"), layer="raw") as source:
        return collect(source, *source.obs)
