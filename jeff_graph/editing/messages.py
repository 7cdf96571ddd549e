"""Message passing over the real edges of a padded graph, as sums over segments.

Edges of padding are sent to a slot that does not exist, where a segment sum drops them.
So no mask of the size of the messages is needed, and padding makes no NaN. Sums are
taken in float32 at least, whatever the dtype of the messages. For a `compressed` graph
they are products with a sparse matrix.

References:
  Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
  ICLR 2017.
  Veličković et al., "Graph Attention Networks", ICLR 2018.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float, Int

from jeff_graph.editing.graphs import AnyGraph, Graph, as_graph
from jeff_graph.editing.hops import degrees, topology, weighted

__all__ = [
    "attend",
    "compressed",
    "mean_neighbours",
    "propagate",
    "sum_neighbours",
]


def compressed(graph: AnyGraph) -> Graph:
    """The same graph in compressed sparse rows, for steps on a CPU one at a time.

    Sums over neighbours, and their gradients, are then products with a sparse matrix,
    which a CPU computes faster than sums over segments; under `jax.vmap` they are no
    faster. Not meant for accelerators. The weights of edges have no gradient then.

    Args:
      graph: an undirected graph, read on the host; of a `Graph` the edges must be in
        the order of receivers.

    Returns:
      The graph with `Graph.starts`; its features are as they were.

    Raises:
      ValueError: if an edge has no reverse of the same weight, or receivers of a
        `Graph` do not ascend.
    """
    if not isinstance(graph, Graph):
        graph = _sorted(as_graph(graph))
    ends = np.stack([graph.receivers, graph.senders]).astype(np.int64)
    real = np.asarray(graph.edge_mask)
    numbers, reverse = (
        one * graph.num_nodes + other for one, other in (ends, ends[::-1])
    )
    if not np.array_equal(np.sort(numbers[real]), np.sort(reverse[real])):
        raise ValueError("graph: expected an undirected one, got edges without reverse")
    if (np.diff(ends[0]) < 0).any():
        raise ValueError("graph: expected receivers that ascend; use make_graph")
    if graph.weights is not None:
        weights = np.asarray(graph.weights)[real]
        forth, back = np.argsort(numbers[real]), np.argsort(reverse[real])
        if (weights[forth] != weights[back]).any():
            raise ValueError("graph: expected the same weight both ways")
    starts = np.searchsorted(ends[0], np.arange(graph.num_nodes + 1))
    return dataclasses.replace(graph, starts=jnp.asarray(starts, jnp.int32))


def _sorted(graph: Graph) -> Graph:
    """The same edges in the order of receivers."""
    order = np.argsort(np.asarray(graph.receivers), kind="stable")
    parts = {
        name: jnp.asarray(np.asarray(getattr(graph, name))[order])
        for name in ("senders", "receivers", "edge_mask", "weights")
        if getattr(graph, name) is not None
    }
    return dataclasses.replace(graph, **parts)


def sum_neighbours(
    graph: AnyGraph, x: Float[Array, " nodes *width"]
) -> Float[Array, " nodes *width"]:
    """Sum over the neighbours, ``sum_{j -> i} w_ji x_j``.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      The sums, an array like ``x``; 0 at a node without edges.
    """
    return _neighbour_sum(weighted(graph), x).astype(x.dtype)


def mean_neighbours(
    graph: AnyGraph, x: Float[Array, " nodes *width"]
) -> Float[Array, " nodes *width"]:
    """Mean over the neighbours, ``sum_{j -> i} w_ji x_j / d_i``, d their weight.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      The means, an array like ``x``; 0 at a node without edges.
    """
    graph = weighted(graph)
    total = degrees(graph)
    # Without weights a node has none or at least 1.
    count = _each(jnp.where(total > 0, total, 1), x)
    return (_neighbour_sum(graph, x) / count).astype(x.dtype)


def propagate(
    graph: AnyGraph, x: Float[Array, " nodes *width"]
) -> Float[Array, " nodes *width"]:
    """One step of symmetrically normalised propagation with self-loops.

    ``D^(-1/2) (A + I) D^(-1/2) x`` with ``D = degree + 1``; A holds the edges' weights.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      An array like ``x``.

    References:
      Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional
      Networks", 2017, eq. 2.
    """
    graph = weighted(graph)
    # Scaled on both sides of the sum, so that no weight is stored for each edge.
    scale = _each(jax.lax.rsqrt(degrees(graph) + 1), x)
    scaled = x * scale.astype(x.dtype)
    total = _neighbour_sum(graph, scaled) + scaled
    return (total * scale).astype(x.dtype)


def attend(
    graph: AnyGraph,
    x: Float[Array, "nodes heads width"],
    receiver_score: Float[Array, "nodes heads"],
    sender_score: Float[Array, "nodes heads"],
    *,
    slope: float = 0.2,
) -> Float[Array, "nodes heads width"]:
    """Weighted mean over a node and its neighbours, by a softmax of scores.

    ``sum_j a_ij x_j``, ``a_ij = softmax_j(LeakyReLU(receiver_i + sender_j))``, where j
    runs over i and the nodes that send to i.

    Args:
      graph: the graph.
      x: values of each node and head.
      receiver_score: score of each node as a receiver.
      sender_score: score of each node as a sender.
      slope: of the leaky ReLU below 0.

    Returns:
      An array like ``x``; the softmax is in float32.

    References:
      Veličković et al., "Graph Attention Networks", 2018, eq. 3 and 4.
    """
    graph = topology(graph)
    receiver, sender = (
        score.astype(jnp.float32) for score in (receiver_score, sender_score)
    )
    own = jax.nn.leaky_relu(receiver + sender, slope)
    tied = jax.nn.leaky_relu(receiver[graph.receivers] + _sent(graph, sender), slope)
    tied = jnp.where(graph.edge_mask[:, None], tied, -jnp.inf)
    top = jax.ops.segment_max(tied, _targets(graph), graph.num_nodes)
    # The highest score only keeps exp in range; it cancels, and so has no gradient. A
    # node always attends to itself, so it is finite.
    top = jax.lax.stop_gradient(jnp.maximum(top, own))
    own_weight = jnp.exp(own - top)
    weight = jnp.exp(tied - top[graph.receivers])
    # Divided once a node instead of once an edge.
    total = _segment_sum(graph, weight) + own_weight
    mixed = _segment_sum(graph, weight[..., None] * _sent(graph, x))
    mixed += own_weight[..., None] * x
    return (mixed / total[..., None]).astype(x.dtype)


def _neighbour_sum(graph: Graph, x: Array) -> Float[Array, " nodes *width"]:
    """Sum over the neighbours, in float32 at least."""
    if graph.starts is None or x.ndim != 2:
        sent = _sent(graph, x)
        if graph.weights is not None:
            sent *= graph.weights.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return _segment_sum(graph, sent)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _symmetric_sum(_strength(graph), graph.senders, graph.starts, wide)


def _strength(graph: Graph) -> Array:
    """Weight of each edge; 0 at padding."""
    if graph.weights is None:
        return graph.edge_mask
    return graph.edge_mask * graph.weights


def _symmetric_sum(
    strength: Array, senders: Array, starts: Array, x: Array
) -> Float[Array, "nodes width"]:
    """Product with a symmetric adjacency matrix, which is its own transpose.

    As a linear solve, ``y = S x`` is differentiated in both directions, with products
    alone, and batched by `jax.vmap`; `linear_call` has no rule for that. The equation
    that y solves is never looked at.
    """

    def product(_: Any, x: Array) -> Array:
        values = strength.astype(x.dtype)
        return BCSR((values, senders, starts), shape=(x.shape[0],) * 2) @ x

    return jax.lax.custom_linear_solve(lambda y: y, x, product, symmetric=True)


def _sent(graph: Graph, x: Array) -> Float[Array, " edges *width"]:
    # Ends are valid slots by the graph's invariant, so no bounds are checked.
    return x.at[graph.senders].get(mode="promise_in_bounds")


def _targets(graph: Graph) -> Int[Array, " edges"]:
    """Receivers, those of padding out of bounds."""
    return jnp.where(graph.edge_mask, graph.receivers, graph.num_nodes)


def _segment_sum(graph: Graph, messages: Array) -> Float[Array, " nodes *width"]:
    wide = messages.astype(jnp.promote_types(messages.dtype, jnp.float32))
    return jax.ops.segment_sum(wide, _targets(graph), graph.num_nodes)


def _each(value: Array, x: Array) -> Float[Array, " nodes *ones"]:
    """A number of each node, to be broadcast against ``x``."""
    return value.reshape(-1, *[1] * (x.ndim - 1))
