"""A graph of static shapes: nodes and edges in slots, masks that mark the real ones.

Message passing runs along edges, from senders to receivers; an undirected edge is
stored both ways. Self-loops are never stored; layers that need them add them.

Taking a subgraph masks edges and keeps every node in its place, so indices, labels and
compiled programs stay valid. `jeff_graph.editing.sampling` cuts out small graphs.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jeff.checks import check_mask
from jeff_graph.editing.checks import (
    check_mask_length,
    checked_edges,
    checked_features,
    checked_labels,
)
from jeff_graph.editing.features import append_rows

__all__ = [
    "Graph",
    "degrees",
    "hop_distance",
    "k_hop",
    "make_graph",
    "pad",
    "subgraph",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes and directed edges, padded to static sizes.

    Invariants: both ends of a real edge are real nodes; no real edge comes twice or is
    a self-loop; ends of padding edges are valid slots. `make_graph` ensures this.

    Attributes:
      features: [nodes, width], floating point, dense or `BCSR`.
      labels: class of each node, int32 [nodes]; -1 where there is none.
      senders: slot where each edge starts, int32 [edges].
      receivers: slot where it ends, int32 [edges].
      node_mask: the real nodes, bool [nodes].
      edge_mask: the real edges, bool [edges].
      degree: number of edges that end at each node in the graph from which this one
        was cut, float32 [nodes]; None to count them here.
      starts: place of the first edge that ends at each node, and the number of edges,
        int32 [nodes + 1]; given by `jeff_graph.editing.messages.compressed`, else None.
    """

    # Leaves may be shapes as well, as `jax.eval_shape` gives them.
    features: Any
    labels: Any
    senders: Any
    receivers: Any
    node_mask: Any
    edge_mask: Any
    degree: Any = None
    starts: Any = None

    @property
    def num_nodes(self) -> int:
        """Slots of nodes, padding included."""
        return self.node_mask.shape[-1]

    @property
    def num_edges(self) -> int:
        """Slots of directed edges, padding included."""
        return self.edge_mask.shape[-1]


def make_graph(
    features: Any, labels: Any, edges: Any, *, undirected: bool = True
) -> Graph:
    """Build a graph from plain arrays, on the host.

    Edges that come twice and self-loops are left out; nodes without edges are fine.

    Args:
      features: numbers [nodes, width], or a `BCSR` matrix; stored as float32.
      labels: class of each node, integers [nodes] of at least 0; -1 for none.
      edges: pairs (sender, receiver) of node numbers from 0, integers [edges, 2].
      undirected: add each edge's reverse.

    Returns:
      A `Graph` without padding, its edges in the order of receivers, then senders.

    Raises:
      TypeError: if an array is of the wrong kind of number.
      ValueError: if shapes do not fit, a feature is not finite, a label is below -1 or
        an edge names a node that does not exist.

    >>> graph = make_graph(np.eye(3), np.array([0, 1, 1]), np.array([[0, 1], [1, 0]]))
    >>> graph.senders, graph.receivers
    (Array([1, 0], dtype=int32), Array([0, 1], dtype=int32))
    """
    features = checked_features(features)
    nodes = features.shape[0]
    labels = checked_labels(labels, nodes)
    pairs = checked_edges(edges, nodes)
    if undirected:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
    # Layers add self-loops themselves; a stored one would count twice.
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    # One number an edge: unique sorts by receiver, then sender, and drops doubles.
    receivers, senders = np.divmod(np.unique(pairs[:, 1] * nodes + pairs[:, 0]), nodes)
    return Graph(
        jax.tree.map(jnp.asarray, features),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(senders, jnp.int32),
        jnp.asarray(receivers, jnp.int32),
        jnp.ones(nodes, bool),
        jnp.ones(len(senders), bool),
    )


def pad(graph: Graph, nodes: int, edges: int) -> Graph:
    """Append slots of padding.

    Padding nodes have features 0 and label -1.

    Args:
      graph: the graph.
      nodes: slots of nodes in all.
      edges: slots of edges in all.

    Returns:
      The larger graph, on the host where its arrays are numpy's.

    Raises:
      ValueError: if a size is less than what the graph has.
    """
    for name, size, least in (
        ("nodes", nodes, graph.num_nodes),
        ("edges", edges, graph.num_edges),
    ):
        if size < least:
            raise ValueError(f"{name}: expected at least the {least} slots, got {size}")

    def grown(array: Any, size: int, value: Any = 0) -> Any:
        xp = np if isinstance(array, np.ndarray) else jnp
        return xp.pad(array, (0, size - len(array)), constant_values=value)

    # Ends of padding edges are the last slot: a valid index, and receivers still
    # ascend.
    last = max(nodes - 1, 0)
    return Graph(
        append_rows(graph.features, nodes),
        grown(graph.labels, nodes, -1),
        grown(graph.senders, edges, last),
        grown(graph.receivers, edges, last),
        grown(graph.node_mask, nodes, False),
        grown(graph.edge_mask, edges, False),
        None if graph.degree is None else grown(graph.degree, nodes),
    )


def subgraph(graph: Graph, keep: Bool[Array, " nodes"]) -> Graph:
    """The subgraph that some nodes induce, every node in its place.

    Args:
      graph: the graph.
      keep: the nodes that stay.

    Returns:
      A graph of the same shapes whose other nodes and their edges are masked. Degrees
      are those of the subgraph.

    Raises:
      TypeError: if ``keep`` is not bool.
      ValueError: if it has another length than there are nodes.
    """
    check_mask(keep=keep)
    check_mask_length("keep", keep, graph.num_nodes)
    ends = keep[graph.senders] & keep[graph.receivers]
    return dataclasses.replace(
        graph,
        node_mask=graph.node_mask & keep,
        edge_mask=graph.edge_mask & ends,
        degree=None,  # those of the whole graph no longer hold
    )


def degrees(graph: Graph) -> Float[Array, " nodes"]:
    """Number of edges that end at each node.

    Args:
      graph: the graph.

    Returns:
      ``graph.degree`` where there is one, else the count of real edges.
    """
    if graph.degree is not None:
        return graph.degree
    counted = jnp.zeros(graph.num_nodes, jnp.float32)
    return counted.at[graph.receivers].add(graph.edge_mask.astype(jnp.float32))


def k_hop(
    graph: Graph,
    nodes: Bool[Array, " nodes"] | Int[Array, "..."] | int,
    hops: Int[Array, ""] | int,
) -> Bool[Array, " nodes"]:
    """Nodes that messages of some nodes reach within a number of hops.

    Args:
      graph: the graph.
      nodes: where to start: a bool mask [nodes], or one or more node numbers.
      hops: number of hops, at least 0; may be traced.

    Returns:
      Mask of the nodes at ``hops`` or fewer, the start included.

    Raises:
      TypeError: if ``nodes`` is neither bool nor integer.
      ValueError: if a mask has another length, or a known node number does not exist.
    """
    start = _start(graph, "nodes", nodes)

    def hop(_: Any, reached: Array) -> Array:
        sent = (reached[graph.senders] & graph.edge_mask).astype(jnp.int32)
        arrived = jnp.zeros(graph.num_nodes, jnp.int32).at[graph.receivers].max(sent)
        return reached | (arrived > 0)

    return jax.lax.fori_loop(0, hops, hop, start)


def hop_distance(
    graph: Graph, node: Bool[Array, " nodes"] | Int[Array, "..."] | int, most: int
) -> Int[Array, " nodes"]:
    """Number of hops from a node to every other.

    Args:
      graph: the graph.
      node: where to start, as ``nodes`` of `k_hop`; from several, the nearest counts.
      most: distance up to which to look, at least 0.

    Returns:
      Distances along edges, 0 at the start and ``most + 1`` at nodes farther away or
      unreachable, padding included.

    Raises:
      TypeError: as `k_hop`.
      ValueError: as `k_hop`, or if ``most`` is negative.
    """
    if most < 0:
        raise ValueError(f"most: expected at least 0, got {most}")
    reached = _start(graph, "node", node)
    distance = jnp.where(reached, 0, most + 1)

    def hop(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, distance = carry
        further = k_hop(graph, reached, 1)
        return further, jnp.where(further & ~reached, number, distance)

    return jax.lax.fori_loop(1, most + 1, hop, (reached, distance))[1]


def _start(graph: Graph, name: str, nodes: Any) -> Bool[Array, " nodes"]:
    nodes = jnp.asarray(nodes)
    if nodes.dtype == jnp.bool_:
        check_mask_length(name, nodes, graph.num_nodes)
        return nodes & graph.node_mask
    if not jnp.issubdtype(nodes.dtype, jnp.integer):
        raise TypeError(
            f"{name}: expected a bool mask or node numbers, got {nodes.dtype}"
        )
    # Out of range, JAX would drop the index in silence; a tracer cannot be checked.
    if not isinstance(nodes, Tracer) and nodes.size:
        low, high = int(nodes.min()), int(nodes.max())
        if low < 0 or high >= graph.num_nodes:
            raise ValueError(
                f"{name}: expected numbers from 0 to {graph.num_nodes - 1}, got "
                f"{low if low < 0 else high}"
            )
    mask = jnp.zeros(graph.num_nodes, bool).at[nodes].set(True)
    return mask & graph.node_mask
