"""Training, validation and test parts of the nodes of a graph."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, PRNGKeyArray

from jeff_graph.editing.checks import as_labels

__all__ = ["Split", "split"]


class Split(NamedTuple):
    """Disjoint masks of nodes, each bool [nodes]."""

    train: Bool[Array, " nodes"]
    valid: Bool[Array, " nodes"]
    test: Bool[Array, " nodes"]


def split(labels: Any, train: int, valid: int, *, key: PRNGKeyArray) -> Split:
    """Random split of the labelled nodes; the rest is the test.

    Args:
      labels: class of each node, in any kind of array; nodes with -1, such as
        padding, are in no part.
      train: number of training nodes.
      valid: number of validation nodes.
      key: random key.

    Returns:
      A `Split`.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if a number is below 1 or nothing is left for the test.
    """
    labels = as_labels("labels", labels)
    known = labels >= 0
    count = labels.shape[0] if isinstance(known, Tracer) else int(known.sum())
    if min(train, valid) < 1 or train + valid >= count:
        raise ValueError(
            f"train, valid: expected at least 1 each and fewer than the {count} "
            f"labelled nodes in sum, got {train} and {valid}"
        )
    order = jax.random.permutation(key, labels.shape[0])
    # Labelled nodes first, in random order.
    order = order[jnp.argsort(~known[order], stable=True)]
    place = jnp.zeros_like(order).at[order].set(jnp.arange(labels.shape[0]))
    chosen = place < train + valid
    return Split(place < train, chosen & (place >= train), known & ~chosen)
