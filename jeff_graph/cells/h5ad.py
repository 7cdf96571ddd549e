"""Cells streamed from files of anndata, h5ad or zarr: never read whole.

X may be dense or compressed by rows, counts or their logarithm, of any real dtype.
Files are read through anndata, element by element.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array

from jeff import assets, files
from jeff_graph.cells.compressed import (
    check_indices,
    check_pointers,
    check_stated,
    refuse_links,
)
from jeff_graph.cells.expression import (
    Expression,
    check_genes,
    check_size,
    clean_chunk,
    collect,
    find_column,
)
from jeff_graph.cells.rows import mark_checked
from jeff_graph.cells.zarr_chunks import check_chunks

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
    """

    path: Path
    layer: str
    genes: np.ndarray
    num_cells: int

    def __init__(self, path: Path, layer: str, parts: "_Parts"):
        """Stream from an open file; `open_cells` is the way in.

        Args:
          path: the file, for errors.
          layer: which matrix it is, for errors.
          parts: what was found in the file.
        """
        self.path, self.layer, self._parts = path, layer, parts
        self._place = f"{path}: {layer}"
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
            return {str(name): _plain(frame[name]) for name in frame.columns}

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
        cells = np.asarray(cells)
        if cells.size and not 0 <= cells.min() <= cells.max() < self.num_cells:
            raise IndexError(
                f"cells: expected indices from 0 to {self.num_cells - 1}, got "
                f"{cells.min()} to {cells.max()}"
            )
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


def open_cells(path: str | Path, layer: str = "X") -> CellFile:
    """Open a file that anndata wrote.

    Args:
      path: an ``.h5ad`` file, or a ``.zarr`` folder.
      layer: "X", "raw" for ``adata.raw``, or a name in ``adata.layers``.

    Returns:
      A `CellFile`.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if it is no such file, it is damaged, there is no such layer, names of
        genes repeat, or X is compressed by columns.
      ImportError: if anndata is missing; names the command that installs it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: expected an h5ad file or a zarr folder: {path}")
    try:
        import anndata  # noqa: F401
        import h5py  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'expected anndata for h5ad files: pip install "jeff-jax[bio]"'
        ) from error
    # HDF5, anndata and pandas raise errors of many kinds over a damaged file.
    with files.reading(path, _EXPECTED, advice=_ADVICE):
        return _opened(path, layer)


def _opened(path: Path, layer: str) -> CellFile:
    import h5py

    if path.is_dir():
        import zarr

        check_chunks(path)
        # The description of each array is what was checked, not a copy of all of them.
        apart: Any = (
            {} if zarr.__version__.startswith("2.") else {"use_consolidated": False}
        )
        group: Any = zarr.open_group(str(path), mode="r", **apart)
    else:
        group = h5py.File(path, "r")
        refuse_links(group, path)
    missing = [name for name in ("X", "obs", "var") if name not in group]
    if missing:
        raise ValueError(
            f"{path}: expected a file that anndata wrote, got one without "
            f"{', '.join(missing)}"
        )
    check_stated(group, path)
    old = isinstance(group["obs"], h5py.Dataset)
    return CellFile(path, layer, (_old_parts if old else _parts)(path, group, layer))


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


class _Parts(NamedTuple):
    """The parts of an open file that `CellFile` reads."""

    matrix: Any
    genes: Any
    read_obs: Callable[[], Any]
    close: Callable[[], None]


def _parts(path: Path, group: Any, layer: str) -> _Parts:
    layers = list(group["layers"]) if "layers" in group else []
    raw = ["raw"] if "raw" in group else []
    _check_layer(path, layer, ["X", *raw, *layers])
    element = group[{"X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")]
    encoding = str(element.attrs.get("encoding-type", "array"))
    # Rows of compressed columns would mean reading the whole matrix for each chunk.
    if encoding == "csc_matrix":
        raise ValueError(
            f"{path}: {layer}: expected dense values or compressed rows, got "
            "compressed columns, of which every chunk would read all; write "
            "`adata.X = adata.X.tocsr()` to a new file first"
        )
    if encoding == "csr_matrix":
        from anndata.io import sparse_dataset

        # Before anndata follows them.
        check_pointers(element, f"{path}: {layer}")
        element = sparse_dataset(element)
    genes = _read(group["raw/var" if layer == "raw" else "var"]).index
    close = group.file.close if hasattr(group, "file") else lambda: None
    return _Parts(element, genes, lambda: _read(group["obs"]), close)


def _old_parts(path: Path, group: Any, layer: str) -> _Parts:
    """The layout before 2020, which anndata converts itself."""
    import anndata

    for name, key in (("X", "X"), ("raw", "raw.X")):
        if key in group and hasattr(group[key], "keys"):
            check_pointers(group[key], f"{path}: {name}")
    group.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells: Any = anndata.read_h5ad(path, backed="r")
    raw = ["raw"] if cells.raw is not None else []
    _check_layer(path, layer, ["X", *raw])
    part: Any = cells.raw if layer == "raw" else cells
    return _Parts(part.X, part.var_names, lambda: cells.obs, cells.file.close)


def _check_layer(path: Path, layer: str, here: list[str]) -> None:
    if layer not in here:
        raise ValueError(
            f"{path}: expected a layer among {', '.join(here)}, got {layer!r}"
        )


def _read(element: Any) -> Any:
    from anndata.io import read_elem

    with warnings.catch_warnings():
        # Warnings about outdated encodings: they concern writing, and this only reads.
        warnings.simplefilter("ignore")
        return read_elem(element)


def _plain(series: Any) -> np.ndarray:
    if series.dtype.kind in "biuf":
        return series.to_numpy()
    # Categories and nullable types become plain strings, whatever pandas' version.
    values = series.astype(object).where(series.notna(), "")
    return np.array([str(value) for value in values], dtype=np.str_)
