"""Check compressed rows in a file before any code follows their pointers.

anndata and scipy trust row pointers and column indices. A wrong one reads memory
outside the matrix or crashes the process. Pointers are checked when a file is opened,
indices chunk by chunk as the file is streamed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

__all__ = ["check_indices", "check_pointers"]


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
    shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
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
