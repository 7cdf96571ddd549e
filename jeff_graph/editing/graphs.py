"""Graphs: `jraph.GraphsTuple` outside, a form with masks inside.

`make_graph` and the loaders give a ``GraphsTuple`` of numpy arrays, and every function
of this room takes one: yours, one graph or a batch, padded by `jraph.pad_with_graphs`
or not. Labels stand beside it.

`Graph` is what networks and samplers compute on: slots, with masks that mark the real
ones. Taking a subgraph of it masks edges and keeps every node in its place, so indices
and compiled programs stay valid. `as_graph` makes one, `to_jraph` goes back.

Message passing runs along edges, from senders to receivers; an undirected edge is
stored both ways. Layers that need self-loops add them, and pass over stored ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff_graph.editing.checks import (
    checked_edges,
    checked_features,
    checked_weights,
)
from jeff_graph.editing.padding import pad, real_graphs, real_nodes
from jeff_graph.editing.structure import (
    AnyGraph,
    Graph,
    GraphsTuple,
    edge_weights,
    ends,
    jraph,
    num_edges,
    num_nodes,
)

__all__ = [
    "AnyGraph",
    "Graph",
    "GraphsTuple",
    "as_graph",
    "edge_weights",
    "ends",
    "graph_of_nodes",
    "make_graph",
    "num_edges",
    "num_nodes",
    "pad",
    "real_graphs",
    "real_nodes",
    "to_jraph",
]


def make_graph(
    features: Any, edges: Any, *, weights: Any = None, undirected: bool = True
) -> GraphsTuple:
    """Build a graph from plain arrays, on the host.

    Self-loops and edges that come twice are left out; nodes without edges are fine.

    Args:
      features: numbers [nodes, width], or a `BCSR` matrix; stored as float32.
      edges: pairs (sender, receiver) of node numbers from 0, integers [edges, 2].
      weights: positive numbers [edges]; 1 each by default. Those of an edge that comes
        twice must agree.
      undirected: add each edge's reverse.

    Returns:
      One graph, its edges in the order of receivers, then senders. ``nodes`` are the
      features, ``edges`` the weights, or None.

    Raises:
      TypeError: if an array is of the wrong kind of number.
      ValueError: if shapes do not fit, a feature is not finite, a weight is not
        positive, or an edge names a node that does not exist.

    >>> graph = make_graph(np.eye(3), np.array([[0, 1], [1, 0]]))
    >>> graph.senders, graph.receivers, graph.n_node
    (array([1, 0], dtype=int32), array([0, 1], dtype=int32), array([3], dtype=int32))
    """
    features = checked_features(features)
    nodes = features.shape[0]
    pairs = checked_edges(edges, nodes)
    numbers = checked_weights(weights, len(pairs))
    if undirected:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        numbers = None if numbers is None else np.concatenate([numbers, numbers])
    kept = pairs[:, 0] != pairs[:, 1]
    # One number an edge: unique sorts by receiver, then sender, and drops doubles.
    keys = pairs[kept, 1] * nodes + pairs[kept, 0]
    unique, first, place = np.unique(keys, return_index=True, return_inverse=True)
    if numbers is not None:
        numbers = numbers[kept]
        if (numbers != numbers[first][place]).any():
            wrong = divmod(int(keys[numbers != numbers[first][place]][0]), nodes)[::-1]
            raise ValueError(
                f"weights: expected one weight an edge, got two for {wrong}; add them "
                "up first, or pass undirected=False where directions differ"
            )
        numbers = numbers[first]
    receivers, senders = (each.astype(np.int32) for each in np.divmod(unique, nodes))
    return _as_tuple(
        nodes=features,
        edges=numbers,
        senders=senders,
        receivers=receivers,
        globals=None,
        n_node=np.array([nodes], np.int32),
        n_edge=np.array([len(senders)], np.int32),
    )


def _as_tuple(**fields: Any) -> GraphsTuple:
    # Its fields are annotated as JAX arrays; numpy's serve as well, and stay on the
    # host.
    return jraph.GraphsTuple(**fields)


def as_graph(graph: AnyGraph) -> Graph:
    """The form on which this room computes.

    Args:
      graph: of either kind. Under jit no padding is known; as padding is a graph of its
        own, it changes nothing at the real nodes.

    Returns:
      The graph; loops are masked, as layers add their own.

    Raises:
      ValueError: if nodes have no matrix of features, edges have features that are no
        weights, or the graph is not valid.
    """
    if isinstance(graph, Graph):
        return graph
    features: Any = graph.nodes
    if getattr(features, "ndim", 0) != 2:
        raise ValueError(
            "graph.nodes: expected an array [nodes, width], got "
            f"{jax.tree.map(jnp.shape, features)}"
        )
    mask = real_nodes(graph)
    senders, receivers = map(jnp.asarray, ends(graph))
    if not jnp.issubdtype(features.dtype, jnp.floating):
        features = jax.tree.map(jnp.asarray, features).astype(jnp.float32)
    return Graph(
        jax.tree.map(jnp.asarray, features),
        senders,
        receivers,
        jnp.asarray(mask),
        senders != receivers,
        edge_weights(graph),
        n_node=jnp.asarray(graph.n_node) if graph.n_node.shape[0] > 1 else None,
    )


def to_jraph(graph: Graph) -> GraphsTuple:
    """A `Graph` as jraph has it, on the host.

    Args:
      graph: the graph.

    Returns:
      Its real nodes in their slots, and its real edges. Slots of padding nodes stay, as
      nodes without edges, in a graph of their own; degrees of a larger graph are not
      kept.
    """
    real = np.asarray(graph.edge_mask)
    senders = np.asarray(graph.senders)[real]
    receivers = np.asarray(graph.receivers)[real]
    sizes = np.asarray([graph.num_nodes] if graph.n_node is None else graph.n_node)
    if spare := graph.num_nodes - int(sizes.sum()):
        sizes = np.append(sizes, spare)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return _as_tuple(
        nodes=graph.features,
        edges=None if graph.weights is None else np.asarray(graph.weights)[real],
        senders=senders,
        receivers=receivers,
        globals=None,
        n_node=sizes.astype(np.int32),
        n_edge=np.bincount(owner[receivers], minlength=len(sizes)).astype(np.int32),
    )


def graph_of_nodes(graph: Graph) -> Any:
    """The graph of a batch to which each node belongs.

    Args:
      graph: the batch.

    Returns:
      int32 [nodes], and the number of graphs.
    """
    if graph.n_node is None:
        return jnp.zeros(graph.num_nodes, jnp.int32), 1
    count = graph.n_node.shape[0]
    ids = jnp.repeat(
        jnp.arange(count), graph.n_node, total_repeat_length=graph.num_nodes
    )
    return ids, count
