"""Message passing over the real edges of a padded graph, as sums over segments.

Edges of padding are sent to a slot that does not exist, where a segment sum drops them;
so no mask of the size of the messages is made, and padding costs no NaN. Sums are taken
in float32 at least, whatever the dtype of the messages.

References:
  Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
  ICLR 2017.
  Veličković et al., "Graph Attention Networks", ICLR 2018.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jeff_graph.editing.graphs import Graph, degrees

__all__ = ["attend", "mean_neighbours", "propagate", "sum_neighbours"]


def sum_neighbours(
    graph: Graph, x: Float[Array, "nodes *width"]
) -> Float[Array, "nodes *width"]:
    """Sum of what the neighbours send, ``sum_{j -> i} x_j``.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      The sums, an array like ``x``; 0 at a node without edges.
    """
    return _segment_sum(graph, _sent(graph, x)).astype(x.dtype)


def mean_neighbours(
    graph: Graph, x: Float[Array, "nodes *width"]
) -> Float[Array, "nodes *width"]:
    """Mean of what the neighbours send, ``sum_{j -> i} x_j / d_i``.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      The means, an array like ``x``; 0 at a node without edges.
    """
    count = _each(jnp.maximum(degrees(graph), 1), x)
    return (_segment_sum(graph, _sent(graph, x)) / count).astype(x.dtype)


def propagate(
    graph: Graph, x: Float[Array, "nodes *width"]
) -> Float[Array, "nodes *width"]:
    """One step of symmetrically normalised propagation, each node tied to itself.

    ``D^(-1/2) (A + I) D^(-1/2) x`` with ``D = degree + 1``.

    Args:
      graph: the graph.
      x: a value of each node.

    Returns:
      An array like ``x``.

    References:
      Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional
      Networks", 2017, eq. 2.
    """
    scale = _each(jax.lax.rsqrt(degrees(graph) + 1), x)
    scaled = x * scale.astype(x.dtype)
    total = _segment_sum(graph, _sent(graph, scaled)) + scaled
    return (total * scale).astype(x.dtype)


def attend(
    graph: Graph,
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
    receiver, sender = (
        score.astype(jnp.float32) for score in (receiver_score, sender_score)
    )
    own = jax.nn.leaky_relu(receiver + sender, slope)
    tied = jax.nn.leaky_relu(receiver[graph.receivers] + _sent(graph, sender), slope)
    tied = jnp.where(graph.edge_mask[:, None], tied, -jnp.inf)
    top = jax.ops.segment_max(tied, _targets(graph), graph.num_nodes)
    top = jax.lax.stop_gradient(jnp.maximum(top, own))
    own_weight = jnp.exp(own - top)
    weight = jnp.exp(tied - top[graph.receivers])
    total = _segment_sum(graph, weight) + own_weight
    mixed = _segment_sum(graph, weight[..., None] * _sent(graph, x))
    mixed += own_weight[..., None] * x
    return (mixed / total[..., None]).astype(x.dtype)


def _sent(graph: Graph, x: Array) -> Float[Array, "edges *width"]:
    return x.at[graph.senders].get(mode="promise_in_bounds")


def _targets(graph: Graph) -> Int[Array, " edges"]:
    """Receivers, those of padding out of bounds."""
    return jnp.where(graph.edge_mask, graph.receivers, graph.num_nodes)


def _segment_sum(graph: Graph, messages: Array) -> Float[Array, "nodes *width"]:
    wide = messages.astype(jnp.promote_types(messages.dtype, jnp.float32))
    return jax.ops.segment_sum(wide, _targets(graph), graph.num_nodes)


def _each(value: Array, x: Array) -> Float[Array, "nodes *ones"]:
    """A number of each node, to be broadcast against ``x``."""
    return value.reshape(-1, *[1] * (x.ndim - 1))
