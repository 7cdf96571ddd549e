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

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.sparse import BCSR

from jeff.extras import require
from jeff_graph.editing.checks import (
    check_node_numbers,
    checked_edges,
    checked_features,
    checked_weights,
)
from jeff_graph.editing.features import append_rows

# One door to jraph, so that one error tells how to get it.
if TYPE_CHECKING:
    import jraph
else:
    jraph = require("jraph", extra="graph")

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes and directed edges in slots, some of them padding.

    Invariants: both ends of a real edge are real nodes, and no real edge is a
    self-loop; ends of padding edges are valid slots. `as_graph` ensures this.

    Attributes:
      features: [nodes, width], floating point, dense or `BCSR`.
      senders: slot where each edge starts, int32 [edges].
      receivers: slot where it ends, int32 [edges].
      node_mask: the real nodes, bool [nodes].
      edge_mask: the real edges, bool [edges].
      weights: of the edges, float32 [edges]; None where each counts 1.
      degree: weight of the edges that end at each node in the graph from which this one
        was cut, float32 [nodes]; None to sum them here.
      starts: place of the first edge that ends at each node, and the number of edges,
        int32 [nodes + 1]; given by `jeff_graph.editing.messages.compressed`, else None.
      n_node: number of nodes of each graph of a batch, int32 [graphs]; None for one.
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    features: Any
    senders: Any
    receivers: Any
    node_mask: Any
    edge_mask: Any
    weights: Any = None
    degree: Any = None
    starts: Any = None
    n_node: Any = None

    @property
    def num_nodes(self) -> int:
        """Slots of nodes, padding included."""
        return self.node_mask.shape[-1]

    @property
    def num_edges(self) -> int:
        """Slots of directed edges, padding included."""
        return self.edge_mask.shape[-1]


GraphsTuple: TypeAlias = jraph.GraphsTuple
AnyGraph: TypeAlias = Graph | GraphsTuple


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


def num_edges(graph: AnyGraph) -> int:
    """Slots of directed edges.

    Args:
      graph: the graph.

    Returns:
      Their number, padding included.
    """
    return graph.num_edges if isinstance(graph, Graph) else ends(graph)[0].shape[0]


def ends(graph: GraphsTuple) -> tuple[Any, Any]:
    """Senders and receivers.

    Args:
      graph: the graph.

    Returns:
      Both, integers [edges].

    Raises:
      TypeError: if they are not integers.
      ValueError: if the graph has none, as jraph allows, or a known one is no node.
    """
    if graph.senders is None or graph.receivers is None:
        raise ValueError(
            "graph.senders, graph.receivers: expected node numbers, got None; for a "
            "graph without edges, np.zeros(0, np.int32)"
        )
    # Messages are gathered without checks of bounds.
    for name in ("senders", "receivers"):
        numbers = getattr(graph, name)
        if not jnp.issubdtype(numbers.dtype, jnp.integer):
            raise TypeError(f"graph.{name}: expected integers, got {numbers.dtype}")
        check_node_numbers(f"graph.{name}", numbers, num_nodes(graph))
    return graph.senders, graph.receivers


def num_nodes(graph: AnyGraph) -> int:
    """Slots of nodes.

    Args:
      graph: the graph.

    Returns:
      Their number, padding included.

    Raises:
      ValueError: if a graph of jraph has no nodes' features.
    """
    if isinstance(graph, Graph):
        return graph.num_nodes
    if isinstance(graph.nodes, BCSR):
        return graph.nodes.shape[0]
    leaves = jax.tree.leaves(graph.nodes)
    if not leaves:
        raise ValueError("graph.nodes: expected the nodes' features, got None")
    return leaves[0].shape[0]


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


def edge_weights(graph: GraphsTuple) -> Any:
    """The features of edges, where they are weights.

    Args:
      graph: the graph.

    Returns:
      float32 [edges], or None.

    Raises:
      ValueError: if edges have features that are no weights.
    """
    if graph.edges is None:
        return None
    edges = num_edges(graph)
    shape = getattr(graph.edges, "shape", None)
    if shape not in ((edges,), (edges, 1)):
        raise ValueError(
            f"graph.edges: expected None or one weight for each of {edges} edges, got "
            f"{jax.tree.map(jnp.shape, graph.edges)}; jeff's networks read no edge "
            "features: drop them, graph._replace(edges=None), or use a network of jraph"
        )
    return jnp.asarray(graph.edges, jnp.float32).reshape(-1)


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
