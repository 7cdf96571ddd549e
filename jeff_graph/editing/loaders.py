"""Graphs to edit: digits offline, citation and purchase networks, your own files.

Every loader returns ``(graph, labels)``: a `jraph.GraphsTuple` without padding, and
the class of each node. Features of the named data sets have rows of norm one. Files of
your own are read by `load_npz`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jeff import assets
from jeff.checks import check_choice
from jeff.extras import require
from jeff_graph.editing.features import unit_rows
from jeff_graph.editing.graph_files import Labelled, labelled, load_npz

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
]


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
    check_choice("name", name, ("cora", "citeseer"))
    return _normalised(load_npz(assets.shared_file(f"graphs/{name}.npz")))


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
    return labelled(pixels, digits.target, knn_edges(pixels, neighbours))


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
    return labelled(x, y.reshape(-1), edges.T, weights=weights, undirected=False)


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
    return labelled(graph["node_feat"], flat, edges, weights=weights)


def _check_no_edge_features(name: str, values: Any) -> None:
    # Dropped in silence, they would make another graph.
    if values is not None:
        raise ValueError(
            f"{name}: expected None, as the networks here read no features of edges, "
            f"got shape {tuple(values.shape)}; drop it, or, if it is a weight, pass it "
            "as edge_weight"
        )


def _normalised(loaded: Labelled) -> Labelled:
    graph, labels = loaded
    return Labelled(graph._replace(nodes=unit_rows(graph.nodes)), labels)
