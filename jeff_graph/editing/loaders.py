"""Graphs to edit: digits offline, citation and purchase networks, your own files.

Every loader returns ``(graph, labels)``: a `jraph.GraphsTuple` without padding, and
the class of each node. Features of the named data sets have rows of norm one.

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

import jax.numpy as jnp
import numpy as np

from jeff import assets
from jeff.arrays import load_arrays
from jeff.checks import check_choice
from jeff.extras import require
from jeff.opening import check_expansion
from jeff_graph.editing.checks import checked_labels
from jeff_graph.editing.features import unit_rows
from jeff_graph.editing.graphs import GraphsTuple, make_graph, num_nodes
from jeff_graph.editing.splits import Split

__all__ = [
    "Labelled",
    "from_ogb",
    "from_pyg",
    "knn_edges",
    "load_amazon_computers",
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


class Labelled(NamedTuple):
    """A graph, and the class of each of its nodes.

    Attributes:
      graph: the graph, on the host.
      labels: int32 [nodes]; -1 for none.
    """

    graph: GraphsTuple
    labels: np.ndarray


def load_planetoid(name: str) -> Labelled:
    """Cora or Citeseer: papers, their words, who cites whom; the class is the topic.

    Cora has 2,708 nodes, 5,278 edges, 1,433 words and 7 classes; Citeseer 3,327, 4,552,
    3,703 and 6.

    Args:
      name: "cora" or "citeseer".

    Returns:
      The graph, each row of its features of norm one, and the labels.

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


def load_amazon_photo() -> Labelled:
    """Amazon-photo: products, words of their reviews, what is bought together.

    7,650 nodes, 119,081 edges, 745 words and 8 classes, the product's category.

    Returns:
      The graph, each row of its features of norm one, and the labels.

    Raises:
      FileNotFoundError: if the shared data are not here.

    References:
      Shchur et al., "Pitfalls of Graph Neural Network Evaluation", 2018.
    """
    return _normalised(load_npz(assets.shared_file("graphs/amazon_photo.npz")))


def load_amazon_computers() -> Labelled:
    """Amazon-computers, as `load_amazon_photo`, and larger.

    13,752 nodes, 245,861 edges, 767 words and 10 classes.

    Returns:
      The graph, each row of its features of norm one, and the labels.

    Raises:
      FileNotFoundError: if the shared data are not here.

    References:
      Shchur et al., "Pitfalls of Graph Neural Network Evaluation", 2018.
    """
    return _normalised(load_npz(assets.shared_file("graphs/amazon_cs.npz")))


def load_digits_graph(neighbours: int = 10) -> Labelled:
    """Scikit-learn's digits, each connected to its nearest images; needs no files.

    1,797 nodes of 64 pixels in [0, 1], 10 classes.

    Args:
      neighbours: nearest images of each, in Euclidean distance.

    Returns:
      The graph, an edge where either end counts the other among its nearest, and the
      labels.

    Raises:
      ImportError: if scikit-learn is not installed.
      ValueError: if ``neighbours`` is out of range.
    """
    digits = require("sklearn.datasets", extra="scripts").load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    return _labelled(pixels, digits.target, knn_edges(pixels, neighbours))


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
            return _labelled(*given, weights=arrays.get("weights"))
        _check_no_other_weights(arrays, "adj_data")
        return _from_compact(arrays, path)
    except KeyError as error:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(_DENSE)} or "
            f"{', '.join(_COMPACT)}; {error} is missing among {sorted(arrays)}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def from_pyg(data: Any) -> Labelled:
    """A graph of PyTorch Geometric.

    Args:
      data: an object with the tensors ``x`` [nodes, width], ``y`` [nodes] or
        [nodes, 1], ``edge_index`` [2, edges] and perhaps ``edge_weight`` [edges]: a
        ``torch_geometric.data.Data``.

    Returns:
      The graph, with directed edges and their weights, and the labels.

    Raises:
      TypeError: as `make_graph`.
      ValueError: as `make_graph`, or if there is an ``edge_attr``.
    """
    _check_no_edge_features("edge_attr", getattr(data, "edge_attr", None))
    x, y, edges = (np.asarray(each.cpu()) for each in (data.x, data.y, data.edge_index))
    weights = getattr(data, "edge_weight", None)
    weights = None if weights is None else np.asarray(weights.cpu())
    return _labelled(x, y.reshape(-1), edges.T, weights=weights, undirected=False)


def from_ogb(graph: Mapping[str, Any], labels: np.ndarray) -> Labelled:
    """A node-classification graph of the Open Graph Benchmark.

    Args:
      graph: first part of an item of ``NodePropPredDataset``, with ``node_feat``
        [nodes, width], ``edge_index`` [2, edges] and perhaps ``edge_weight`` [edges].
      labels: second part, [nodes, 1]; NaN for none.

    Returns:
      The graph, its edges taken as undirected, as the benchmark's baselines do, and
      the labels.

    Raises:
      TypeError: as `make_graph`.
      ValueError: as `make_graph`, or if there are features of edges.
    """
    _check_no_edge_features("edge_feat", graph.get("edge_feat"))
    flat = np.asarray(labels).reshape(-1)
    if flat.dtype.kind == "f":
        flat = np.where(np.isnan(flat), -1, flat).astype(np.int32)
    edges = np.asarray(graph["edge_index"]).T
    weights = graph.get("edge_weight")
    return _labelled(graph["node_feat"], flat, edges, weights=weights)


def _labelled(features: Any, labels: Any, edges: Any, **options: Any) -> Labelled:
    graph = make_graph(features, edges, **options)
    return Labelled(graph, checked_labels(labels, num_nodes(graph)).astype(np.int32))


def _check_no_edge_features(name: str, values: Any) -> None:
    # Dropped in silence, they would make another graph.
    if values is not None:
        raise ValueError(
            f"{name}: expected None, as the networks here read no features of edges, "
            f"got shape {tuple(values.shape)}; drop it, or, if it is a weight, pass it "
            "as edge_weight"
        )


def _check_no_other_weights(arrays: Mapping[str, Any], known: str) -> None:
    for name in arrays:
        if name != known and ("weight" in name or name.startswith("edge_")):
            raise ValueError(
                f"{name}: expected the weights of edges as {known!r}, got an array of "
                "that name; rename it, or leave it out"
            )


def _normalised(loaded: Labelled) -> Labelled:
    graph, labels = loaded
    return Labelled(graph._replace(nodes=unit_rows(graph.nodes)), labels)


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
    return _labelled(features, labels, edges, weights=weights)


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
