"""Rows of logits: the nodes of a graph, or the graphs of a batch, with their labels."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jeff_graph.editing.graphs import (
    AnyGraph,
    Graph,
    GraphsTuple,
    real_graphs,
    real_nodes,
)

__all__ = ["filled", "labelled_rows", "real_rows"]


def labelled_rows(
    graph: AnyGraph, labels: Int[Array, " labels"]
) -> tuple[Bool[Array, " rows"], bool]:
    """The rows to which labels belong.

    Args:
      graph: a graph, or a batch.
      labels: one for each node or each graph, padding included or not.

    Returns:
      Which rows are real, and whether they are nodes; where there are as many graphs
      as nodes, they are.

    Raises:
      ValueError: if the number of labels fits neither.
    """
    nodes = jnp.asarray(real_nodes(graph))
    if isinstance(graph, Graph):
        graphs = jnp.ones(1 if graph.n_node is None else graph.n_node.shape[0], bool)
    else:
        graphs = jnp.asarray(real_graphs(graph))
    for real, are_nodes in ((nodes, True), (graphs, False)):
        if labels.shape[0] in (real.shape[0], int(real.sum())):
            return real, are_nodes
    raise ValueError(
        f"labels: expected one for each of {int(nodes.sum())} nodes or "
        f"{int(graphs.sum())} graphs, got {labels.shape[0]}"
    )


def real_rows(inputs: Any, labels: Array) -> Bool[Array, " rows"]:
    """The rows of a task that are no padding, whether they count or not.

    Args:
      inputs: what the network reads.
      labels: of all rows.

    Returns:
      A bool mask.
    """
    if isinstance(inputs, Graph | GraphsTuple):
        return labelled_rows(inputs, labels)[0]
    return jnp.ones(labels.shape, bool)


def filled(name: str, values: Any, real: Bool[Array, " rows"], fill: Any) -> Array:
    """Values of all rows, from values of all or of the real ones, which come first.

    Args:
      name: the argument's name.
      values: one for each row, or each real row.
      real: which rows are real.
      fill: value at the padding that was left out.

    Returns:
      The values, [rows].

    Raises:
      ValueError: if their number fits neither.
    """
    values = jnp.asarray(values)
    slots, count = real.shape[0], int(real.sum())
    if values.shape == (slots,):
        return values
    if values.shape != (count,) or not bool(real[:count].all()):
        raise ValueError(
            f"{name}: expected shape ({slots},), or ({count},) without padding, got "
            f"{values.shape}"
        )
    return jnp.pad(values, (0, slots - count), constant_values=fill)
