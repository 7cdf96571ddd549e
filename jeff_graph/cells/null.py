"""Which pairs stand out: a null of permuted labels, and false discovery rates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jeff.checks import check_same_length
from jeff_graph.cells.arrays import as_mask, as_real, is_concrete, means_nan

__all__ = ["Null", "false_discovery_rate", "permutation_null"]


class Null(NamedTuple):
    """Comparison of each pair with networks that learned from permuted labels.

    Attributes:
      lift: ``(score - mean) / sd`` over the permutations; NaN for unseen pairs.
      p_value: of the lift, one-sided, in (0, 1]; 1 for unseen pairs.
      q_value: smallest false discovery rate at which the pair is reported.
    """

    lift: Float[Array, "genes genes"]
    p_value: Float[Array, "genes genes"]
    q_value: Float[Array, "genes genes"]


@means_nan
def permutation_null(
    scores: Shaped[Any, "genes genes"],
    permuted: Shaped[Any, "permutations genes genes"],
) -> Null:
    """Compare a map with maps of networks that were trained on permuted labels.

    A pair's lift is ``(Z - mean) / sd`` over the permutations, with half of the
    variance from the pair and half from the median pair, because a few permutations
    estimate a pair's variance poorly. Each permutation's map gets a lift against the
    others, and the p-value is the share of those, pooled over pairs, that reach the
    lift.

    Args:
      scores: the map of the network that learned from the real labels.
      permuted: maps of networks with the same training on permuted labels, over the
        same cells; at least 3.

    Returns:
      `Null`; the p-value is at least 1 / (1 + permutations * pairs).

    Raises:
      ValueError: if shapes do not fit, or there are fewer than 3 permutations.
    """
    scores, permuted = as_real(scores, "scores"), as_real(permuted, "permuted")
    if permuted.shape[1:] != scores.shape or permuted.shape[0] < 3:
        raise ValueError(
            f"permuted: expected shape [3 or more, *{scores.shape}], got "
            f"{permuted.shape}"
        )
    number = permuted.shape[0]
    lift = _lift(scores, permuted)
    others = [
        _lift(permuted[i], jnp.delete(permuted, i, axis=0)) for i in range(number)
    ]
    pair = jnp.triu_indices(scores.shape[0], 1)
    pooled = jnp.stack(others)[:, *pair].ravel()
    # Sorted once, and counted by bisection: all pairs against all permutations would
    # not fit into memory.
    pooled = jnp.sort(jnp.where(jnp.isnan(pooled), jnp.inf, pooled))
    total = jnp.isfinite(pooled).sum(dtype=pooled.dtype)
    reach = total - jnp.searchsorted(pooled, lift, side="left").astype(total.dtype)
    # The real map counts as one of the permutations, so no p-value is 0.
    p_value = jnp.where(jnp.isnan(lift), 1.0, (1 + reach) / (1 + total))
    flat = false_discovery_rate(p_value[pair], where=~jnp.isnan(lift[pair]))
    q_value = jnp.ones_like(lift).at[pair].set(flat)
    return Null(lift, p_value, jnp.minimum(q_value, q_value.T))


def _lift(scores: Array, permuted: Array) -> Array:
    variance = permuted.var(axis=0, ddof=1)
    deviation = jnp.sqrt((variance + jnp.nanmedian(variance)) / 2)
    # Without any spread there is nothing to measure a lift by.
    lift = (scores - permuted.mean(axis=0)) / deviation
    return jnp.where(deviation > 0, lift, jnp.nan)


def false_discovery_rate(
    p_value: Shaped[Any, " tests"], *, where: Shaped[Any, " tests"] | None = None
) -> Float[Array, " tests"]:
    """Benjamini and Hochberg's q-values: ``min over p' >= p of p' n / rank(p')``.

    Args:
      p_value: in [0, 1].
      where: tests to count; all by default. The others get 1.

    Returns:
      Smallest false discovery rate at which each test is reported.

    Raises:
      ValueError: if the lengths differ, or a p-value is NaN or outside [0, 1].

    References:
      Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the
      Royal Statistical Society B, 1995.

    >>> false_discovery_rate(jnp.array([0.125, 0.5, 0.25])).tolist()
    [0.375, 0.5, 0.375]
    """
    p_value = as_real(p_value, "p_value")
    where = jnp.ones(p_value.shape, bool) if where is None else where
    counted = as_mask(where, "where")
    check_same_length(p_value=p_value, where=counted)
    if is_concrete(p_value, counted):
        wrong = counted & ~((p_value >= 0) & (p_value <= 1))
        if wrong.any():
            raise ValueError(
                f"p_value: expected numbers in [0, 1], got {float(p_value[wrong][0])}; "
                "leave out tests that were not made, by where"
            )
    dtype = p_value.dtype
    order = jnp.argsort(jnp.where(counted, p_value, 2.0))
    rank = jnp.arange(1, len(p_value) + 1, dtype=dtype)
    number = counted.sum(dtype=dtype)
    scaled = jnp.where(counted[order], p_value[order] * number / rank, 1.0)
    # A q-value must not fall as p rises: the least of all larger p.
    least = jax.lax.cummin(scaled, reverse=True)
    return jnp.ones_like(p_value).at[order].set(jnp.minimum(least, 1.0))
