"""Checks of a graph's arrays; errors name the expected and the actual value."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import Array

__all__ = [
    "check_mask_length",
    "check_parts",
    "checked_edges",
    "checked_features",
    "checked_labels",
]

_MOST_CLASSES = 65_536  # of a graph with fewer nodes


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
        if not part.any():
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
