"""Graphs from files of your own.

A file is an ``.npz`` of plain arrays, never of pickled objects, in one of two forms:

* ``features`` [nodes, width], ``labels`` [nodes], ``edges`` [edges, 2], and, where
  edges have weights, ``weights`` [edges];
* the compact one of the shared data: ``shape`` (nodes, width), ``y``, and neighbours
  and features in CSR, ``adj_indptr``, ``adj_indices``, ``x_indptr``, ``x_indices``,
  ``x_data`` (one number where all entries are equal), and, where edges have weights,
  ``adj_data``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jeff.arrays import load_arrays
from jeff.opening import check_expansion
from jeff_graph.editing.checks import checked_labels
from jeff_graph.editing.graphs import GraphsTuple, make_graph, num_nodes

__all__ = ["Labelled", "labelled", "load_npz"]

_DENSE = ("features", "labels", "edges")
_COMPACT = (
    "shape",
    "y",
    "adj_indptr",
    "adj_indices",
    "x_indptr",
    "x_indices",
    "x_data",
)


class Labelled(NamedTuple):
    """A graph, and the class of each of its nodes.

    Attributes:
      graph: the graph, on the host.
      labels: int32 [nodes]; -1 for none.
    """

    graph: GraphsTuple
    labels: np.ndarray


def labelled(features: Any, labels: Any, edges: Any, **options: Any) -> Labelled:
    """A graph and its labels, checked.

    Args:
      features: as for `make_graph`.
      labels: class of each node, integers; -1 for none.
      edges: as for `make_graph`.
      **options: as for `make_graph`.

    Returns:
      Both.

    Raises:
      TypeError: as `make_graph`, or if labels are not integers.
      ValueError: as `make_graph`, or if a label is out of range.
    """
    graph = make_graph(features, edges, **options)
    return Labelled(graph, checked_labels(labels, num_nodes(graph)).astype(np.int32))


def load_npz(path: str | Path) -> Labelled:
    """A graph of your own, from a file of plain arrays.

    Args:
      path: the file, in one of the two forms that the module describes; edges are
        taken as undirected.

    Returns:
      The graph, with the features of the file, and the labels.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is not an npz file, holds pickled objects, lacks an array, or
        the arrays make no graph; names the file.
    """
    path = Path(path)
    arrays = load_arrays(path)
    try:
        if "features" in arrays:
            _check_no_other_weights(arrays, "weights")
            given = (arrays[name] for name in _DENSE)
            return labelled(*given, weights=arrays.get("weights"))
        _check_no_other_weights(arrays, "adj_data")
        return _from_compact(arrays, path)
    except KeyError as error:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(_DENSE)} or "
            f"{', '.join(_COMPACT)}; {error} is missing among {sorted(arrays)}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_compact(arrays: Mapping[str, np.ndarray], path: Path) -> Labelled:
    shape, labels, indptr, indices, x_indptr, x_indices, values = (
        arrays[name] for name in _COMPACT
    )
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or min(shape) < 1:
        raise ValueError(f"shape: expected two numbers of at least 1, got {shape}")
    nodes, width = map(int, shape)
    # Two numbers may ask for any amount of memory, whatever else the file holds.
    check_expansion(path, 4 * nodes * width, what=f"features of shape {nodes, width}")
    rows = _rows("adj", indptr, indices, nodes, nodes)
    x_rows = _rows("x", x_indptr, x_indices, nodes, width)
    if values.shape not in ((), (1,), x_indices.shape):
        raise ValueError(
            f"x_data: expected one number, or {len(x_indices)} as in x_indices, got "
            f"shape {values.shape}"
        )
    features = np.zeros((nodes, width), np.float32)
    features[x_rows, x_indices] = values
    weights = arrays.get("adj_data")
    if weights is not None and weights.shape != indices.shape:
        raise ValueError(
            f"adj_data: expected {len(indices)} numbers as in adj_indices, got shape "
            f"{weights.shape}"
        )
    edges = np.stack([indices, rows], axis=1)
    return labelled(features, labels, edges, weights=weights)


def _rows(
    name: str, indptr: np.ndarray, indices: np.ndarray, nodes: int, columns: int
) -> np.ndarray:
    """Row of each entry of a CSR matrix, whose pointers and columns are checked."""
    whole = indptr.dtype.kind in "iu" and indices.dtype.kind in "iu"
    if not whole or indptr.shape != (nodes + 1,) or indices.ndim != 1:
        raise ValueError(
            f"{name}_indptr: expected {nodes + 1} row pointers for {nodes} nodes, and "
            f"indices in a vector, all integers; got {indptr.dtype}{indptr.shape} and "
            f"{indices.dtype}{indices.shape}"
        )
    pointers = indptr.astype(np.int64)
    # A large unsigned pointer becomes negative here, and is found as well.
    if pointers[0] or pointers[-1] != len(indices) or (np.diff(pointers) < 0).any():
        raise ValueError(
            f"{name}_indptr: expected pointers that rise from 0 to {len(indices)}, the "
            f"number of indices, got {indptr[0]} to {indptr[-1]}, or a fall"
        )
    outside = (indices < 0) | (indices >= columns)
    if outside.any():
        raise ValueError(
            f"{name}_indices: expected columns from 0 to {columns - 1}, got "
            f"{indices[outside][0]}"
        )
    return np.repeat(np.arange(nodes), np.diff(pointers))


def _check_no_other_weights(arrays: Mapping[str, Any], known: str) -> None:
    for name in arrays:
        if name != known and ("weight" in name or name.startswith("edge_")):
            raise ValueError(
                f"{name}: expected the weights of edges as {known!r}, got an array of "
                "that name; rename it, or leave it out"
            )
