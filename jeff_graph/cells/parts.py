"""What is read of a file that anndata wrote: a matrix, names of genes, columns.

The layouts of anndata before and after 2020, in HDF5 and zarr, give the same parts.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff_graph.cells.columns import find_column, symbol_names
from jeff_graph.cells.compressed import (
    HalfRows,
    check_pointers,
    check_stated,
    refuse_links,
)
from jeff_graph.cells.zarr_chunks import check_chunks

__all__ = ["Parts", "open_parts"]


class Parts(NamedTuple):
    """The parts of an open file that are read.

    Attributes:
      matrix: [cells, genes], which gives rows of itself by slices and indices.
      genes: names of its columns.
      logged: whether the file says that scanpy's ``log1p`` made it.
      read_obs: reads the table of cells.
      close: closes the file.
    """

    matrix: Any
    genes: Any
    logged: bool
    read_obs: Callable[[], Any]
    close: Callable[[], None]


def open_parts(path: Path, layer: str, symbols: str | None) -> Parts:
    """Open a file and find what is read of it.

    Args:
      path: an ``.h5ad`` file, or a ``.zarr`` folder.
      layer: "X", "raw", or a name in ``layers``.
      symbols: column of ``var`` that names the genes; None for its index.

    Returns:
      Its `Parts`.

    Raises:
      ValueError: if it is no such file, or has no such layer or column.
    """
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
    # X may be absent: a file can have layers alone.
    missing = [name for name in ("obs", "var") if name not in group]
    if missing:
        raise ValueError(
            f"{path}: expected a file that anndata wrote, got one without "
            f"{', '.join(missing)}"
        )
    check_stated(group, path)
    old = isinstance(group["obs"], h5py.Dataset)
    read = _old_parts if old else _parts
    return read(path, group, layer, symbols)


def _parts(path: Path, group: Any, layer: str, symbols: str | None) -> Parts:
    layers = list(group["layers"]) if "layers" in group else []
    _check_layer(path, layer, [*_with_values(group), *layers])
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
        # scipy, and so anndata, has no compressed rows of float16.
        half = element["data"].dtype == np.float16
        element = HalfRows(element) if half else sparse_dataset(element)
    place = "raw/var" if layer == "raw" else "var"
    genes = _names(_read(group[place]), symbols, f"{path}: {place}")
    close = group.file.close if hasattr(group, "file") else lambda: None
    logged = layer == "X" and _says_log1p(group)
    return Parts(element, genes, logged, lambda: _read(group["obs"]), close)


def _with_values(group: Any) -> list[str]:
    """Which of X and raw are there; anndata writes an X of None as a null element."""
    here = []
    for name, place in (("X", "X"), ("raw", "raw/X")):
        if place in group and group[place].attrs.get("encoding-type") != "null":
            here.append(name)
    return here


def _says_log1p(group: Any) -> bool:
    # `uns` may be of any kind and broken; only the name is read.
    try:
        return "log1p" in group["uns"]
    except (KeyError, TypeError, AttributeError):
        return False


def _names(var: Any, symbols: str | None, place: str) -> Any:
    if symbols is None:
        return var.index
    columns = {str(name): var[name] for name in var.columns}
    # Looked for before it is read: an error lists the columns.
    find_column(columns, symbols, place)
    return symbol_names(columns[symbols], var.index, place)


def _old_parts(path: Path, group: Any, layer: str, symbols: str | None) -> Parts:
    """The layout before 2020, which anndata converts itself."""
    import anndata

    for name, key in (("X", "X"), ("raw", "raw.X")):
        if key in group and hasattr(group[key], "keys"):
            check_pointers(group[key], f"{path}: {name}")
    logged = layer == "X" and _says_log1p(group)
    group.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells: Any = anndata.read_h5ad(path, backed="r")
    raw = ["raw"] if cells.raw is not None else []
    _check_layer(path, layer, ["X", *raw])
    part: Any = cells.raw if layer == "raw" else cells
    genes = _names(part.var, symbols, f"{path}: var")
    return Parts(part.X, genes, logged, lambda: cells.obs, cells.file.close)


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
