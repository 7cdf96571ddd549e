"""Padding: what `jraph.pad_with_graphs` appended, and more of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.sparse import BCSR

from jeff_graph.editing.features import append_rows
from jeff_graph.editing.structure import (
    AnyGraph,
    Graph,
    GraphsTuple,
    ends,
    jraph,
    num_edges,
    num_nodes,
)

__all__ = ["pad", "real_graphs", "real_nodes"]


def real_nodes(graph: AnyGraph) -> Any:
    """Nodes that are no padding.

    Args:
      graph: the graph. Padding is what `jraph.pad_with_graphs` appends: of two graphs
        or more the last that holds nodes, if all its features are 0 (of nodes, edges
        and globals) and it has no edges but loops on its first node. A real last graph
        that looks so is taken for padding, such as one node with features of 0: give
        it another feature, or use `as_graph` and set ``node_mask``. Graphs without
        nodes before it are real, those behind it are padding. Under jit, where values
        cannot be read, all nodes of a ``GraphsTuple`` count.

    Returns:
      A bool mask [nodes].
    """
    if isinstance(graph, Graph):
        return graph.node_mask
    count = num_nodes(graph)
    return np.arange(count) < count - _padding(graph)[1]


def real_graphs(graph: GraphsTuple) -> np.ndarray:
    """Graphs of a batch that are no padding.

    Args:
      graph: the batch; as for `real_nodes`.

    Returns:
      A bool mask [graphs].
    """
    count = graph.n_node.shape[0]
    return np.arange(count) < count - _padding(graph)[0]


def _padding(graph: GraphsTuple) -> tuple[int, int]:
    """Number of graphs and of nodes that `jraph.pad_with_graphs` appended."""
    if any(isinstance(each, Tracer) for each in jax.tree.leaves(graph)):
        return 0, 0
    n_node, n_edge = np.asarray(graph.n_node), np.asarray(graph.n_edge)
    for name, sizes, count in (
        ("n_node", n_node, num_nodes(graph)),
        ("n_edge", n_edge, num_edges(graph)),
    ):
        if sizes.sum() != count:
            raise ValueError(
                f"graph.{name}: expected numbers that add up to {count}, got "
                f"{sizes.tolist()}"
            )
    filled = np.flatnonzero(n_node)
    # Padding is a graph of its own, so a single one has none.
    if len(filled) < 2:
        return 0, 0
    last = int(filled[-1])
    nodes = int(n_node[last])
    first = num_nodes(graph) - nodes
    edge = num_edges(graph) - int(n_edge[last:].sum())
    loops = all((np.asarray(each[edge:]) == first).all() for each in ends(graph))
    parts = (graph.nodes, first), (graph.edges, edge), (graph.globals, last)
    filled_in = any(rows.any() for part in parts for rows in _rows_from(*part))
    return (len(n_node) - last, nodes) if loops and not filled_in else (0, 0)


def _rows_from(features: Any, first: int) -> list[np.ndarray]:
    """The last rows of features, on the host."""
    if isinstance(features, BCSR):
        entries = slice(int(features.indptr[first]), int(features.indptr[-1]))
        return [np.asarray(features.data)[entries]]
    return [np.asarray(leaf[first:]) for leaf in jax.tree.leaves(features)]


def pad(graph: AnyGraph, nodes: int, edges: int) -> Any:
    """Append slots of padding.

    Args:
      graph: the graph.
      nodes: slots of nodes in all.
      edges: slots of edges in all.

    Returns:
      The larger graph, of the same kind, on the host where its arrays are numpy's. Of a
      ``GraphsTuple`` it has one graph more, by `jraph.pad_with_graphs`.

    Raises:
      ValueError: if a size is less than what the graph has, or, for a ``GraphsTuple``,
        there is no slot for one padding node.
    """
    static = isinstance(graph, Graph)
    spare = 0 if static else 1
    have = num_edges(graph)
    for name, size, least in (
        ("nodes", nodes, num_nodes(graph) + spare),
        ("edges", edges, have),
    ):
        if size < least:
            raise ValueError(f"{name}: expected at least the {least} slots, got {size}")
    if not isinstance(graph, Graph):
        # jraph pads each array by itself, which a sparse matrix does not survive.
        sparse = isinstance(graph.nodes, BCSR)
        dense = graph._replace(nodes=np.zeros((num_nodes(graph), 0)))
        grown_by = nodes, edges, graph.n_node.shape[0] + 1
        padded = jraph.pad_with_graphs(dense if sparse else graph, *grown_by)
        if not sparse:
            return padded
        return padded._replace(nodes=append_rows(graph.nodes, nodes))

    def grown(array: Any, size: int, value: Any = 0) -> Any:
        xp = np if isinstance(array, np.ndarray) else jnp
        return xp.pad(array, (0, size - len(array)), constant_values=value)

    # Ends of padding edges are the last slot: a valid index, and receivers still
    # ascend.
    last = max(nodes - 1, 0)
    return Graph(
        append_rows(graph.features, nodes),
        grown(graph.senders, edges, last),
        grown(graph.receivers, edges, last),
        grown(graph.node_mask, nodes, False),
        grown(graph.edge_mask, edges, False),
        None if graph.weights is None else grown(graph.weights, edges),
        None if graph.degree is None else grown(graph.degree, nodes),
        n_node=graph.n_node,
    )
