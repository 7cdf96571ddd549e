"""Lines and simplexes between parameter pytrees.

A model family is a segment, or a simplex, in weight space: every point of it is a set
of parameters for the same network. The functions know nothing of networks; a pytree of
any library (Flax, Equinox, Haiku, plain dictionaries) will do. Integers, bools and keys
have no point between them: they must be the same at all ends, and stay so.

References:
  Wortsman et al., "Learning Neural Network Subspaces", ICML 2021.
  Han et al., "You Only Debias Once", 2025.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from jeff import named_leaves

__all__ = ["check_same_structure", "cosine_squared", "grid", "interpolate", "simplex"]


def interpolate(start: PyTree, end: PyTree, t: Float[Array, ""] | float) -> PyTree:
    """Parameters at position ``t`` of the line from ``start`` to ``end``.

    ``(1 - t) start + t end``, leaf by leaf; exact at both ends. Derivatives with
    respect to the ends are ``1 - t`` and ``t`` times the derivative at the point.
    Integers, bools and keys are those of the start.

    Args:
      start: parameters at ``t = 0``.
      end: parameters at ``t = 1``, of the same structure, shapes and dtypes.
      t: position, a scalar. Values outside [0, 1] extrapolate.

    Returns:
      A pytree like ``start``.

    Raises:
      ValueError: if the two pytrees differ in structure, shape or dtype, or in a leaf
        that is no floating-point number.
      TypeError: if a leaf is complex.

    References:
      Han et al., "You Only Debias Once", 2025, eq. 3.

    >>> interpolate({"w": jnp.array([0.0, 2.0])}, {"w": jnp.array([4.0, 2.0])}, 0.25)
    {'w': Array([1., 2.], dtype=float32)}
    """
    check_same_structure(start, end)

    def point(first: Any, last: Any) -> Any:
        if not _floating(first):
            return first
        # In the leaf's dtype: a float32 position would promote bfloat16 parameters.
        position = jnp.asarray(t).astype(jnp.result_type(first))
        # Not first + t (last - first), which would miss the end by a rounding.
        return (1 - position) * first + position * last

    return jax.tree.map(point, start, end)


def grid(start: PyTree, end: PyTree, ts: Float[Array, " levels"]) -> PyTree:
    """Parameters at many positions of the line, stacked.

    Args:
      start: parameters at 0.
      end: parameters at 1, of the same structure, shapes and dtypes.
      ts: positions, shape [levels].

    Returns:
      A pytree like ``start``, with a leading axis ``levels`` on every leaf.

    Raises:
      ValueError: if the pytrees differ, or ``ts`` is not a vector.

    >>> grid(jnp.zeros(2), jnp.ones(2), jnp.array([0.0, 0.5])).shape
    (2, 2)
    """
    ts = jnp.asarray(ts)
    if ts.ndim != 1:
        raise ValueError(f"ts: expected a vector of positions, got shape {ts.shape}")
    return jax.vmap(interpolate, in_axes=(None, None, 0))(start, end, ts)


def cosine_squared(
    start: PyTree,
    end: PyTree,
    *,
    where: Callable[[Array], bool] = lambda leaf: jnp.ndim(leaf) >= 2,
) -> Float[Array, ""]:
    """Squared cosine of the angle between two parameter pytrees.

    ``<u, v>^2 / (|u|^2 |v|^2)``, where u and v concatenate the chosen leaves. Added to
    a loss it keeps the ends of a line apart. Two independently drawn networks are
    orthogonal already, so in practice the term is near zero from the start.

    Args:
      start: parameters.
      end: parameters of the same structure, shapes and dtypes.
      where: whether a leaf counts; matrices and tensors by default, so that biases and
        scales are left out.

    Returns:
      A scalar in [0, 1]; 0 when either side is all zeros or no leaf counts.

    Raises:
      ValueError: if the pytrees differ in structure, shape or dtype.

    References:
      Wortsman et al., "Learning Neural Network Subspaces", 2021, eq. 7.

    >>> cosine_squared(jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0]]))
    Array(0.36, dtype=float32)
    """
    check_same_structure(start, end)
    pairs = [
        (u, v)
        for u, v in zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True)
        if _floating(u) and where(u)
    ]
    zero = jnp.zeros(())
    dot = sum((jnp.sum(u * v) for u, v in pairs), zero)
    norms = sum((jnp.sum(u * u) for u, _ in pairs), zero) * sum(
        (jnp.sum(v * v) for _, v in pairs), zero
    )
    # The inner where keeps the gradient finite where the outer one discards the value.
    return jnp.where(norms > 0, dot**2 / jnp.where(norms > 0, norms, 1), 0)


def simplex(points: PyTree, weights: Float[Array, " ends"]) -> PyTree:
    """Parameters at one point of the simplex spanned by several ends.

    ``sum_k w_k theta_k``. Weights are not normalised: those of a point inside the
    simplex are non-negative and sum to one.

    Args:
      points: the ends, stacked: a leading axis ``ends`` on every leaf.
      weights: barycentric coordinates, shape [ends].

    Returns:
      A pytree like one end.

    Raises:
      ValueError: if ``weights`` is not a vector, a leaf's first axis differs from it,
        or a leaf that is no floating-point number differs between the ends.
      TypeError: if a leaf is complex.

    References:
      Wortsman et al., "Learning Neural Network Subspaces", 2021, section 3.

    >>> simplex(jnp.array([[0.0], [2.0], [4.0]]), jnp.array([0.5, 0.25, 0.25]))
    Array([1.5], dtype=float32)
    """
    weights = jnp.asarray(weights)
    if weights.ndim != 1:
        raise ValueError(f"weights: expected a vector, got shape {weights.shape}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(points):
        if jnp.ndim(leaf) == 0 or leaf.shape[0] != weights.shape[0]:
            raise ValueError(
                f"points{jax.tree_util.keystr(path)}: expected a leading axis of "
                f"{weights.shape[0]} (one per weight), got shape {jnp.shape(leaf)}"
            )
        for end in leaf[1:] if not _floating(leaf) else ():
            _check_unmixed(f"points{jax.tree_util.keystr(path)}", leaf[0], end)

    def point(leaf: Any) -> Any:
        if not _floating(leaf):
            return leaf[0]
        return jnp.tensordot(weights.astype(leaf.dtype), leaf, axes=1)

    return jax.tree.map(point, points)


def check_same_structure(start: PyTree, end: PyTree) -> None:
    """Check that two pytrees can be the ends of one line.

    Args:
      start: a parameter pytree.
      end: another one.

    Raises:
      ValueError: naming the first leaf whose structure, shape or dtype differs, or that
        is no floating-point number and differs, as far as its values are concrete.
      TypeError: naming the first leaf that is complex.
    """
    first, last = jax.tree.structure(start), jax.tree.structure(end)
    if first != last:
        raise ValueError(
            "start and end: expected pytrees of one structure, "
            f"got {first} and {last}; build both ends from the same network"
        )
    leaves: list[tuple[Any, Any]] = jax.tree_util.tree_leaves_with_path(start)
    for (path, u), v in zip(leaves, jax.tree.leaves(end), strict=True):
        name = jax.tree_util.keystr(path)
        if jnp.shape(u) != jnp.shape(v) or jnp.result_type(u) != jnp.result_type(v):
            raise ValueError(
                f"end{name}: expected {jnp.result_type(u)}{jnp.shape(u)} as at the "
                f"start, got {jnp.result_type(v)}{jnp.shape(v)}; build both ends from "
                "the same network"
            )
        if not _floating(u):
            _check_unmixed(f"end{name}", u, v)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _check_unmixed(name: str, first: Any, last: Any) -> None:
    """Check that a leaf which cannot be interpolated is the same at both ends."""
    if jnp.issubdtype(jnp.result_type(first), jnp.complexfloating):
        raise TypeError(f"{name}: expected real parameters, got complex ones")
    if any(
        isinstance(leaf, Tracer) or not getattr(leaf, "is_fully_addressable", True)
        for leaf in (first, last)
    ):
        return
    if named_leaves.is_key(first):
        first, last = jax.random.key_data(first), jax.random.key_data(last)
    # A point between two integers is not an integer, so neither may be chosen.
    if not np.array_equal(first, last):
        raise ValueError(
            f"{name}: expected {jnp.result_type(first)} values as at the start, since "
            "only floating-point parameters are interpolated, got others; give both "
            "ends the same counters and keys, or keep them out of the parameters"
        )
