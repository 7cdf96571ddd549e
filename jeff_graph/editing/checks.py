"""Checks of a graph's arrays; errors name the expected and the actual value."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.sparse import BCSR
from jaxtyping import Array

from jeff import frozen, named_leaves

__all__ = [
    "as_labels",
    "check_classes",
    "check_mask_length",
    "check_node_numbers",
    "check_parts",
    "check_task_classes",
    "check_trainable",
    "checked_edges",
    "checked_features",
    "checked_labels",
    "checked_weights",
    "nodes_at",
]

_APART = (
    "apart: trained, rest = jeff.frozen.split(params, 'batch_stats'), or () "
    "for integers alone, and lambda p, x: apply_fn(jeff.frozen.join(p, rest), x)"
)
_MOST_CLASSES = 65_536  # of a graph with fewer nodes


def check_classes(name: str, labels: Any, classes: int) -> None:
    """Refuse labels for which a network has no logit; values are read where known.

    Args:
      name: the argument's name.
      labels: class of each node or graph, -1 for none.
      classes: number of the network's classes.

    Raises:
      ValueError: if a label is at least ``classes``.
    """
    if isinstance(labels, Tracer) or not labels.size:
        return
    # By numpy: inside jit, JAX would trace even the maximum of a known array.
    labels = np.asarray(labels)
    high = int(labels.max())
    if high >= classes:
        least = int(labels[labels >= 0].min())
        hint = "; they count from 1: subtract 1" if least and high == classes else ""
        raise ValueError(
            f"{name}: expected classes from 0 to {classes - 1}, as the network has "
            f"{classes} logits, got {high}{hint}"
        )


def check_task_classes(task: Any, classes: int) -> None:
    """Refuse a task whose labels have no logit.

    Args:
      task: the `jeff_graph.editing.task.EditTask`.
      classes: number of the network's classes.

    Raises:
      ValueError: if a label is at least ``classes``.
    """
    check_classes("task.labels", task.labels, classes)
    check_classes("task.training_labels", task.training_labels, classes)


def check_trainable(params: Any) -> None:
    """Refuse parameters that an edit must not move.

    Args:
      params: what a method edits.

    Raises:
      TypeError: if a leaf is not floating point.
      ValueError: if there are running statistics.
    """
    try:
        mask = frozen.is_frozen(params, None)
    except ValueError as error:
        raise ValueError(f"{str(error).split(';')[0]}; {_APART}") from error
    paths, still, _ = named_leaves.flatten(mask)
    for path, is_still in zip(paths, still, strict=True):
        if is_still:
            raise TypeError(
                f"params: {path}: expected floating point, got a leaf that cannot be "
                f"edited; {_APART}"
            )


def check_node_numbers(name: str, nodes: Any, count: int) -> None:
    """Refuse numbers of nodes that do not exist; values are read where known.

    Args:
      name: the argument's name.
      nodes: node numbers.
      count: number of nodes.

    Raises:
      ValueError: naming the first that is out of range.
    """
    # Out of range, JAX would drop or clamp the index in silence.
    if isinstance(nodes, Tracer) or not nodes.size:
        return
    nodes = np.asarray(nodes)
    low, high = int(nodes.min()), int(nodes.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"{name}: expected numbers from 0 to {count - 1}, got "
            f"{low if low < 0 else high}"
        )


def nodes_at(numbers: Any, count: int) -> Array:
    """A mask of some nodes; numbers of nodes that do not exist are dropped.

    Args:
      numbers: node numbers; under jit they cannot be refused.
      count: number of nodes.

    Returns:
      A bool mask [count].
    """
    numbers = jnp.asarray(numbers)
    # JAX drops what is too large, but counts negative numbers from the end.
    known = jnp.where(numbers < 0, count, numbers)
    return jnp.zeros(count, bool).at[known].set(True, mode="drop")


def check_mask_length(name: str, mask: Array, nodes: int) -> None:
    """Refuse a mask of another length than there are nodes.

    Args:
      name: the argument's name.
      mask: the mask to check.
      nodes: number of nodes.

    Raises:
      ValueError: if the shape is not [nodes].
    """
    if mask.shape != (nodes,):
        raise ValueError(
            f"{name}: expected one value for each of {nodes} nodes, got shape "
            f"{mask.shape}"
        )


def check_parts(**parts: Array) -> None:
    """Refuse parts of a split that hold no node.

    Args:
      **parts: bool masks by the name of the part.

    Raises:
      ValueError: naming the first that is empty.
    """
    for name, part in parts.items():
        if not np.asarray(part).any():
            raise ValueError(f"split.{name}: expected at least one node, got none")


def checked_features(features: Any) -> Any:
    """Refuse features that are not finite numbers for each node.

    Args:
      features: the features to check.

    Returns:
      float32 [nodes, width]; sparse ones unchanged.

    Raises:
      TypeError: if they are no real numbers.
      ValueError: if they are no matrix, or one is not finite.
    """
    if isinstance(features, BCSR):
        if features.ndim != 2 or not np.isfinite(np.asarray(features.data)).all():
            raise ValueError(
                "features: expected a sparse matrix of finite numbers, got "
                f"{features}; drop or impute what is not finite"
            )
        return features
    features = np.asarray(features)
    if features.dtype.kind not in "biuf" and features.dtype != jnp.bfloat16:
        raise TypeError(f"features: expected real numbers, got {features.dtype}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"features: expected [nodes, width] of at least 1, got {features.shape}"
        )
    features = features.astype(np.float32)
    # One NaN feature would spread over its neighbourhood, and name no node.
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        node, column = bad[0].tolist()
        raise ValueError(
            f"features: expected finite numbers, got {features[node, column]} at node "
            f"{node}, column {column}; drop or impute {len(bad)} such values"
        )
    return features


def as_labels(name: str, labels: Any) -> Array:
    """Labels of any kind as int32; values are read where they are known.

    Args:
      name: the argument's name.
      labels: class of each node or graph; -1 for none.

    Returns:
      int32, in a vector.

    Raises:
      TypeError: if they are not integers.
      ValueError: if they are no vector, or one is below -1 or does not fit.
    """
    if isinstance(labels, Tracer):
        return labels
    # On the host: as a JAX array, 2^32 + 1 would become 1.
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: expected integers, got {values.dtype}; number the classes from 0"
        )
    if values.ndim != 1:
        raise ValueError(f"{name}: expected a vector, got shape {values.shape}")
    if values.size and (values.min() < -1 or values.max() >= 2**31):
        wrong = values.min() if values.min() < -1 else values.max()
        raise ValueError(
            f"{name}: expected classes from 0, or -1 for none, got {wrong}; number the "
            "classes that occur"
        )
    return jnp.asarray(values, jnp.int32)


def checked_labels(labels: Any, nodes: int) -> np.ndarray:
    """Refuse labels that are not one class per node.

    Args:
      labels: the labels to check.
      nodes: number of nodes.

    Returns:
      Integers [nodes].

    Raises:
      TypeError: if they are not integers.
      ValueError: if their number differs, one is below -1, or larger
        than both 65,535 and the number of nodes.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels: expected integers, got {labels.dtype}; number the classes from 0"
        )
    if labels.shape != (nodes,):
        raise ValueError(
            f"labels: expected one for each of {nodes} nodes, got shape {labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < -1:
        raise ValueError(f"labels: expected at least 0, or -1 for none, got {low}")
    # Networks have an output for each class up to the largest.
    if high >= max(nodes, _MOST_CLASSES):
        raise ValueError(
            f"labels: expected classes numbered from 0 to at most "
            f"{max(nodes, _MOST_CLASSES) - 1}, got {high}; number the classes that "
            "occur"
        )
    return labels


def checked_edges(edges: Any, nodes: int) -> np.ndarray:
    """Refuse edges that are not pairs of nodes.

    Args:
      edges: the edges to check.
      nodes: number of nodes.

    Returns:
      int64 [edges, 2].

    Raises:
      TypeError: if they are not integers.
      ValueError: if they are not pairs, or one names a node that does not exist.
    """
    edges = np.asarray(edges)
    # An empty list has no integer dtype and no second axis, and is not a mistake.
    if not edges.size:
        return np.zeros((0, 2), np.int64)
    if edges.dtype.kind not in "iu":
        raise TypeError(f"edges: expected integers, got {edges.dtype}")
    if edges.ndim != 2 or edges.shape[1] != 2:
        # PyTorch Geometric and OGB store edges as [2, edges].
        hint = "; transpose it" if edges.shape[:1] == (2,) else ""
        raise ValueError(f"edges: expected [edges, 2], got {edges.shape}{hint}")
    wrong = np.flatnonzero(((edges < 0) | (edges >= nodes)).any(1))
    if len(wrong):
        raise ValueError(
            f"edges: expected node numbers from 0 to {nodes - 1}, got "
            f"{edges[wrong[0]].tolist()} in row {wrong[0]}; number the nodes from 0 "
            f"and give features for each ({len(wrong)} such edges)"
        )
    return edges.astype(np.int64)


def checked_weights(weights: Any, edges: int) -> np.ndarray | None:
    """Refuse weights that are not one positive number for each edge.

    Args:
      weights: the weights to check, or None.
      edges: number of edges.

    Returns:
      float32 [edges], or None.

    Raises:
      TypeError: if they are no real numbers.
      ValueError: if their number differs, or one is not positive and finite.
    """
    if weights is None:
        return None
    weights = np.asarray(weights)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"weights: expected real numbers, got {weights.dtype}")
    if weights.shape not in ((edges,), (edges, 1)):
        raise ValueError(
            f"weights: expected one for each of {edges} edges, got {weights.shape}"
        )
    weights = weights.reshape(-1).astype(np.float32)
    # Normalisation takes roots of their sums; an edge of weight 0 is none.
    wrong = weights[~(np.isfinite(weights) & (weights > 0))]
    if len(wrong):
        raise ValueError(
            f"weights: expected positive numbers, got {wrong[0]}; leave such edges out"
        )
    return weights
