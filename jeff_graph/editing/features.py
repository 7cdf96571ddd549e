"""Node features: dense, or in compressed sparse rows.

A bag of words has a thousand columns of which a node uses some twenty. As
`jax.experimental.sparse.BCSR` its product with a kernel visits those alone:
``graph._replace(nodes=BCSR.fromdense(graph.nodes))``. Networks,
protocols and sampling take either.

Measure whether it pays. It does on a CPU for bags of words such as Cora's (1.3% of the
entries are nonzero), but not under ``jax.vmap`` over kernels, where ``jax.lax.map`` is
faster. Amazon-photo, with 35%, is better left dense.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import Array, Float

from jeff.checks import check_floating

__all__ = ["append_rows", "product", "row_normalise", "take_rows", "unit_rows"]


def product(
    features: Float[Array, "nodes width"] | BCSR, kernel: Float[Array, "width units"]
) -> Float[Array, "nodes units"]:
    """Features times a kernel, in the kernel's dtype.

    Args:
      features: dense or sparse, [nodes, width].
      kernel: [width, units].

    Returns:
      The product, [nodes, units]; sums are taken in float32 at least.

    Raises:
      ValueError: if the widths differ.
    """
    if features.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"features: expected a width of {kernel.shape[0]}, that of the kernel, "
            f"got {features.shape[-1]}"
        )
    # The sparse product keeps the features' dtype; only the result is cast.
    if isinstance(features, BCSR):
        return (features @ kernel.astype(features.dtype)).astype(kernel.dtype)
    return features.astype(kernel.dtype) @ kernel


def append_rows(features: Any, nodes: int) -> Any:
    """Append rows of zeros.

    Args:
      features: dense or sparse, [rows, width].
      nodes: rows in all, at least those there are.

    Returns:
      Features of the same kind, on the host where they are numpy's.
    """
    if isinstance(features, BCSR):
        added = nodes - features.shape[0]
        indptr = jnp.pad(features.indptr, (0, added), mode="edge")
        parts = features.data, features.indices, indptr
        return BCSR(parts, shape=(nodes, features.shape[1]))
    # On the host nothing is compiled for each new shape.
    xp = np if isinstance(features, np.ndarray) else jnp
    return xp.pad(features, [(0, nodes - features.shape[0]), (0, 0)])


def take_rows(features: Any, rows: np.ndarray) -> np.ndarray:
    """Some rows on the host, dense.

    Args:
      features: dense or sparse, [nodes, width].
      rows: numbers of the rows.

    Returns:
      The rows, [rows, width].
    """
    if not isinstance(features, BCSR):
        return np.asarray(features)[rows]
    starts = np.asarray(features.indptr)
    # All entries of all rows in one gather: a loop over rows would run in Python.
    counts = starts[rows + 1] - starts[rows]
    owner = np.repeat(np.arange(len(rows)), counts)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = starts[rows][owner] + rank
    taken = np.zeros((len(rows), features.shape[1]), features.dtype)
    taken[owner, np.asarray(features.indices)[at]] = np.asarray(features.data)[at]
    return taken


def row_normalise(features: Any) -> Any:
    """Divide each row by the sum of its absolute values; rows of zeros stay.

    Args:
      features: an array of JAX or numpy, [nodes, width].

    Returns:
      An array like ``features``.

    Raises:
      TypeError: if the features are not floating point.

    >>> row_normalise(jnp.array([[1.0, 3.0], [0.0, 0.0]]))
    Array([[0.25, 0.75],
           [0.  , 0.  ]], dtype=float32)
    """
    check_floating(features=features)
    return _divided(features, abs(features).sum(-1, keepdims=True))


def unit_rows(features: Any) -> Any:
    """Divide each row by its Euclidean norm; rows of zeros stay.

    Hidden units then have one scale whether a node has twenty words or three hundred.
    Where rows sum to one, those of many words are so small that a network trained for
    the usual number of steps has not learned to use them.

    Args:
      features: an array of JAX or numpy, [nodes, width].

    Returns:
      An array like ``features``.

    Raises:
      TypeError: if the features are not floating point.

    >>> unit_rows(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    check_floating(features=features)
    return _divided(features, (features * features).sum(-1, keepdims=True) ** 0.5)


def _divided(features: Any, size: Any) -> Any:
    # A node without words keeps its zeros instead of 0 / 0.
    return features / (size + (size == 0).astype(size.dtype))
