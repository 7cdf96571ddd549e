"""A quadratic programme of a few non-negative unknowns, inside jit.

``argmin_{v >= 0} v' A v / 2 + b' v`` with A symmetric positive semidefinite: the dual
of a projection onto a cone. Up to five unknowns, all active sets are tried at once,
without a branch. With more, coordinates descend one after the other. A may be singular
(duplicate or dependent constraints) as long as b lies in its range, as it does where A
and b are inner products with the same vectors: then some solution has a support whose
block of A is regular, and the other blocks can be left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

__all__ = ["EXACT_SIZE", "nonnegative_qp"]

# 2^5 = 32 supports, each a small elimination; the number doubles with each unknown.
EXACT_SIZE = 5
# Pivots of a matrix with a unit diagonal; below, float32 cannot tell them from zero.
_PIVOT = 1e-6
# A bound for dependent constraints, where descent converges slowly.
_SWEEPS = 2000


def nonnegative_qp(
    gram: Float[Array, "K K"], linear: Float[Array, " K"]
) -> Float[Array, " K"]:
    """``argmin_{v >= 0} v' A v / 2 + b' v``.

    The solution has ``v >= 0``, ``w = A v + b >= 0`` and ``v_k w_k = 0``. Exact for K
    up to 5; above, projected coordinate descent to the precision of the dtype, or 2000
    sweeps. Where A is singular, one of the solutions.

    Args:
      gram: A, symmetric positive semidefinite; a row of zeros leaves its unknown at 0.
      linear: b, in the range of A.

    Returns:
      v, exactly non-negative.

    Raises:
      ValueError: if the shapes do not fit together.

    >>> nonnegative_qp(jnp.eye(2), jnp.array([-3.0, 1.0]))
    Array([3., 0.], dtype=float32)
    """
    count = linear.shape[0] if linear.ndim == 1 else 0
    if not count or gram.shape != (count, count):
        raise ValueError(
            "gram: expected [K, K] for linear [K], K at least 1, got gram of "
            f"{gram.shape} and linear of {linear.shape}"
        )
    return _solve(gram, linear)


# Hundreds of tiny operations: compiled also where the caller is not.
@jax.jit
def _solve(gram: Array, linear: Array) -> Array:
    # A unit diagonal: the tolerances below then mean the same for every scale.
    scale = jnp.sqrt(jnp.diagonal(gram))
    # An anchor of zeros constrains nothing, and must not divide by 0.
    live = scale > 0
    scale = jnp.where(live, scale, 1)
    unit = gram / scale[:, None] / scale[None]
    linear = jnp.where(live, linear / scale, 0)
    # The solution is proportional to b, so b is scaled to 1 and the result back.
    size = jnp.abs(linear).max()
    size = jnp.where(size > 0, size, 1)
    if linear.shape[0] == 1:
        solve = _alone
    else:
        exact = linear.shape[0] <= EXACT_SIZE
        solve = _active_sets if exact else _coordinate_descent
    return solve(unit, linear / size) * size / scale


def _alone(gram: Array, linear: Array) -> Array:
    """One unknown with a unit diagonal."""
    del gram
    return jnp.maximum(-linear, 0)


def _active_sets(gram: Array, linear: Array) -> Array:
    """Solve for each support, and keep the one that violates optimality least."""
    count = linear.shape[0]
    supports = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 == 1
    candidates, regular = jax.vmap(_solve_support, (None, None, 0))(
        gram, linear, jnp.asarray(supports)
    )
    slopes = jnp.einsum("kl,sl->sk", gram, candidates, precision="highest")
    slopes += linear[None]
    # By how much each candidate breaks v >= 0, w >= 0 or v_k w_k = 0. The least broken
    # one is right; a test against 0 would leave none after rounding.
    broken = jnp.maximum(
        -candidates, jnp.where(supports, jnp.abs(slopes), -slopes)
    ).max(1)
    best = jnp.argmin(jnp.where(regular, broken, jnp.inf))
    return jnp.maximum(candidates[best], 0)


def _solve_support(
    gram: Array, linear: Array, support: Bool[Array, " K"]
) -> tuple[Array, Bool[Array, ""]]:
    """Solve ``A_SS v_S = -b_S`` by elimination; is A_SS regular?

    Unrolled over K: no pivoting is needed for a positive definite block, and unlike a
    library's factorisation this fuses, and vmaps over edits.
    """
    count = linear.shape[0]
    both = support[:, None] & support[None]
    # Unknowns outside the support get a row of the identity, and so stay 0.
    matrix = jnp.where(both, gram, jnp.eye(count, dtype=gram.dtype))
    right = jnp.where(support, -linear, 0)
    regular = jnp.array(True)
    for k in range(count):
        pivot = matrix[k, k]
        regular &= pivot > _PIVOT
        factor = matrix[:, k] / jnp.where(pivot > _PIVOT, pivot, 1)
        factor = jnp.where(jnp.arange(count) > k, factor, 0)
        matrix -= factor[:, None] * matrix[k][None]
        right -= factor * right[k]
    solution = jnp.zeros_like(right)
    for k in reversed(range(count)):
        pivot = jnp.where(matrix[k, k] > _PIVOT, matrix[k, k], 1)
        rest = jnp.sum(matrix[k, k + 1 :] * solution[k + 1 :])
        solution = solution.at[k].set((right[k] - rest) / pivot)
    return solution, regular


def _coordinate_descent(gram: Array, linear: Array) -> Array:
    """Minimise over one coordinate at a time until a sweep changes nothing."""
    count = linear.shape[0]
    tolerance = jnp.finfo(gram.dtype).eps

    def coordinate(k: Array, v: Array) -> Array:
        # With a unit diagonal the exact minimum along k is one slope away.
        slope = jnp.dot(gram[k], v, precision="highest") + linear[k]
        step = jnp.where(gram[k, k] > 0, slope, 0)
        return v.at[k].set(jnp.maximum(v[k] - step, 0))

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        v, _, number = state
        swept = jax.lax.fori_loop(0, count, coordinate, v)
        moved = jnp.abs(swept - v).max() / jnp.maximum(swept.max(), 1)
        return swept, moved, number + 1

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        _, moved, number = state
        return (moved > tolerance) & (number < _SWEEPS)

    start = jnp.zeros_like(linear), jnp.asarray(jnp.inf, gram.dtype), jnp.array(0)
    return jax.lax.while_loop(goes_on, sweep, start)[0]
