"""Edits computed on the target's own neighbourhood.

A network of L layers reads no node that is more than L hops from the target, so the
loss of one target and its gradient are the same on that small graph as on the whole.
Degrees are those of the whole graph; so are the logits of the target, in slot 0.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from jeff_graph.editing.graphs import Graph
from jeff_graph.editing.sampling import neighbourhoods
from jeff_graph.editing.task import EditTask

__all__ = ["nearby_tasks"]


def nearby_tasks(graph: Graph, targets: Int[Array, " edits"], hops: int) -> EditTask:
    """A task for each target, stacked, for `jeff_graph.editing.protocols.independent`.

    Args:
      graph: the whole graph; read on the host.
      targets: a node for each edit, each once.
      hops: layers of the network, or more.

    Returns:
      A task with a leading axis ``edits`` on every leaf; each target in slot 0. It has
      no training nodes: methods whose steps need them take the whole graph.

    Raises:
      ValueError: if a node does not exist or comes twice, or ``hops`` is negative.
    """
    near = neighbourhoods(graph, targets, hops).graph
    none = jnp.zeros_like(near.node_mask)
    return EditTask(near, near.labels, near.node_mask, none, near, near.labels, none)
