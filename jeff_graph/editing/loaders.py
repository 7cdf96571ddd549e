"""Graphs to edit: digits offline, citation and purchase networks, your own files.

Every loader returns a `Graph` without padding. Features of the named data sets are
row-normalised, as the literature trains on them.

A file is an ``.npz`` of plain arrays, never of pickled objects, in one of two forms:

* ``features`` [nodes, width], ``labels`` [nodes], ``edges`` [edges, 2];
* the compact one of the shared data: ``shape`` (nodes, width), ``y``, and neighbours
  and features in CSR, ``adj_indptr``, ``adj_indices``, ``x_indptr``, ``x_indices``,
  ``x_data`` (one number where all entries are equal).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff import assets
from jeff.arrays import load_arrays
from jeff.checks import check_choice
from jeff.extras import require
from jeff.opening import check_expansion
from jeff_graph.editing.features import row_normalise
from jeff_graph.editing.graphs import Graph, make_graph
from jeff_graph.editing.splits import Split

__all__ = [
    "from_ogb",
    "from_pyg",
    "knn_edges",
    "load_amazon_photo",
    "load_digits_graph",
    "load_npz",
    "load_planetoid",
    "planetoid_split",
]

_PLANETOID = ("cora", "citeseer")
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


def load_planetoid(name: str) -> Graph:
    """Cora or Citeseer: papers, their words, who cites whom; the class is the topic.

    Cora has 2,708 nodes, 5,278 edges, 1,433 words and 7 classes; Citeseer 3,327, 4,552,
    3,703 and 6.

    Args:
      name: "cora" or "citeseer".

    Returns:
      The graph, its features row-normalised.

    Raises:
      FileNotFoundError: if the shared data are not here.
      ValueError: if there is none of that name.

    References:
      Yang et al., "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML
      2016.
    """
    check_choice("name", name, _PLANETOID)
    return _normalised(load_npz(assets.shared_file(f"graphs/{name}.npz")))


def planetoid_split(name: str) -> Split:
    """The public split of Cora or Citeseer: 20 training nodes a class, 500, 1,000.

    Args:
      name: "cora" or "citeseer".

    Returns:
      A `Split`; most nodes are in no part.

    Raises:
      FileNotFoundError: if the shared data are not here.
      ValueError: if there is none of that name.
    """
    check_choice("name", name, _PLANETOID)
    arrays = load_arrays(assets.shared_file(f"graphs/{name}.npz"))
    nodes = len(arrays["y"])
    return Split(
        *(
            jnp.zeros(nodes, bool).at[arrays[f"{part}_idx"]].set(True)
            for part in ("train", "val", "test")
        )
    )


def load_amazon_photo() -> Graph:
    """Amazon-photo: products, words of their reviews, what is bought together.

    7,650 nodes, 119,081 edges, 745 words and 8 classes, the product's category.

    Returns:
      The graph, its features row-normalised.

    Raises:
      FileNotFoundError: if the shared data are not here.

    References:
      Shchur et al., "Pitfalls of Graph Neural Network Evaluation", 2018.
    """
    return _normalised(load_npz(assets.shared_file("graphs/amazon_photo.npz")))


def load_digits_graph(neighbours: int = 10) -> Graph:
    """Scikit-learn's digits, each connected to its nearest images; needs no files.

    1,797 nodes of 64 pixels in [0, 1], 10 classes.

    Args:
      neighbours: nearest images of each, in Euclidean distance.

    Returns:
      The graph; an edge where either end counts the other among its nearest.

    Raises:
      ImportError: if scikit-learn is not installed.
      ValueError: if ``neighbours`` is out of range.
    """
    digits = require("sklearn.datasets", extra="scripts").load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    return make_graph(pixels, digits.target, knn_edges(pixels, neighbours))


def knn_edges(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Pairs of a row and each of its nearest rows in Euclidean distance.

    Args:
      features: numbers [nodes, width].
      neighbours: nearest rows of each, itself not counted.

    Returns:
      Integers [nodes * neighbours, 2]: (near row, row), for `make_graph`.

    Raises:
      ValueError: if ``neighbours`` is below 1 or not less than the number of rows.

    >>> knn_edges(np.array([[0.0], [1.0], [5.0]]), 1).tolist()
    [[1, 0], [0, 1], [1, 2]]
    """
    nodes = len(features)
    if not 1 <= neighbours < nodes:
        raise ValueError(f"neighbours: expected 1 to {nodes - 1}, got {neighbours}")
    # In float64: the expanded square cancels, and near points would tie in float32.
    points = np.asarray(features, np.float64)
    squares = (points**2).sum(1)
    near = []
    # In pieces: all distances at once are nodes squared.
    for first in range(0, nodes, 1024):
        rows = np.arange(first, min(first + 1024, nodes))
        # A row's own square is the same for all its distances, and does not order them.
        distance = squares - 2 * points[rows] @ points.T
        distance[np.arange(len(rows)), rows] = np.inf
        # Stable, so that equal distances give the same graph on every machine.
        near.append(np.argsort(distance, axis=1, kind="stable")[:, :neighbours])
    receivers = np.repeat(np.arange(nodes), neighbours)
    return np.stack([np.concatenate(near).reshape(-1), receivers], axis=1)


def load_npz(path: str | Path) -> Graph:
    """A graph of your own, from a file of plain arrays.

    Args:
      path: the file, in one of the two forms that the module describes; edges are
        taken as undirected.

    Returns:
      The graph, with the features of the file.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if it is not an npz file, holds pickled objects, lacks an array, or
        the arrays make no graph; names the file.
    """
    path = Path(path)
    arrays = load_arrays(path)
    try:
        if "features" in arrays:
            return make_graph(*(arrays[name] for name in _DENSE))
        return _from_compact(arrays, path)
    except KeyError as error:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(_DENSE)} or "
            f"{', '.join(_COMPACT)}; {error} is missing among {sorted(arrays)}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_pyg(data: Any) -> Graph:
    """A graph of PyTorch Geometric.

    Args:
      data: an object with the tensors ``x`` [nodes, width], ``y`` [nodes] or
        [nodes, 1], and ``edge_index`` [2, edges]: a ``torch_geometric.data.Data``.

    Returns:
      The graph, with directed edges.

    Raises:
      TypeError: as `make_graph`.
      ValueError: as `make_graph`.
    """
    x, y, edges = (np.asarray(each.cpu()) for each in (data.x, data.y, data.edge_index))
    return make_graph(x, y.reshape(-1), edges.T, undirected=False)


def from_ogb(graph: Mapping[str, Any], labels: np.ndarray) -> Graph:
    """A node-classification graph of the Open Graph Benchmark.

    Args:
      graph: first part of an item of ``NodePropPredDataset``, with ``node_feat``
        [nodes, width] and ``edge_index`` [2, edges].
      labels: second part, [nodes, 1]; NaN for none.

    Returns:
      The graph, its edges taken as undirected, as the benchmark's baselines do.

    Raises:
      TypeError: as `make_graph`.
      ValueError: as `make_graph`.
    """
    flat = np.asarray(labels).reshape(-1)
    if flat.dtype.kind == "f":
        flat = np.where(np.isnan(flat), -1, flat).astype(np.int32)
    return make_graph(graph["node_feat"], flat, np.asarray(graph["edge_index"]).T)


def _normalised(graph: Graph) -> Graph:
    return dataclasses.replace(graph, features=row_normalise(graph.features))


def _from_compact(arrays: Mapping[str, np.ndarray], path: Path) -> Graph:
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
    return make_graph(features, labels, np.stack([indices, rows], axis=1))


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
