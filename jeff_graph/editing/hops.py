"""Degrees, distances and subgraphs of a graph of either kind.

Each takes a `jraph.GraphsTuple` or a `jeff_graph.editing.graphs.Graph`.
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
    check_node_numbers,
    nodes_at,
)
from jeff_graph.editing.graphs import (
    AnyGraph,
    Graph,
    edge_weights,
    ends,
    num_nodes,
    real_nodes,
)

__all__ = ["degrees", "hop_distance", "k_hop", "subgraph", "topology", "weighted"]


def topology(graph: AnyGraph) -> Graph:
    """The nodes and edges alone, whatever features they have.

    Args:
      graph: the graph.

    Returns:
      A `Graph`; of a ``GraphsTuple`` without its features, and without weights.
    """
    if isinstance(graph, Graph):
        return graph
    senders, receivers = map(jnp.asarray, ends(graph))
    return Graph(
        None,
        senders,
        receivers,
        jnp.asarray(real_nodes(graph)),
        senders != receivers,
    )


def weighted(graph: AnyGraph) -> Graph:
    """The nodes, the edges and their weights, whatever features nodes have.

    Args:
      graph: the graph.

    Returns:
      As `topology`, with weights where the edges have them.

    Raises:
      ValueError: if edges have features that are no weights.
    """
    if isinstance(graph, Graph):
        return graph
    return dataclasses.replace(topology(graph), weights=edge_weights(graph))


def subgraph(graph: AnyGraph, keep: Any) -> Any:
    """The subgraph that some nodes induce, every node in its place.

    Args:
      graph: the graph.
      keep: the nodes that stay, bool [nodes].

    Returns:
      A graph of the same kind. The other nodes keep their slots and lose their edges:
      in a `Graph` both are masked and shapes stay; in a ``GraphsTuple`` the edges are
      left out. Degrees are those of the subgraph.

    Raises:
      TypeError: if ``keep`` is not bool, or a ``GraphsTuple`` has no values yet, as
        under jit.
      ValueError: if it has another length than there are nodes.
    """
    check_mask(keep=keep)
    check_mask_length("keep", keep, num_nodes(graph))
    if not isinstance(graph, Graph):
        return _induced(graph, keep)
    kept = keep[graph.senders] & keep[graph.receivers]
    return dataclasses.replace(
        graph,
        node_mask=graph.node_mask & keep,
        edge_mask=graph.edge_mask & kept,
        degree=None,  # those of the whole graph no longer hold
    )


def _induced(graph: Any, keep: Any) -> Any:
    given = keep, *ends(graph), graph.n_edge
    if any(isinstance(each, Tracer) for each in given):
        raise TypeError(
            "graph: expected values, as the number of edges changes, got a tracer; "
            "call subgraph outside jit, or on editing.as_graph(graph)"
        )
    keep, senders, receivers, n_edge = map(np.asarray, given)
    kept = keep[senders] & keep[receivers]
    owner = np.repeat(np.arange(len(n_edge)), n_edge)
    return graph._replace(
        senders=senders[kept],
        receivers=receivers[kept],
        edges=jax.tree.map(lambda x: np.asarray(x)[kept], graph.edges),
        n_edge=np.bincount(owner[kept], minlength=len(n_edge)).astype(np.int32),
    )


def degrees(graph: AnyGraph) -> Float[Array, " nodes"]:
    """Weight of the edges that end at each node: their number, where they have none.

    Args:
      graph: the graph; loops do not count.

    Returns:
      ``graph.degree`` where there is one, else the sum over the real edges.

    Raises:
      ValueError: if edges have features that are no weights.
    """
    graph = weighted(graph)
    if graph.degree is not None:
        return graph.degree
    each = graph.edge_mask.astype(jnp.float32)
    each = each if graph.weights is None else each * graph.weights
    return jnp.zeros(graph.num_nodes, jnp.float32).at[graph.receivers].add(each)


def k_hop(
    graph: AnyGraph,
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
    graph = topology(graph)
    start = _start(graph, "nodes", nodes)

    def hop(_: Any, reached: Array) -> Array:
        sent = (reached[graph.senders] & graph.edge_mask).astype(jnp.int32)
        arrived = jnp.zeros(graph.num_nodes, jnp.int32).at[graph.receivers].max(sent)
        return reached | (arrived > 0)

    return jax.lax.fori_loop(0, hops, hop, start)


def hop_distance(
    graph: AnyGraph, node: Bool[Array, " nodes"] | Int[Array, "..."] | int, most: int
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
    graph = topology(graph)
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
    check_node_numbers(name, nodes, graph.num_nodes)
    return nodes_at(nodes, graph.num_nodes) & graph.node_mask
