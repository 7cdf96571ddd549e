"""Edits computed on the target's own neighbourhood.

A network of L layers reads no node that is more than L hops from the target, so the
loss of one target and its gradient are the same on that small graph as on the whole
graph. Degrees are those of the whole graph, and so the logits of the target, in slot 0,
are too.
"""

from typing import Any, NamedTuple

import numpy as np

from jeff_graph.editing.checks import as_labels
from jeff_graph.editing.graphs import AnyGraph, real_nodes
from jeff_graph.editing.rows import filled
from jeff_graph.editing.sampling import Neighbourhood, by_size
from jeff_graph.editing.task import EditTask

__all__ = ["Nearby", "nearby_tasks"]


class Nearby(NamedTuple):
    """A small task for each target, in groups of like size.

    Attributes:
      places: for each group, which targets it holds, int32 [members].
      tasks: for each group, their tasks, stacked: a leading axis on every leaf.
    """

    places: tuple[Any, ...]
    tasks: tuple[EditTask, ...]


def nearby_tasks(graph: AnyGraph, labels: Any, targets: Any, hops: int) -> Nearby:
    """A task for each target, for `jeff_graph.editing.evaluation.independent`.

    Args:
      graph: the whole graph; read on the host.
      labels: the right class of each of its nodes, integers [nodes], with padding or
        without.
      targets: a node for each edit, integers [edits], each once.
      hops: layers of the network, or more.

    Returns:
      The tasks, each with its target in slot 0, on graphs of the kind given. They have
      no training nodes: methods whose steps need them take the whole graph.

    Raises:
      TypeError: if labels or targets are not integers.
      ValueError: if labels do not fit, a node does not exist or comes twice, or
        ``hops`` is negative.
    """
    labels = np.asarray(
        filled("labels", as_labels("labels", labels), real_nodes(graph), -1)
    )
    groups = by_size(graph, targets, hops)
    return Nearby(
        tuple(places for places, _ in groups),
        tuple(_task(near, labels) for _, near in groups),
    )


def _task(near: Neighbourhood, labels: np.ndarray) -> EditTask:
    # At padding, the number of nodes: one place beyond the end.
    known = np.append(labels, -1)[np.asarray(near.ids)].astype(np.int32)
    real = np.asarray(near.ids) < len(labels)
    none = np.zeros_like(real)
    return EditTask(near.graph, known, real, none, near.graph, known, none)
