"""Check compressed rows in a file before any code follows their pointers.

anndata and scipy trust row pointers and column indices. A wrong one reads memory
outside the matrix or crashes the process. Pointers are checked when a file is opened,
indices chunk by chunk as the file is streamed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from jeff.opening import check_expansion

__all__ = [
    "HalfRows",
    "check_indices",
    "check_pointers",
    "check_stated",
    "refuse_links",
]


class HalfRows:
    """Compressed rows of float16 in a file, which are read as float32.

    Attributes:
      shape: rows and columns.
    """

    shape: tuple[int, int]

    def __init__(self, element: Any):
        """Read from an open group, which `check_pointers` has passed.

        Args:
          element: the group.
        """
        self._element = element
        rows, columns = np.asarray(element.attrs["shape"]).tolist()
        self.shape = (rows, columns)
        self._pointers = np.asarray(element["indptr"][:]).astype(np.int64)

    def __getitem__(self, rows: slice | Int[np.ndarray, " rows"]) -> csr_array:
        """Rows of a slice, or ascending rows."""
        chosen = np.arange(self.shape[0])[rows]
        # One read for each run of neighbours.
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        ends = [
            slice(int(self._pointers[run[0]]), int(self._pointers[run[-1] + 1]))
            for run in runs
            if run.size
        ]
        counts = self._pointers[chosen + 1] - self._pointers[chosen]
        data, indices = (
            np.concatenate([np.zeros(0, dtype), *(part[end] for end in ends)])
            for part, dtype in (
                (self._element["data"], np.float16),
                (self._element["indices"], np.int64),
            )
        )
        pointers = np.concatenate([[0], np.cumsum(counts)])
        made = csr_array((len(chosen), self.shape[1]), dtype=np.float32)
        # Set without scipy's checks: the caller checks the indices, by row of the file.
        made.data, made.indices, made.indptr = data.astype("f4"), indices, pointers
        return made


def check_pointers(element: Any, place: str) -> None:
    """Check that row pointers rise from 0 to the number of values.

    Args:
      element: an open HDF5 or zarr group with ``indptr``, ``indices`` and ``data``.
      place: file and layer, for errors.

    Raises:
      ValueError: if the rows are damaged; names the part, and the row if there is one.
    """
    parts = {}
    for name in ("indptr", "indices", "data"):
        if name not in element:
            raise ValueError(
                f"{place}: expected compressed rows with indptr, indices and data, got "
                f"none called {name}; the file is damaged"
            )
        parts[name] = element[name]
    for name in ("indptr", "indices"):
        dtype, shape = np.dtype(parts[name].dtype), parts[name].shape
        if dtype.kind not in "ui" or len(shape) != 1:
            raise ValueError(
                f"{place}/{name}: expected a vector of whole numbers, got {dtype} of "
                f"shape {shape}; the file is damaged"
            )
    lengths = {name: int(part.shape[0]) for name, part in parts.items()}
    # Files written before 2020 call the attribute h5sparse_shape.
    shape = np.asarray(element.attrs.get("shape", element.attrs.get("h5sparse_shape")))
    if shape.shape != (2,) or shape.dtype.kind not in "ui" or min(shape) < 0:
        raise ValueError(
            f"{place}: expected a shape of two whole numbers, got {shape!r:.60}; the "
            "file is damaged"
        )
    rows, most = int(shape[0]), lengths["data"]
    if lengths["indptr"] != rows + 1 or lengths["indices"] != most:
        raise ValueError(
            f"{place}: expected {rows + 1} row pointers and one index a value, got "
            f"{lengths['indptr']} pointers, {lengths['indices']} indices and {most} "
            "values; the file is damaged"
        )
    pointers = np.asarray(parts["indptr"][:])
    wrong = pointers > most
    # Compare instead of subtract: the difference of unsigned pointers would wrap.
    wrong[1:] |= pointers[1:] < pointers[:-1]
    wrong[0] |= pointers[0] != 0
    wrong[-1] |= pointers[-1] != most
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{place}/indptr: expected row pointers that rise from 0 to {most}, the "
            f"number of values, got {pointers[row]} at row {row}; the file is damaged"
        )


def check_indices(
    rows: Any, cells: Sequence[int] | Int[np.ndarray, " rows"], place: str
) -> None:
    """Check that every column index lies in the matrix.

    Args:
      rows: cells as read from a file; dense rows have no indices and always pass.
      cells: number of each cell in the file, for errors.
      place: file and layer, for errors.

    Raises:
      ValueError: if an index is outside the matrix; names its cell.
    """
    indices = getattr(rows, "indices", None)
    if indices is None or not len(indices):
        return
    genes = rows.shape[1]
    if indices.min() >= 0 and indices.max() < genes:
        return
    at = int(np.argmax((indices < 0) | (indices >= genes)))
    row = int(np.searchsorted(rows.indptr, at, side="right")) - 1
    raise ValueError(
        f"{place}/indices: expected columns from 0 to {genes - 1}, got {indices[at]} "
        f"in row {int(cells[row])}; the file is damaged"
    )


def check_stated(group: Any, path: Path) -> None:
    """Check that what is read as a whole takes no more memory than it may.

    A file can state a column of any length of which it stores nothing.

    Args:
      group: the open file, of HDF5 or zarr.
      path: its path.

    Raises:
      ValueError: if rows, columns and row pointers are larger than
        `jeff.files.check_expansion` allows.
    """
    for name in ("obs", "var", "raw/var", "raw.var"):
        if name in group:
            check_expansion(path, _bytes(group[name]), what=name)
    # What is never read, such as `uns`, may be of any kind, and broken.
    for name in ("X", "layers", "raw", "raw.X"):
        if name not in group:
            continue
        for element in (group[name], *_members(group[name])):
            if "indptr" in _names(element):
                size = _bytes(element["indptr"])
                check_expansion(path, size, what=f"{name}/indptr")


def _names(element: Any) -> list[str]:
    return list(element) if hasattr(element, "keys") else []


def _members(element: Any) -> list[Any]:
    return [element[name] for name in _names(element)]


def _bytes(element: Any) -> int:
    if hasattr(element, "keys"):
        return sum(_bytes(each) for each in _members(element))
    return int(np.prod(element.shape, dtype=object) or 0) * element.dtype.itemsize


def refuse_links(group: Any, path: Path) -> None:
    """Check that a file of HDF5 has its data itself.

    Args:
      group: the open file.
      path: its path.

    Raises:
      ValueError: if a part is a link to another file, or is stored in one; names it.
    """
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        where = f"{group.name.rstrip('/')}/{name}"
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(
                f"{path}: {where}: expected data in this file, got a link to "
                f"{link.filename!r:.80}, which is not followed; copy the data into it"
            )
        if isinstance(link, h5py.SoftLink):
            continue  # to another place of this file, which is visited there
        element = group[name]
        if isinstance(element, h5py.Group):
            refuse_links(element, path)
        elif isinstance(element, h5py.Dataset) and (
            element.external or element.is_virtual
        ):
            raise ValueError(
                f"{path}: {where}: expected data in this file, got data stored in "
                "another one, which is not read; copy the data into it"
            )
