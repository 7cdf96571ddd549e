"""Rows of logits: the nodes of a graph, or the graphs of a batch, with their labels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jeff_graph.editing.graphs import (
    AnyGraph,
    Graph,
    GraphsTuple,
    real_graphs,
    real_nodes,
)

__all__ = ["filled", "labelled_rows", "real_rows", "right_rows"]


def labelled_rows(
    graph: AnyGraph, labels: Int[Array, " labels"]
) -> tuple[Bool[Array | np.ndarray, " rows"], bool]:
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
    nodes = real_nodes(graph)
    if isinstance(graph, Graph):
        graphs = np.ones(1 if graph.n_node is None else graph.n_node.shape[0], bool)
    else:
        graphs = real_graphs(graph)
    for real, are_nodes in ((nodes, True), (graphs, False)):
        if labels.shape[0] in (real.shape[0], _count(real)):
            return real, are_nodes
    raise ValueError(
        f"labels: expected one for each of {_count(nodes)} nodes or {_count(graphs)} "
        f"graphs, got {labels.shape[0]}"
    )


def _count(real: Any) -> int:
    """Number of real rows; under jit, where a mask has no values, all count."""
    if isinstance(real, Tracer):
        return real.shape[0]
    # By numpy: inside jit, JAX would trace even the sum of a known array.
    return int(np.asarray(real).sum())


def real_rows(inputs: Any, labels: Array) -> Bool[Array | np.ndarray, " rows"]:
    """The rows of a task that are no padding, whether they count or not.

    Args:
      inputs: what the network reads.
      labels: of all rows.

    Returns:
      A bool mask.
    """
    if isinstance(inputs, Graph | GraphsTuple):
        return labelled_rows(inputs, labels)[0]
    return np.ones(labels.shape, bool)


def right_rows(
    logits: Float[Array, "rows classes"], labels: Int[Array, " rows"]
) -> Bool[Array, " rows"]:
    """Rows whose greatest logit is that of their class.

    Args:
      logits: of each row.
      labels: class of each row; -1 for none.

    Returns:
      A bool for each; False where a logit is NaN, of which no class is the greatest.
    """
    # To argmax, NaN is the greatest: a network that is broken would say class 0.
    return (logits.argmax(-1) == labels) & ~jnp.isnan(logits).any(-1)


def filled(
    name: str, values: Any, real: Bool[Array | np.ndarray, " rows"], fill: Any
) -> Array:
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
    slots, count = real.shape[0], _count(real)
    if values.shape == (slots,):
        return values
    if values.shape != (count,) or _count(real[:count]) < count:
        other = f", or ({count},) without padding" if count < slots else ""
        raise ValueError(
            f"{name}: expected shape ({slots},){other}, got {values.shape}"
        )
    return jnp.pad(values, (0, slots - count), constant_values=fill)
